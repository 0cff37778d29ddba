mod bounds;
mod changes;
mod flights;
mod staleness;
pub mod wrapper;
