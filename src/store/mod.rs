//! Where keys live: the contract of a store, and the stores of this crate.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
mod memory;
mod rows;

pub use contract::KeyStore;
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use rows::{
    Changes, Found, Inserted, KeyQuery, NewRow, Previous, Revoked, RotateRow, RotatedRow, Updated,
    Use,
};
