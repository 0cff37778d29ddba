mod bounds;
mod changes;
pub mod faulty_store;
mod feed;
mod lost;
mod revocations;
mod single_flight;
mod staleness;
