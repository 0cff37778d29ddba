//! A single binary for all tests: it links once, and one check for secrets covers the log of the whole run.

mod architecture;
mod cache;
mod client;
mod cluster;
mod email;
mod enroll;
mod format;
mod hash;
mod hostile;
mod http;
mod keys;
mod limits;
mod model;
mod prelude;
mod products;
mod store;
mod support;
mod totp;
