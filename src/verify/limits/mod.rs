//! How often a key may be used: rates, counted in memory or by a [`RateLimiter`], and quotas, counted in the store.

mod gcra;
mod limited;
mod rate_buckets;
mod rate_limiter;
#[cfg(feature = "redis")]
mod redis_rate_limiter;

#[cfg(feature = "http")]
pub(crate) use self::limited::whole_seconds;
pub use self::{
    limited::{Limited, LimitedReason, QuotaState, QuotaStates, RateState, RateStates},
    rate_limiter::{
        RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome, RateSubject,
    },
};
pub(crate) use self::{
    limited::{Quotas, seconds_to_wait},
    rate_buckets::{Buckets, KeyRates, RateBucket, Rates, RatesCharged},
    rate_limiter::rates_of,
};
#[cfg(feature = "redis")]
pub use redis_rate_limiter::{RedisOutage, RedisRateLimiter};
