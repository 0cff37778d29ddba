use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::model::{
    access::{Access, Networks},
    bounds::MAX_OWNER_CHARS,
    limits::KeyLimits,
    text::{Invalid, Metadata, Name, checked_text},
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
    /// Identifies the call with an idempotency token that made the current secret, by a hash of the token and by
    /// what the call asked for. `None` if that call had no token.
    pub rotation_token: Option<[u8; 32]>,
    /// A hash of the idempotency token that the key was issued with. It never changes.
    pub issue_token: Option<[u8; 32]>,
    /// When the key was first used.
    pub first_used_at: Option<Timestamp>,
    /// When the current secret was first used. A secret that was used has been received.
    pub secret_first_used_at: Option<Timestamp>,
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

named! {
/// The status of a key at an instant. If several apply, the first in this order is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Revoked, permanently.
    Revoked = "revoked",
    /// Past its expiry.
    Expired = "expired",
    /// Disabled. It can be enabled again.
    Disabled = "disabled",
    /// Usable.
    Active = "active",
}
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

    /// Whether the key counts towards its owner's limit of active keys: neither revoked nor expired. A
    /// disabled key counts, because otherwise disabling and enabling keys would bypass the limit.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.status(now), Status::Active | Status::Disabled)
    }

    /// Whether an update or a rotation of the key as it was `read` applies to this one, the stored key: it has the
    /// same revision, and is not revoked.
    pub fn is_unchanged_since(&self, read: &Self) -> bool {
        self.revoked.is_none() && self.revision == read.revision
    }

    /// Returns the instant of revocation or of expiry, whichever is earlier. Retention starts there. It may
    /// be in the future: a live key with an expiry date returns `Some`.
    pub fn dead_since(&self) -> Option<Timestamp> {
        let revoked = self.revoked.as_ref().map(|revocation| revocation.at);
        [revoked, self.expires_at].into_iter().flatten().min()
    }
}

/// When a new key expires. At that instant, it is already invalid. Exhaustive on purpose: these are all cases.
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

/// The stable identifier of a key: a UUIDv7. It does not change on rotation and is not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(Uuid);

/// The identifier of an audit event: a UUIDv7, so that events sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

macro_rules! identifier {
    ($name:ident, $what:literal) => {
        impl $name {
            /// Returns the identifier with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Returns the 16 bytes. They sort in the same order as the identifiers.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                text.parse().map(Self).map_err(|_| Invalid::new($what, "it is not a UUID"))
            }
        }
    };
}

identifier!(KeyId, "key id");
identifier!(EventId, "event id");

/// Hashes the random half of the UUIDv7 only.
impl std::hash::Hash for KeyId {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.as_u64_pair().1);
    }
}

impl EventId {
    /// An identifier that sorts by `instant`. The remaining bits are taken from `hash`.
    pub(crate) fn at(instant: Timestamp, hash: &[u8; 32]) -> Self {
        let millis = instant.as_unix_micros().unsigned_abs() / 1_000;
        let rest = hash.first_chunk().expect("a hash has more than ten bytes");
        Self(uuid::Builder::from_unix_timestamp_millis(millis, rest).into_uuid())
    }

    /// The identifier of the `n`th event that one change writes.
    pub(crate) fn nth(self, n: u32) -> Self {
        let all = self.0.as_u128();
        let low = (all as u32).wrapping_add(n);
        Self(Uuid::from_u128(all & !u128::from(u32::MAX) | u128::from(low)))
    }
}

/// The owner of a key: a tenant and an account of this tenant, both identified by the host's own strings.
///
/// Each may contain any character but NUL, also control characters, and is kept exactly as it is: no character is
/// trimmed, folded or normalized. Exports, logs, e-mails and JSON escape characters that act on a terminal or reorder text.
///
/// They SHOULD be ids that the host never reuses, not names or addresses. A new owner with a former owner's id can read
/// that owner's audit log, and a key that was being issued while all others were revoked becomes usable again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Tenant, NUL, account: one allocation, because a node caches many. Comparing the text compares the pair.
    text: Arc<str>,
    tenant_len: u32,
}

impl Owner {
    /// Returns the owner for an account of a tenant.
    ///
    /// # Errors
    /// If one of them is empty, longer than 200 characters, or contains a NUL character.
    pub fn new(tenant: &str, account: &str) -> Result<Self, Invalid> {
        Self::from_parts(checked_text("tenant", tenant, MAX_OWNER_CHARS)?, account)
    }

    /// Returns the owner for an account of a host without tenants. Its tenant is the empty string.
    ///
    /// # Errors
    /// If `account` is empty, longer than 200 characters, or contains a NUL character.
    pub fn account_only(account: &str) -> Result<Self, Invalid> {
        Self::from_parts("", account)
    }

    /// Restores an owner from its [`tenant`](Self::tenant) and [`account`](Self::account), as a store has saved them. The
    /// empty tenant is that of a host without tenants.
    ///
    /// # Errors
    /// As [`new`](Self::new), except for an empty tenant.
    pub fn from_parts(tenant: &str, account: &str) -> Result<Self, Invalid> {
        if !tenant.is_empty() {
            checked_text("tenant", tenant, MAX_OWNER_CHARS)?;
        }
        let account = checked_text("account", account, MAX_OWNER_CHARS)?;
        let text = [tenant, "\0", account].concat().into();
        Ok(Self { text, tenant_len: tenant.len() as u32 })
    }

    /// Returns the tenant; empty if the host has no tenants.
    pub fn tenant(&self) -> &str {
        &self.text[..self.tenant_len as usize]
    }

    /// Returns the account within the tenant.
    pub fn account(&self) -> &str {
        &self.text[self.tenant_len as usize + 1..]
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("tenant", &self.tenant())
            .field("account", &self.account())
            .finish()
    }
}

/// The keys that a call may access: those of an owner or of a whole tenant.
///
/// Every read and write has one: `&owner` or `OwnerScope::Tenant("acme")`. A key outside it is *not found*.
///
/// Exhaustive on purpose: a store must handle every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerScope<'a> {
    /// The keys of one owner.
    Owner(&'a Owner),
    /// The keys of all owners of a tenant, for its administrators.
    Tenant(&'a str),
}

/// An [`OwnerScope`] with texts of its own, for work that outlives a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedScope {
    /// The keys of one owner.
    Owner(Owner),
    /// The keys of all owners of a tenant.
    Tenant(String),
}

impl OwnedScope {
    /// Returns the scope that borrows these texts.
    pub fn as_scope(&self) -> OwnerScope<'_> {
        match self {
            Self::Owner(owner) => OwnerScope::Owner(owner),
            Self::Tenant(tenant) => OwnerScope::Tenant(tenant),
        }
    }
}

impl From<OwnerScope<'_>> for OwnedScope {
    fn from(scope: OwnerScope<'_>) -> Self {
        match scope {
            OwnerScope::Owner(owner) => Self::Owner(owner.clone()),
            OwnerScope::Tenant(tenant) => Self::Tenant(tenant.into()),
        }
    }
}

impl<'a> OwnerScope<'a> {
    /// Returns the tenant.
    pub fn tenant(&self) -> &'a str {
        match self {
            Self::Owner(owner) => owner.tenant(),
            Self::Tenant(tenant) => tenant,
        }
    }

    /// Returns the account, if the scope is a single owner's.
    pub fn account(&self) -> Option<&'a str> {
        match self {
            Self::Owner(owner) => Some(owner.account()),
            Self::Tenant(_) => None,
        }
    }

    /// Whether the scope includes an owner's keys.
    pub fn includes(&self, owner: &Owner) -> bool {
        self.tenant() == owner.tenant() && self.account().is_none_or(|a| a == owner.account())
    }
}

impl<'a> From<&'a Owner> for OwnerScope<'a> {
    fn from(owner: &'a Owner) -> Self {
        Self::Owner(owner)
    }
}
