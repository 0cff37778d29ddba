use crate::model::limits::KeyLimits;
use crate::model::{
    access::Access,
    id::KeyId,
    networks::Networks,
    owner::Owner,
    text::{Metadata, Name},
    timestamp::Timestamp,
};

/// What a person made and named. It holds no secret, only the hint of it.
///
/// Exhaustive on purpose: a store that did not know a field would lose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Stable, also across rotations.
    pub id: KeyId,
    /// Never changes.
    pub owner: Owner,
    /// What its maker called it.
    pub name: Name,
    /// The part of the current secret that may be shown: `lnos_live_a1b2c3d4`.
    pub hint: String,
    /// The secret before the current one, if it was rotated.
    pub retiring: Option<Retiring>,
    /// What it may do.
    pub access: Access,
    /// How often it may do it.
    pub limits: KeyLimits,
    /// From where it may be used.
    pub networks: Networks,
    /// What the host remembers with it.
    pub metadata: Metadata,
    /// When it was issued.
    pub created_at: Timestamp,
    /// From when on it is invalid; set when issued, changed by nothing.
    pub expires_at: Option<Timestamp>,
    /// Since when it is switched off.
    pub disabled_at: Option<Timestamp>,
    /// That it was revoked, which nothing undoes.
    pub revoked: Option<Revocation>,
    /// When its current secret was made, if that was a rotation.
    pub rotated_at: Option<Timestamp>,
    /// What the retry of the last rotation is known by; a hash of the caller's token.
    pub rotation_token: Option<[u8; 32]>,
    /// When it was first used.
    pub first_used_at: Option<Timestamp>,
    /// When it was last used, to within the interval in which uses are written.
    pub last_used_at: Option<Timestamp>,
    /// From where it was last used. Of addresses in one and the same second, it may be any.
    pub last_used_ip: Option<std::net::IpAddr>,
    /// Counts the changes; an update or a rotation applies only to the revision it was based on.
    pub revision: u64,
}

/// The secret that a rotation replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retiring {
    /// The part of it that may be shown.
    pub hint: String,
    /// From when on it no longer works; [`Timestamp::MIN`] if the rotation ended it at once.
    pub ends_at: Timestamp,
}

/// When and why a key was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// The words of who did it; may be empty.
    pub reason: String,
}

/// What a key is at an instant. Of several that fit, the first in this order is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// For ever.
    Revoked,
    /// Its time is over.
    Expired,
    /// Switched off, and can be switched on again.
    Disabled,
    /// It works.
    Active,
}

impl Key {
    /// What the key is at an instant: the one definition that verification, counting and lists share.
    #[inline]
    pub fn status(&self, now: Timestamp) -> Status {
        if self.revoked.is_some() {
            Status::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            Status::Expired
        } else if self.disabled_at.is_some() {
            Status::Disabled
        } else {
            Status::Active
        }
    }

    /// Whether it counts against its owner's limit of active keys: neither revoked nor expired.
    /// A disabled key counts, or switching keys off and on would get around the limit.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.status(now), Status::Active | Status::Disabled)
    }

    /// When it was revoked or expired, whichever came first; what a purge counts from. `Some` does
    /// not say that this instant has passed: an expiry may lie ahead.
    pub fn dead_since(&self) -> Option<Timestamp> {
        let revoked = self.revoked.as_ref().map(|revocation| revocation.at);
        [revoked, self.expires_at].into_iter().flatten().min()
    }
}

impl Status {
    /// `revoked`, `expired`, `disabled` or `active`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Active => "active",
        }
    }
}
