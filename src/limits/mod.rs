//! How many keys, for how long, how often: the account's limits, which a key may narrow.

mod gcra;
mod limited;
mod limiter;
mod meter;
mod per_node;
mod plan;
mod quota;
mod quotas;
mod rates;
#[cfg(feature = "redis")]
mod redis;

pub use gcra::RateState;
pub(crate) use limited::whole_seconds;
pub use limited::{Limited, LimitedReason};
pub(crate) use limiter::rates_of;
pub use limiter::{Charge, Charged, Levels, Limiter, LimiterError, RateOf};
pub use meter::RateStates;
pub(crate) use meter::{Meter, SharedBucket, Spent};
pub use plan::{KeyLimits, Limits, Rate};
pub use quota::{Period, Quota};
pub(crate) use quotas::Quotas;
pub use quotas::{QuotaState, QuotaStates};
pub(crate) use rates::Rates;
#[cfg(feature = "redis")]
pub use redis::{RedisLimiter, WithoutRedis};
