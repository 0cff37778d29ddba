mod bounds;
mod changes;
pub mod faulty_store;
mod flights;
mod revocations;
mod staleness;
