use std::time::Duration;

use crate::model::{Quota, Rate};

/// A use that would exceed a limit. Nothing was charged for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", advice(.retry_after))]
#[non_exhaustive]
pub struct Limited {
    /// Which kind of limit applies.
    pub reason: LimitedReason,
    /// How long to wait before trying again; `None` if waiting does not help, because the quota is never renewed
    /// or the use costs more than the limit ever allows.
    pub retry_after: Option<Duration>,
    /// The state of the rates; empty if the network is limited and not the key.
    pub rates: RateStates,
    /// The state of the quotas; empty if a rate was exceeded, because quotas are then not read.
    pub quotas: QuotaStates,
}

/// Which kind of limit a use would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitedReason {
    /// A [`Rate`] of the key, or the rate that all keys of its owner share.
    Rate,
    /// A [`Quota`]: less is left than the use costs.
    Quota,
    /// Too many failed attempts from the network; the key was not looked up.
    Network,
}

impl LimitedReason {
    /// Returns a stable name: `rate_limited`, `quota_exhausted` or `throttled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate_limited",
            Self::Quota => "quota_exhausted",
            Self::Network => "throttled",
        }
    }
}

impl std::fmt::Display for LimitedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rate | Self::Network => "too many requests",
            Self::Quota => "the quota is used up",
        })
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateState {
    /// The rate.
    pub rate: Rate,
    /// How many uses may follow immediately.
    pub remaining: u32,
    /// How long until the whole burst is available again.
    pub reset: Duration,
}

/// The state of the rates that a use is charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateStates {
    /// The key's rate: its own, or the one that the plan gives to each key.
    pub key: Option<RateState>,
    /// The rate that all of the owner's keys share.
    pub owner: Option<RateState>,
}

/// What is left of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaState {
    /// The quota.
    pub quota: Quota,
    /// How many uses are left.
    pub remaining: u64,
    /// When the quota is renewed; `None` if it never is.
    pub reset: Option<Duration>,
}

/// The quotas that a use is charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStates {
    /// The key's own quota.
    pub key: Option<QuotaState>,
    /// The quota that all of the owner's keys share.
    pub owner: Option<QuotaState>,
}

/// Rounds up: a client that comes a second early is limited again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn advice(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!(": try again in {} s", whole_seconds(*wait)),
        None => ": waiting does not help".into(),
    }
}
