//! Key storage: the [`KeyStore`] trait with its contract, and the stores of this crate.
//!
//! Key records and the audit log are what every store has. [`ChangeFeed`], [`Counters`], [`UsageHistory`],
//! [`OneTimeCodes`] and [`StoreClock`] are traits of their own, which a store may lack: see [`Capability`].

#[cfg(any(feature = "postgres", feature = "redis"))]
mod coalesced;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
#[cfg(feature = "serde")]
mod document;
mod error;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod feed_position;
#[cfg(feature = "kv")]
mod kv;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod records;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use contract::{
    Capability, ChangeFeed, Counters, KeyStore, OneTimeCodes, StoreClock, UsageHistory,
};
#[cfg(feature = "serde")]
pub use document::{EventDocument, KeyDocument};
pub use error::{StoreError, StoreErrorKind};
#[cfg(feature = "redb")]
pub use kv::RedbEngine;
#[cfg(feature = "kv")]
pub use kv::{KvEngine, KvError, KvMode, KvOrder, KvPair, KvStore, KvTransaction};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
pub use records::{
    ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey,
    FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, OneTimeCode,
    OwnedCounterCharge, OwnedInsertKey, OwnedRotateSecret, PreviousSecret, RevokeOutcome,
    RotateOutcome, RotateSecret, UpdateOutcome,
};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
