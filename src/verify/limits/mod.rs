//! How often a key may be used: rates, counted in memory or by a [`RateLimiter`], and quotas, counted in the store.

mod gcra;
mod quotas;
mod rate_buckets;
mod rate_limiter;
#[cfg(feature = "redis")]
mod redis_rate_limiter;

pub use self::{
    gcra::RateState,
    quotas::{QuotaState, QuotaStates},
    rate_buckets::RateStates,
    rate_limiter::{
        RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome, RateSubject,
    },
};
pub(crate) use self::{
    quotas::Quotas,
    rate_buckets::{KeyRates, RateBucket, Rates, RatesCharged},
    rate_limiter::rates_of,
};
#[cfg(feature = "redis")]
pub use redis_rate_limiter::{RedisOutage, RedisRateLimiter};
