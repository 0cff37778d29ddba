use std::{net::IpAddr, time::Duration};

use crate::model::{
    access::{Access, Networks},
    id::KeyId,
    limits::KeyLimits,
    owner::Owner,
    text::{Metadata, Name},
    timestamp::Timestamp,
};

/// The record of an API key. It contains only the hint of a secret, never the secret.
///
/// Exhaustive on purpose: a store that ignored a new field would lose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The stable identifier. It does not change on rotation.
    pub id: KeyId,
    /// The owner. It never changes.
    pub owner: Owner,
    /// The name chosen by the user.
    pub name: Name,
    /// The part of the current secret that may be shown: `lnos_live_a1b2c3d4`.
    pub hint: String,
    /// The previous secret, if the key was rotated.
    pub retiring: Option<RetiringSecret>,
    /// The access of the key.
    pub access: Access,
    /// The rate limit and quota of the key.
    pub limits: KeyLimits,
    /// The networks from which the key may be used.
    pub networks: Networks,
    /// Data that the host stores with the key.
    pub metadata: Metadata,
    /// When the key was issued.
    pub created_at: Timestamp,
    /// The first instant at which the key is expired. Set when the key is issued, never changed.
    pub expires_at: Option<Timestamp>,
    /// When the key was disabled, if it is.
    pub disabled_at: Option<Timestamp>,
    /// The revocation, if the key was revoked. A revocation is permanent.
    pub revoked: Option<Revocation>,
    /// When the last rotation replaced the secret.
    pub rotated_at: Option<Timestamp>,
    /// A hash of the idempotency token of the last rotation, by which a retry is recognized.
    pub rotation_token: Option<[u8; 32]>,
    /// When the key was first used.
    pub first_used_at: Option<Timestamp>,
    /// When the key was last used, accurate to the interval at which uses are written.
    pub last_used_at: Option<Timestamp>,
    /// The address of the last use. Among several uses in the same second, any of their addresses.
    pub last_used_ip: Option<IpAddr>,
    /// The number of changes. An update or a rotation applies only to the revision that it was based on.
    pub revision: u64,
}

/// The secret that a rotation replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiringSecret {
    /// The part of the secret that may be shown.
    pub hint: String,
    /// The first instant at which the secret is rejected. [`Timestamp::MIN`] if the rotation had no overlap.
    pub ends_at: Timestamp,
}

/// When and why a key was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When the key was revoked.
    pub at: Timestamp,
    /// The reason given by the actor. May be empty.
    pub reason: String,
}

/// The status of a key at an instant. If several apply, the first in this order is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Revoked, permanently.
    Revoked,
    /// Past its expiry.
    Expired,
    /// Disabled. It can be enabled again.
    Disabled,
    /// Usable.
    Active,
}

impl Key {
    /// Returns the status at an instant. Verification, counting and listing all use this definition.
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

    /// Whether the key counts towards its owner's limit of active keys: neither revoked nor expired.
    ///
    /// A disabled key counts, because otherwise disabling and enabling keys would bypass the limit.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.status(now), Status::Active | Status::Disabled)
    }

    /// Returns the instant of revocation or of expiry, whichever is earlier. Retention starts there.
    ///
    /// The instant may be in the future: a key with an expiry date that is still live returns `Some`.
    pub fn dead_since(&self) -> Option<Timestamp> {
        let revoked = self.revoked.as_ref().map(|revocation| revocation.at);
        [revoked, self.expires_at].into_iter().flatten().min()
    }
}

impl Status {
    /// Returns `revoked`, `expired`, `disabled` or `active`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Active => "active",
        }
    }
}

/// When a new key expires. At the instant of expiry itself, the key is already invalid.
///
/// Exhaustive on purpose: these are all cases.
///
/// # Examples
/// ```
/// use keyward::Expiry;
///
/// let choices = [Expiry::WEEK, Expiry::DAYS_30, Expiry::DAYS_90, Expiry::YEAR, Expiry::Never];
/// assert_eq!(choices[1], Expiry::days(30));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// The key does not expire.
    #[default]
    Never,
    /// At an instant, which must be in the future when the key is issued.
    At(Timestamp),
    /// This long after the key is issued.
    After(Duration),
}

impl Expiry {
    /// 7 days after the key is issued.
    pub const WEEK: Self = Self::days(7);
    /// 30 days after the key is issued.
    pub const DAYS_30: Self = Self::days(30);
    /// 90 days after the key is issued.
    pub const DAYS_90: Self = Self::days(90);
    /// 365 days after the key is issued.
    pub const YEAR: Self = Self::days(365);

    /// Returns an expiry of this many days after the key is issued.
    pub const fn days(days: u32) -> Self {
        Self::After(Duration::from_secs(days as u64 * 86_400))
    }

    /// Returns the instant of expiry of a key that is issued at `now`; `None` if it does not expire.
    pub fn resolve(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(instant) => Some(instant),
            Self::After(duration) => Some(now.after(duration)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_documented_length() {
        let noon = Timestamp::from_unix_micros(1_000_000_000);
        for (preset, days) in
            [(Expiry::WEEK, 7), (Expiry::DAYS_30, 30), (Expiry::DAYS_90, 90), (Expiry::YEAR, 365)]
        {
            assert_eq!(preset.resolve(noon), Some(noon.after(Duration::from_secs(days * 86_400))));
        }
    }
}
