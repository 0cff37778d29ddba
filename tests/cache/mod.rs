mod bounds;
mod changes;
mod flights;
mod staleness;
mod wrapper;
