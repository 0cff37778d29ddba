use std::time::Duration;

use crate::verify::limits::{meter::RateStates, quotas::QuotaStates};

/// A use that would exceed a limit. It was counted against none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", advice(.retry_after))]
#[non_exhaustive]
pub struct Limited {
    /// Which kind of limit it was.
    pub reason: LimitedReason,
    /// After how long it is worth another try; `None` if no waiting helps: the quota never begins
    /// anew, or the use costs more than there ever is at once.
    pub retry_after: Option<Duration>,
    /// What all of the rates say; nothing if it is not the key that came too often, but attempts
    /// from its network that failed.
    pub rates: RateStates,
    /// What the quotas say; nothing if a rate refused, because then they are not asked for.
    pub quotas: QuotaStates,
}

/// Which kind of limit a use would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitedReason {
    /// A [`Rate`](crate::model::Rate): the key, or all keys of its owner, came too often.
    Rate,
    /// A [`Quota`](crate::model::Quota): what is left of it is less than the use costs.
    Quota,
    /// Attempts from the network failed too often; nobody looked whether the key is good.
    Network,
}

impl LimitedReason {
    /// A stable word for it: `rate_limited`, `quota_exhausted` or `throttled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate_limited",
            Self::Quota => "quota_exhausted",
            Self::Network => "throttled",
        }
    }
}

/// As a sentence.
impl std::fmt::Display for LimitedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rate | Self::Network => "too many requests",
            Self::Quota => "the quota is used up",
        })
    }
}

/// A second too late is polite, a second too early is refused again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn advice(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!(": try again in {} s", whole_seconds(*wait)),
        None => ": waiting does not help".into(),
    }
}
