//! Where keys live: the contract of a store, and the stores of this crate.

mod contract;
mod error;
mod memory;
mod rows;

pub use contract::KeyStore;
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use rows::{
    Changes, Feed, Found, Inserted, KeyQuery, NewRow, Previous, Revoked, RotateRow, RotatedRow,
    Updated, Use,
};
