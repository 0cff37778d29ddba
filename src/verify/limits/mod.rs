//! Rates and quotas: how often a key may be used.

pub(crate) mod gcra;
pub(crate) mod limited;
pub(crate) mod limiter;
pub(crate) mod meter;
pub(crate) mod per_node;
pub(crate) mod quotas;
pub(crate) mod rates;
#[cfg(feature = "redis")]
pub(crate) mod redis;

pub use gcra::RateState;
pub(crate) use limited::whole_seconds;
pub use limited::{Limited, LimitedReason};
pub use limiter::{
    RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome, RateSubject,
};
pub use meter::RateStates;
pub use quotas::{QuotaState, QuotaStates};
pub(crate) use rates::Rates;
#[cfg(feature = "redis")]
pub use redis::{RedisOutage, RedisRateLimiter};
