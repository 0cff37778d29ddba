//! Verification of requests: the same six steps with or without a cache.
//!
//! 1. **Parse** the text offline: prefix, length, checksum, alphabet.
//! 2. **Digest** it once.
//! 3. **Find** the key: in the [cache](CacheOptions), else in the store (`find.rs`).
//! 4. **Authorize**: one function decides (`authorize.rs`).
//! 5. **Charge** rates, then quotas (`charge.rs`).
//! 6. **Record** the use in memory (`usage.rs`); a background task writes it (`write_behind.rs`).
//!
//! The first failure is returned. An unknown key costs as much as a known one.

mod authorize;
mod background;
mod cache;
mod change_feed;
mod charge;
mod checked_clock;
mod denials;
mod error;
mod facts;
mod find;
#[cfg(feature = "manage")]
mod introspect;
mod limits;
mod replacements;
mod request;
mod reserve;
mod throttle;
mod usage;
mod use_counter;
mod verified;
mod verifier;
mod write_behind;

#[cfg(feature = "manage")]
pub(crate) use self::introspect::{ActiveKey, Introspection};
#[cfg(feature = "http")]
pub(crate) use self::limits::whole_seconds;
#[cfg(feature = "redis")]
pub use self::limits::{RedisOutage, RedisRateLimiter};
pub(crate) use self::{
    cache::{Cache, SingleFlight},
    change_feed::FeedFollower,
    checked_clock::CheckedClock,
    denials::Attempt,
    limits::{Buckets, Rates, seconds_to_wait},
    use_counter::start_of_hour,
    verifier::Verifier,
    write_behind::{WriteBehind, run_to_end},
};
pub use self::{
    cache::{CacheOptions, FeedState},
    error::{Denied, DeniedReason, VerifyError},
    limits::{
        Limited, LimitedReason, QuotaState, QuotaStates, RateCharge, RateLevels, RateLimiter,
        RateLimiterError, RateOutcome, RateState, RateStates, RateSubject,
    },
    request::VerifyRequest,
    reserve::{Reservation, Settlement},
    verified::Verified,
    verifier::IdentifiedKey,
};
