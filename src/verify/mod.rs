//! Answers a request: parse, digest, find, authorize, charge, record.

pub(crate) mod cache;
pub(crate) mod denials;
mod denied;
pub(crate) mod flood;
pub(crate) mod follow;
pub(crate) mod limits;
pub(crate) mod lookup;
pub(crate) mod outbox;
pub(crate) mod pay;
mod request;
mod reserve;
pub(crate) mod usage;
pub(crate) mod verdict;
pub(crate) mod verified;
#[allow(clippy::module_inception, reason = "until the room is rebuilt")]
mod verify;

pub(crate) use cache::{Cache, Flights};
pub use cache::{CacheOptions, FeedState};
pub(crate) use denials::{Attempt, Denials};
pub use denied::{Denied, DeniedReason};
pub(crate) use follow::Follower;
pub use limits::{
    Limited, LimitedReason, QuotaState, QuotaStates, RateCharge, RateLevels, RateLimiter,
    RateLimiterError, RateOutcome, RateState, RateStates, RateSubject,
};
pub(crate) use limits::{Rates, whole_seconds};
#[cfg(feature = "redis")]
pub use limits::{RedisOutage, RedisRateLimiter};
pub(crate) use lookup::Loaded;
pub(crate) use outbox::{MAX_UNWRITTEN, Outbox};
pub use request::VerifyRequest;
pub use reserve::{Reservation, Settlement};
pub(crate) use usage::begin_of_hour;
pub use verified::Verified;
pub use verify::VerifyError;
