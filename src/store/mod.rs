//! Key storage: the [`KeyStore`] trait with its contract, and the stores of this crate.

#[cfg(any(feature = "postgres", feature = "redis"))]
mod coalesced;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod feed_position;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod records;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use contract::{Capability, ChangeFeed, Counters, KeyStore, OneTimeCodes, UsageHistory};
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
pub use records::{
    ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey,
    FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, OneTimeCode,
    PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome,
};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
