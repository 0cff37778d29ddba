use std::time::Duration;

use super::limits::{QuotaStates, RateStates};
use crate::{error::Error, secret::Malformed};

/// The reasons why a request is not verified.
///
/// Exhaustive on purpose, because the three must never be answered alike: a client discards a key that is
/// called invalid, so an outage or a limit answered as a denial destroys good keys.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The secret does not belong to a key that may do this: 401 or 403.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The key exceeded a rate or a quota, or too many attempts from its network failed, in which case the key
    /// was not looked up: 429, with `Retry-After` if waiting helps.
    ///
    /// Boxed, because every answer would be as large as this rare one.
    #[error(transparent)]
    Limited(Box<Limited>),
    /// The store or the host's accounts did not answer: 503.
    #[error(transparent)]
    Unavailable(Error),
}

/// A request that was denied. `Display` is the same for every reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API key is missing, not valid, or not allowed to do this")]
pub struct Denied {
    reason: DeniedReason,
}

impl Denied {
    #[inline]
    pub(crate) fn new(reason: DeniedReason) -> Self {
        Self { reason }
    }

    /// Returns the reason, for logs, metrics and the host's own decisions. Do not show it to an unauthenticated
    /// caller: details help an attacker only.
    pub fn reason(&self) -> DeniedReason {
        self.reason
    }
}

/// Why a request was denied. Written to the audit log and to metrics, not shown to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeniedReason {
    /// The text does not have the format of a secret.
    Malformed(Malformed),
    /// No key has this secret.
    Unknown,
    /// The key is revoked.
    Revoked,
    /// The key is disabled.
    Disabled,
    /// The key has expired.
    Expired,
    /// A rotation replaced this secret, and its overlap has ended.
    SecretRetired,
    /// The key's owner is suspended.
    OwnerSuspended,
    /// The request is addressed to another tenant.
    WrongTenant,
    /// The key is restricted to networks, and the request came from elsewhere.
    NetworkNotAllowed,
    /// The key lacks a scope that the request needs.
    AccessMissing,
}

impl DeniedReason {
    /// Returns a stable name: `malformed`, `unknown`, `revoked`, ….
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::SecretRetired => "secret_retired",
            Self::OwnerSuspended => "owner_suspended",
            Self::WrongTenant => "wrong_tenant",
            Self::NetworkNotAllowed => "network_not_allowed",
            Self::AccessMissing => "access_missing",
        }
    }
}

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
    /// A [`Rate`](crate::model::Rate) of the key, or the rate that all keys of its owner share.
    Rate,
    /// A [`Quota`](crate::model::Quota): less is left than the use costs.
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
