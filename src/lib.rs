#![doc = include_str!("../README.md")]
#![warn(missing_docs, unreachable_pub)]

#[cfg(feature = "server")]
pub mod accounts;
#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "server")]
pub mod cache;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "email")]
pub mod email;
#[cfg(feature = "server")]
pub mod enroll;
pub mod format;
#[cfg(feature = "server")]
pub mod hash;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "server")]
pub mod key;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
mod lock;
#[cfg(feature = "server")]
mod prehashed;
mod secret;
#[cfg(feature = "server")]
pub mod step_up;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod testing;
#[cfg(feature = "totp")]
pub mod totp;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "server")]
mod usage;

#[cfg(feature = "server")]
pub use accounts::{Account, Accounts};
#[cfg(feature = "server")]
pub use audit::{AuditEvent, AuditQuery, AuditSink};
pub use format::{Alphabet, Checksum, Formats, KeyFormat};
#[cfg(feature = "server")]
pub use hash::{Digest, Hasher, HmacSha256, Pepper, Sha256};
#[cfg(feature = "server")]
pub use key::{
    Access, Actor, Denied, Expiry, Key, KeyId, Owner, Status, Timestamp, Verified, Whose,
};
#[cfg(feature = "server")]
pub use keys::{ApiKeys, Error, ErrorKind, NewKey, Request, VerifyError};
#[cfg(feature = "server")]
pub use limits::Limits;
pub use secret::Secret;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
#[cfg(feature = "server")]
pub use store::{KeyStore, MemoryStore};
