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
mod lookup;
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

pub use codes::{OneTimeCode, CodeAttempt, CodeOutcome};
pub use contract::KeyStore;
pub use error::{StoreError, StoreErrorKind};
pub use lookup::Lookup;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
pub use quotas::{Counter, CounterKey, CounterCharge, ChargeOutcome};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
pub use rows::{
    ChangeBatch, FeedMode, FoundKey, InsertOutcome, KeyQuery, InsertKey, PreviousSecret, RevokeOutcome, RotateSecret, RotateOutcome,
    UpdateOutcome, KeyUse,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
pub use tallies::HourlyUsage;
