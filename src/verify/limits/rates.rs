use std::sync::Arc;

use crate::model::{Key, Timestamp};
use crate::{
    model::Limits,
    verify::limits::{limiter::RateLimiter, meter::Meter, per_node::PerNode},
};

/// Who counts rates.
pub(crate) enum Rates {
    /// This node, for itself.
    PerNode(Box<PerNode>),
    /// Somebody who has to be asked.
    Elsewhere(Arc<dyn RateLimiter>),
}

impl Rates {
    /// Where the uses of a key are counted.
    #[inline(always)]
    pub(crate) fn meter(&self, key: &Key, plan: &Limits, now: Timestamp) -> Meter {
        match self {
            Self::PerNode(per_node) => per_node.meter(key, plan, now),
            Self::Elsewhere(_) => Meter::elsewhere(
                plan.rate_of(&key.limits).is_some()
                    || plan.shared_rate().is_some()
                    || key.limits.quota.is_some()
                    || plan.shared_quota().is_some(),
            ),
        }
    }

    pub(crate) fn limiter(&self) -> Option<&dyn RateLimiter> {
        match self {
            Self::PerNode(_) => None,
            Self::Elsewhere(limiter) => Some(&**limiter),
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::PerNode(Box::default())
    }
}
