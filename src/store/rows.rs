use std::{net::IpAddr, sync::Arc};

use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{EventId, Key, KeyId, Owner, OwnerScope, Status, Timestamp},
    secret::SecretDigest,
};

/// A key to be added.
#[derive(Clone, Copy, Debug)]
pub struct InsertKey<'a> {
    /// The key; its hint is that of the secret.
    pub key: &'a Key,
    /// The digest of its secret.
    pub digest: &'a SecretDigest,
    /// How many live keys the owner may have, this one included.
    pub max_active: Option<u32>,
    /// What is written to the log with it.
    pub event: &'a AuditEvent,
}

/// What became of a key to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum InsertOutcome {
    /// It was added.
    Inserted,
    /// The owner has as many live keys as it may have.
    LimitReached,
    /// The digest or the id exists; nothing was overwritten.
    DigestTaken,
}

/// A key that a digest led to.
#[derive(Clone, Debug)]
pub struct FoundKey {
    /// The key as it is stored now.
    pub key: Arc<Key>,
    /// The digest under which it was found.
    pub digest: SecretDigest,
    /// When this secret stops working, or stopped; `None` for the current secret.
    pub ends_at: Option<Timestamp>,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum UpdateOutcome {
    /// It was written.
    Updated,
    /// The key has another revision by now, or is revoked. Read again.
    Conflict,
    /// There is no such key.
    NotFound,
}

/// A new current secret for a key.
#[derive(Clone, Copy, Debug)]
pub struct RotateSecret<'a> {
    /// The key as it was read.
    pub key: &'a Key,
    /// The digest of the new secret.
    pub digest: &'a SecretDigest,
    /// The hint of the new secret.
    pub hint: &'a str,
    /// What becomes of the secrets there are.
    pub previous: PreviousSecret,
    /// What the key's `rotation_token` becomes.
    pub token: Option<[u8; 32]>,
    /// What is written to the log with it; its `at` becomes the key's `rotated_at`.
    pub event: &'a AuditEvent,
}

/// What becomes of the secrets that a key has, when it gets a new one.
///
/// Exhaustive on purpose: a store must decide for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousSecret {
    /// The current secret becomes the former one and works until then; the former one is removed.
    EndsAt(Timestamp),
    /// The current secret is removed, because nobody received it; the former one stays as it is.
    Replaced,
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RotateOutcome {
    /// It was written.
    Rotated,
    /// The key has another revision by now, or is revoked. Read again.
    Conflict,
    /// There is no such key.
    NotFound,
    /// The new digest exists; nothing was overwritten.
    DigestTaken,
}

/// What became of a revocation.
///
/// Exhaustive on purpose: in each of these cases the key does not work any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RevokeOutcome {
    /// It was revoked by this call.
    Now,
    /// It was revoked before; instant and reason stay those of the first time.
    Already,
    /// There is no such key.
    NotFound,
}

/// Which keys to list.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    /// Whose keys.
    pub within: OwnerScope<'a>,
    /// Only keys that have this status at `now`.
    pub status: Option<Status>,
    /// Only keys behind this one in the order of reading: older ones.
    pub after: Option<KeyId>,
    /// How many at most.
    pub limit: u32,
    /// The instant at which the status counts.
    pub now: Timestamp,
}

/// The uses of one key since they were last recorded.
#[derive(Clone, Debug)]
pub struct KeyUse {
    /// The key.
    pub key_id: KeyId,
    /// Its owner.
    pub owner: Owner,
    /// The first of these uses.
    pub first_at: Timestamp,
    /// The last of these uses.
    pub last_at: Timestamp,
    /// From where the last one came.
    pub ip: Option<IpAddr>,
    /// With which program the first one came.
    pub user_agent: Option<String>,
    /// The id of the event to write if the key was never used before.
    pub event_id: EventId,
}

impl KeyUse {
    /// The event to write if the key was never used before.
    pub fn first_use(&self) -> AuditEvent {
        AuditEvent {
            id: self.event_id,
            at: self.first_at,
            kind: EventKind::FirstUsed,
            outcome: Outcome::Success,
            tenant: self.owner.tenant().into(),
            account: Some(self.owner.account().into()),
            key_id: Some(self.key_id),
            actor: format!("key:{}", self.key_id),
            ip: self.ip,
            user_agent: self.user_agent.clone(),
            reason: None,
            count: 1,
        }
    }
}

/// A part of the change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeBatch {
    /// Which keys changed, each at least once.
    pub keys: Vec<KeyId>,
    /// Where to go on.
    pub cursor: u64,
    /// Entries behind the given cursor were removed before they were read: forget everything.
    pub missed: bool,
    /// There is more behind the cursor by now.
    pub more: bool,
}

/// How a store learns of the changes that other nodes make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedMode {
    /// It is told of them: within milliseconds.
    Pushed,
    /// It looks for them now and then: there is no way of being told, or it is broken.
    Polled,
}
