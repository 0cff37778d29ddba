//! Where keys live: the contract of a store, and the stores of this crate.

#[cfg(feature = "postgres")]
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;

pub use contract::KeyStore;
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
pub use rows::{
    Changes, Feed, Found, Inserted, KeyQuery, NewRow, Previous, Revoked, RotateRow, RotatedRow,
    Updated, Use,
};
