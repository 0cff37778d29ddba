// The package in `tests/` compiles the snippets of the README and the manual: they need the dependencies of all examples.
#![cfg_attr(not(doctest), doc = include_str!("../README.md"))]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs, unreachable_pub)]

#[cfg(feature = "server")]
pub mod accounts;
#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "email")]
pub mod email;
#[cfg(feature = "server")]
pub mod enroll;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "server")]
pub mod manage;
// Has no code: it exists for rustdoc only.
#[cfg(all(doc, not(doctest), feature = "server"))]
pub mod manual;
#[cfg(feature = "server")]
pub mod model;
pub mod secret;
#[cfg(feature = "server")]
pub mod store;
pub mod system;
#[cfg(feature = "server")]
pub mod testing;
#[cfg(feature = "totp")]
pub mod totp;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "server")]
pub mod verify;

/// The names of the common path without the modules: `use keyward::prelude::*`.
///
/// `use keyward::*` would also import the modules. Some of them have names of crates: `axum`, `http` and `tower` then
/// mean those of Keyward.
pub mod prelude {
    #[cfg(feature = "postgres")]
    pub use crate::PostgresStore;
    #[cfg(feature = "redis")]
    pub use crate::RedisStore;
    #[cfg(feature = "sqlite")]
    pub use crate::SqliteStore;
    #[cfg(feature = "server")]
    pub use crate::{
        Access, Account, Accounts, Actor, ApiKeys, AuditEvent, AuditQuery, AuditSink, Expiry,
        KeyId, KeyStore, Limits, MemoryStore, NewKey, Owner, OwnerScope, Timestamp, Verified,
        VerifyError, VerifyRequest, async_trait,
    };
    pub use crate::{Formats, KeyFormat, Secret};
}

#[cfg(feature = "server")]
pub use self::{
    accounts::{Account, Accounts},
    api::ApiKeys,
    audit::{AuditEvent, AuditQuery, AuditSink},
    error::{Error, ErrorKind},
    manage::NewKey,
    model::{Access, Actor, Expiry, Key, KeyId, Limits, Owner, OwnerScope, Status, Timestamp},
    secret::{Hasher, HmacSha256Hasher, Pepper, SecretDigest, Sha256Hasher},
    store::{KeyStore, MemoryStore},
    verify::{Denied, Verified, VerifyError, VerifyRequest},
};
/// The attribute of implementations of [`Accounts`] and the other asynchronous traits.
#[cfg(feature = "server")]
pub use async_trait::async_trait;
pub use secret::{Alphabet, Checksum, Formats, KeyFormat, Secret};
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
