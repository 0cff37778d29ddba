//! How many keys, for how long, how often: the account's limits, which a key may narrow.

mod gcra;
mod limited;
mod meter;
mod per_node;
mod plan;
mod quota;
mod quotas;

pub use gcra::RateState;
pub use limited::{Limited, LimitedReason};
pub use meter::RateStates;
pub(crate) use meter::{Meter, SharedBucket, Spent};
pub(crate) use per_node::PerNode;
pub use plan::{KeyLimits, Limits, Rate};
pub use quota::{Period, Quota};
pub(crate) use quotas::Quotas;
pub use quotas::{QuotaState, QuotaStates};
