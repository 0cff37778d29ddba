mod bounds;
mod changes;
mod flights;
mod revocations;
mod staleness;
pub mod wrapper;
