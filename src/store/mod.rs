//! Where keys live: the contract of a store, and the stores of this crate.

#[cfg(any(feature = "postgres", feature = "redis"))]
mod coalesced;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod codec;
mod codes;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
mod memory;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod place;
#[cfg(feature = "postgres")]
mod postgres;
mod quotas;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tallies;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod timed_out;

pub use codes::{CodeAttempt, CodeOutcome, OneTimeCode};
pub use contract::KeyStore;
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
pub use quotas::{ChargeOutcome, Counter, CounterCharge, CounterKey};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
pub use rows::{
    ChangeBatch, FeedMode, FoundKey, InsertKey, InsertOutcome, KeyQuery, KeyUse, PreviousSecret,
    RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
pub use tallies::HourlyUsage;
