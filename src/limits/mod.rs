//! How many keys, for how long, how often: the account's limits, which a key may narrow.

mod gcra;
mod per_node;
mod plan;
mod quota;

pub use gcra::RateState;
pub(crate) use per_node::PerNode;
pub use per_node::{Limited, RateStates};
pub use plan::{KeyLimits, Limits, Rate};
pub use quota::{Period, Quota};
