#![doc = include_str!("../README.md")]
#![warn(missing_docs, unreachable_pub)]

pub mod accounts;
#[cfg(feature = "actix")]
pub mod actix;
pub mod audit;
#[cfg(feature = "axum")]
pub mod axum;
pub mod cache;
pub mod format;
pub mod hash;
#[cfg(feature = "http")]
pub mod http;
pub mod key;
pub mod keys;
pub mod limits;
mod lock;
pub mod store;
pub mod testing;
#[cfg(feature = "tower")]
pub mod tower;
mod usage;

pub use accounts::{Account, Accounts};
pub use audit::{AuditEvent, AuditQuery, AuditSink};
pub use format::{Alphabet, Checksum, Formats, KeyFormat};
pub use hash::{Digest, Hasher, HmacSha256, Pepper, Sha256};
pub use key::{
    Access, Actor, Denied, Expiry, Key, KeyId, Owner, Secret, Status, Timestamp, Verified, Whose,
};
pub use keys::{ApiKeys, Error, ErrorKind, NewKey, Request, VerifyError};
pub use limits::Limits;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::{KeyStore, MemoryStore};
