//! One binary for all integration tests: two cores link it once.

mod format;
mod hash;
mod store;
