use crate::secret::Malformed;

/// A request was refused. `Display` says one and the same for every reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API key is missing, not valid, or not allowed to do this")]
pub struct Denied {
    /// A reference, so that every kind of answer is made of whole words: the compiler moves one of
    /// odd bytes piece by piece, which costs a verification several nanoseconds each time.
    reason: &'static DeniedReason,
}

impl Denied {
    #[inline]
    pub(crate) fn new(reason: DeniedReason) -> Self {
        Self { reason: reason.constant() }
    }

    /// Why: for logs, metrics and the host's own decisions. Telling the caller more than "not
    /// valid" helps only those who guess.
    pub fn reason(&self) -> DeniedReason {
        *self.reason
    }
}

/// Why a request was refused. Goes to audit and metrics, not to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeniedReason {
    /// The text cannot be a key.
    Malformed(Malformed),
    /// No such key.
    Unknown,
    /// Revoked.
    Revoked,
    /// Switched off.
    Disabled,
    /// Its time is over.
    Expired,
    /// A rotation replaced this secret, and the overlap is over.
    SecretRetired,
    /// The key's owner is suspended.
    OwnerSuspended,
    /// The request named another tenant.
    WrongTenant,
    /// The request came from a network that the key is not allowed to be used from.
    NetworkNotAllowed,
    /// The key lacks a scope that the request needs.
    AccessMissing,
}

impl DeniedReason {
    fn constant(self) -> &'static Self {
        match self {
            Self::Malformed(Malformed::TooLong) => &Self::Malformed(Malformed::TooLong),
            Self::Malformed(Malformed::Prefix) => &Self::Malformed(Malformed::Prefix),
            Self::Malformed(Malformed::Environment) => &Self::Malformed(Malformed::Environment),
            Self::Malformed(Malformed::Length) => &Self::Malformed(Malformed::Length),
            Self::Malformed(Malformed::Alphabet) => &Self::Malformed(Malformed::Alphabet),
            Self::Malformed(Malformed::Checksum) => &Self::Malformed(Malformed::Checksum),
            Self::Unknown => &Self::Unknown,
            Self::Revoked => &Self::Revoked,
            Self::Disabled => &Self::Disabled,
            Self::Expired => &Self::Expired,
            Self::SecretRetired => &Self::SecretRetired,
            Self::OwnerSuspended => &Self::OwnerSuspended,
            Self::WrongTenant => &Self::WrongTenant,
            Self::NetworkNotAllowed => &Self::NetworkNotAllowed,
            Self::AccessMissing => &Self::AccessMissing,
        }
    }

    /// A stable word for it.
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
