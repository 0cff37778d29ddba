use super::limits::Limited;
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
    /// It cannot be decided now: 503. The store or the host's accounts failed, or the rate limiter if it is set to fail
    /// closed; a stored record is damaged; or too many unknown secrets were looked up in this second.
    #[error(transparent)]
    Unavailable(Error),
}

/// A request that was denied. `Display` is the same for every reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API key is missing, not valid, or not allowed to do this")]
pub struct Denied {
    pub(super) reason: DeniedReason,
}

impl Denied {
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
