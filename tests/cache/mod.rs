mod bounds;
mod changes;
pub mod faulty_store;
mod revocations;
mod single_flight;
mod staleness;
