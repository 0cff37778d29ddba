//! The arguments and outcomes of the methods of [`KeyStore`](super::KeyStore).

use std::{net::IpAddr, sync::Arc};

use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{EventId, Key, KeyId, Owner, OwnerScope, Period, Status, Timestamp},
    secret::SecretDigest,
};

/// A key to insert.
#[derive(Clone, Copy, Debug)]
pub struct InsertKey<'a> {
    /// The key. Its hint is the hint of the secret.
    pub key: &'a Key,
    /// The digest of its secret.
    pub digest: &'a SecretDigest,
    /// The maximum number of live keys of the owner, including this one. `None` means no limit.
    pub max_active: Option<u32>,
    /// Only keys that were created at this instant or later can have the key's `issue_token`. Older
    /// keys with the same token do not prevent the insert.
    pub token_since: Timestamp,
    /// The audit event to write with the key.
    pub event: &'a AuditEvent,
}

/// An [`InsertKey`] with values of its own, for work that outlives a call, such as on a blocking thread.
///
/// # Examples
/// ```
/// use keyward::store::{InsertKey, InsertOutcome, OwnedInsertKey, StoreError};
///
/// async fn insert(new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
///     let new = OwnedInsertKey::from(new);
///     // A started task runs to its end, even if the future of the call is dropped.
///     let task = tokio::task::spawn_blocking(move || write_to_disk(new.as_insert()));
///     task.await.map_err(StoreError::outcome_unknown)?
/// }
///
/// fn write_to_disk(new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
/// #   let _ = new;
///     // ...
///     Ok(InsertOutcome::Inserted)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct OwnedInsertKey {
    /// The key.
    pub key: Key,
    /// The digest of its secret.
    pub digest: SecretDigest,
    /// The maximum number of live keys of the owner.
    pub max_active: Option<u32>,
    /// When keys were created that can have the token.
    pub token_since: Timestamp,
    /// The audit event to write with the key.
    pub event: AuditEvent,
}

impl From<InsertKey<'_>> for OwnedInsertKey {
    fn from(new: InsertKey<'_>) -> Self {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        let (key, event) = (key.clone(), event.clone());
        Self { key, digest: *digest, max_active, token_since, event }
    }
}

impl OwnedInsertKey {
    /// Returns the insert that borrows these values.
    pub fn as_insert(&self) -> InsertKey<'_> {
        let Self { key, digest, max_active, token_since, event } = self;
        InsertKey { key, digest, max_active: *max_active, token_since: *token_since, event }
    }
}

/// The outcome of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum InsertOutcome {
    /// The key was inserted.
    Inserted,
    /// The owner already has the maximum number of live keys.
    LimitReached,
    /// The digest or the id already exists. Nothing was overwritten.
    DigestTaken,
    /// This key of the same owner has the same `issue_token`. Nothing was inserted.
    TokenTaken(KeyId),
}

/// A key found by the digest of a secret.
#[derive(Clone, Debug)]
pub struct FoundKey {
    /// The key as it is stored now.
    pub key: Arc<Key>,
    /// The digest that matched.
    pub digest: SecretDigest,
    /// When this secret stops or stopped working. `None` for the current secret.
    pub ends_at: Option<Timestamp>,
}

/// Which keys to list.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    /// The owner or tenant whose keys are listed.
    pub within: OwnerScope<'a>,
    /// Lists only keys that have this status at `now`.
    pub status: Option<Status>,
    /// Lists only keys older than this one: the last key of the previous page.
    pub after: Option<KeyId>,
    /// The maximum number of keys to return.
    pub limit: u32,
    /// The instant at which `status` is evaluated.
    pub now: Timestamp,
}

/// The outcome of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum UpdateOutcome {
    /// The key was updated.
    Updated,
    /// The stored key has another revision, or is revoked. Read it again.
    Conflict,
    /// The key does not exist.
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
    /// What happens to the existing secrets.
    pub previous: PreviousSecret,
    /// The new value of the key's `rotation_token`.
    pub token: Option<[u8; 32]>,
    /// The audit event to write with the rotation. Its `at` becomes the key's `rotated_at`.
    pub event: &'a AuditEvent,
}

/// A [`RotateSecret`] with values of its own, for work that outlives a call.
#[derive(Clone, Debug)]
pub struct OwnedRotateSecret {
    /// The key as it was read.
    pub key: Key,
    /// The digest of the new secret.
    pub digest: SecretDigest,
    /// The hint of the new secret.
    pub hint: String,
    /// What happens to the existing secrets.
    pub previous: PreviousSecret,
    /// The new value of the key's `rotation_token`.
    pub token: Option<[u8; 32]>,
    /// The audit event to write with the rotation.
    pub event: AuditEvent,
}

impl From<RotateSecret<'_>> for OwnedRotateSecret {
    fn from(rotate: RotateSecret<'_>) -> Self {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let (key, hint, event) = (key.clone(), hint.into(), event.clone());
        Self { key, digest: *digest, hint, previous, token, event }
    }
}

impl OwnedRotateSecret {
    /// Returns the rotation that borrows these values.
    pub fn as_rotate(&self) -> RotateSecret<'_> {
        let Self { key, digest, hint, previous, token, event } = self;
        RotateSecret { key, digest, hint, previous: *previous, token: *token, event }
    }
}

/// What a rotation does to the existing secrets of a key.
///
/// Exhaustive on purpose: a store must handle each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousSecret {
    /// The current secret becomes the retiring secret and works until this instant. An older
    /// retiring secret is removed.
    EndsAt(Timestamp),
    /// The current secret is removed, because the client never received it. A retiring secret
    /// stays as it is. A current secret that was used is not removed.
    Replaced,
}

/// The outcome of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RotateOutcome {
    /// The key has the new secret.
    Rotated,
    /// The stored key has another revision, or is revoked. Read it again.
    Conflict,
    /// The key does not exist.
    NotFound,
    /// The new digest already exists. Nothing was overwritten.
    DigestTaken,
    /// The current secret was to be replaced, but has been used.
    SecretUsed,
}

/// The outcome of a revocation.
///
/// Exhaustive on purpose: the key does not work in any of these cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RevokeOutcome {
    /// This call revoked the key.
    Revoked,
    /// The key was already revoked. It keeps the instant and reason of the first revocation.
    AlreadyRevoked,
    /// The key does not exist.
    NotFound,
}

/// The uses of one secret of a key since the previous record.
#[derive(Clone, Debug)]
pub struct KeyUse {
    /// The key.
    pub key_id: KeyId,
    /// The digest of the secret.
    pub digest: SecretDigest,
    /// Its owner.
    pub owner: Owner,
    /// When the first of these uses happened.
    pub first_at: Timestamp,
    /// When the last of these uses happened.
    pub last_at: Timestamp,
    /// The client address of the last use.
    pub ip: Option<IpAddr>,
    /// The user agent of the first use.
    pub user_agent: Option<String>,
    /// The id of the event to write if the key was never used before.
    pub event_id: EventId,
}

impl KeyUse {
    /// Returns the event to write if the key was never used before.
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

/// A batch of entries of the change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeBatch {
    /// The keys that changed, each at least once.
    pub keys: Vec<KeyId>,
    /// The cursor to continue from.
    pub cursor: u64,
    /// Entries after the given cursor may have been removed before they were read. The reader must
    /// invalidate everything that it cached.
    pub missed: bool,
    /// The feed has more entries after `cursor`.
    pub more: bool,
}

/// How a store learns of changes made by other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedMode {
    /// The store is notified of changes, within milliseconds.
    Pushed,
    /// The store polls: it cannot be notified, or its notifications are interrupted.
    Polled,
}

/// How often a key was presented in one hour, by result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourlyUsage {
    /// The key.
    pub key_id: KeyId,
    /// The beginning of the hour.
    pub hour: Timestamp,
    /// Requests that were accepted.
    pub accepted: u64,
    /// Requests that were denied, because the key did not work or lacked a permission.
    pub denied: u64,
    /// Requests that exceeded a rate or a quota.
    pub limited: u64,
}

impl HourlyUsage {
    /// Returns the usage of an hour without requests.
    pub fn none(key_id: KeyId, hour: Timestamp) -> Self {
        Self { key_id, hour, accepted: 0, denied: 0, limited: 0 }
    }
}

/// Uses to charge to one quota counter.
#[derive(Clone, Copy, Debug)]
pub struct CounterCharge<'a> {
    /// The counter to charge.
    pub counter_key: CounterKey<'a>,
    /// The period of the quota. Each period has a counter of its own.
    pub period: Period,
    /// When the current period began.
    pub window: Timestamp,
    /// The latest period that a node with a correct clock can have charged: when the next period begins.
    /// [`Timestamp::MAX`] if periods do not end.
    pub latest_window: Timestamp,
    /// The maximum number of uses in the period.
    pub limit: u64,
    /// The number of uses to charge.
    pub uses: u64,
}

/// What a quota counter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterKey<'a> {
    /// One key, independent of its secret.
    Key(KeyId),
    /// All keys of an owner together.
    Owner(&'a Owner),
    /// A caller without a key, identified by the digest of an address, a network, or an account
    /// that is being confirmed. Old counters of this kind are purged.
    Anonymous(&'a SecretDigest),
    /// A job that only one node performs: the node that is granted the only use.
    Job(&'static str),
}

/// A [`CounterCharge`] with values of its own, for work that outlives a call.
#[derive(Clone, Debug)]
pub struct OwnedCounterCharge {
    counter: OwnedCounter,
    period: Period,
    window: Timestamp,
    latest_window: Timestamp,
    limit: u64,
    uses: u64,
}

#[derive(Clone, Debug)]
enum OwnedCounter {
    Key(KeyId),
    Owner(Owner),
    Anonymous(SecretDigest),
    Job(&'static str),
}

impl From<CounterCharge<'_>> for OwnedCounterCharge {
    fn from(charge: CounterCharge<'_>) -> Self {
        let CounterCharge { counter_key, period, window, latest_window, limit, uses } = charge;
        let counter = match counter_key {
            CounterKey::Key(id) => OwnedCounter::Key(id),
            CounterKey::Owner(owner) => OwnedCounter::Owner(owner.clone()),
            CounterKey::Anonymous(digest) => OwnedCounter::Anonymous(*digest),
            CounterKey::Job(name) => OwnedCounter::Job(name),
        };
        Self { counter, period, window, latest_window, limit, uses }
    }
}

impl OwnedCounterCharge {
    /// Returns the charge that borrows these values.
    pub fn as_charge(&self) -> CounterCharge<'_> {
        let Self { counter, period, window, latest_window, limit, uses } = self;
        let counter_key = match counter {
            OwnedCounter::Key(id) => CounterKey::Key(*id),
            OwnedCounter::Owner(owner) => CounterKey::Owner(owner),
            OwnedCounter::Anonymous(digest) => CounterKey::Anonymous(digest),
            OwnedCounter::Job(name) => CounterKey::Job(name),
        };
        CounterCharge {
            counter_key,
            period: *period,
            window: *window,
            latest_window: *latest_window,
            limit: *limit,
            uses: *uses,
        }
    }
}

/// The outcome of a charge: how much of each quota is used now, in the order of the charges.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ChargeOutcome {
    /// All counters were charged.
    Granted(Vec<u64>),
    /// At least one quota would be exceeded. No counter was charged.
    Exhausted(Vec<u64>),
}

/// The stored value of a quota counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// When the period being counted began.
    pub window: Timestamp,
    /// Uses charged in that period.
    pub used: u64,
}

impl CounterCharge<'_> {
    /// Returns the counter as this charge sees it. A counter of an earlier period restarts at 0. A
    /// counter of the next period stays as it is, so a node whose clock is behind cannot reopen an
    /// old period. A counter of a period after `latest_window` was charged by a wrong clock, and restarts
    /// at 0, so that it does not close the quota until then.
    #[must_use]
    pub fn current(&self, stored: Counter) -> Counter {
        if (self.window..=self.latest_window).contains(&stored.window) {
            stored
        } else {
            Counter { window: self.window, used: 0 }
        }
    }

    /// Returns the counter after this charge, or `None` if it would exceed the limit.
    pub fn charge(&self, stored: Counter) -> Option<Counter> {
        let Counter { window, used } = self.current(stored);
        let used = used.checked_add(self.uses).filter(|used| *used <= self.limit)?;
        Some(Counter { window, used })
    }

    /// Returns the outcome of charges to counters with these stored values, and the values to store if they are granted:
    /// all of them or none.
    ///
    /// # Examples
    /// ```
    /// use keyward::{KeyId, Timestamp, model::Period, store::{ChargeOutcome, Counter, CounterCharge, CounterKey}};
    ///
    /// let counter_key = CounterKey::Key(KeyId::from_bytes([7; 16]));
    /// let (period, window) = (Period::Day, Timestamp::MIN);
    /// let latest_window = period.ends_at(window).unwrap_or(Timestamp::MAX);
    /// let charge = CounterCharge { counter_key, period, window, latest_window, limit: 10, uses: 3 };
    /// let stored = Counter { window, used: 6 };
    /// let (outcome, after) = CounterCharge::charge_all(&[charge], &[stored]);
    /// assert_eq!(outcome, ChargeOutcome::Granted(vec![9]));
    /// assert_eq!(after, Some(vec![Counter { window, used: 9 }]));
    /// let (outcome, after) = CounterCharge::charge_all(&[charge], &[Counter { window, used: 9 }]);
    /// assert_eq!((outcome, after), (ChargeOutcome::Exhausted(vec![9]), None));
    /// ```
    pub fn charge_all(
        charges: &[Self],
        stored: &[Counter],
    ) -> (ChargeOutcome, Option<Vec<Counter>>) {
        let pairs = || charges.iter().zip(stored.iter().copied());
        let used = |counters: &[Counter]| counters.iter().map(|counter| counter.used).collect();
        match pairs().map(|(charge, stored)| charge.charge(stored)).collect::<Option<Vec<_>>>() {
            Some(after) => (ChargeOutcome::Granted(used(&after)), Some(after)),
            None => {
                let current: Vec<_> =
                    pairs().map(|(charge, stored)| charge.current(stored)).collect();
                (ChargeOutcome::Exhausted(used(&current)), None)
            }
        }
    }

    /// Returns the counter after this charge was refunded. A counter of another period stays as it
    /// is.
    #[must_use]
    pub fn refund(&self, stored: Counter) -> Counter {
        if stored.window == self.window {
            Counter { used: stored.used.saturating_sub(self.uses), ..stored }
        } else {
            stored
        }
    }
}

impl CounterKey<'_> {
    /// Returns a unique encoding of this counter key, of at most 1,605 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Key(id) => [&[0], id.as_bytes().as_slice()].concat(),
            Self::Owner(owner) => {
                let tenant = owner.tenant().as_bytes();
                let length = (tenant.len() as u32).to_be_bytes();
                [&[1], length.as_slice(), tenant, owner.account().as_bytes()].concat()
            }
            Self::Job(name) => [&[2], name.as_bytes()].concat(),
            Self::Anonymous(digest) => [&[3], digest.to_bytes().as_slice()].concat(),
        }
    }

    /// Returns whether an encoded counter key is [`Anonymous`](Self::Anonymous), so that old counters of it are purged.
    pub fn is_anonymous(bytes: &[u8]) -> bool {
        bytes.first() == Some(&3)
    }
}

/// A stored one-time code. The store keeps it under the digest of the address that received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTimeCode {
    /// The digest of the code.
    pub digest: SecretDigest,
    /// When the code expires. It is already expired at this instant.
    pub ends_at: Timestamp,
    /// The number of wrong attempts that are left.
    pub tries: u32,
}

/// An attempt to use a one-time code.
#[derive(Clone, Copy, Debug)]
pub struct CodeAttempt {
    /// The digest of the address that the code was sent to.
    pub address: SecretDigest,
    /// The digest of the presented code.
    pub digest: SecretDigest,
    /// When the attempt was made.
    pub at: Timestamp,
}

/// The outcome of an attempt to use a one-time code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum CodeOutcome {
    /// The code was right, and is now used up.
    Accepted,
    /// The code was wrong. One try was consumed.
    Wrong,
    /// The code was right but has expired. It stays stored.
    Expired,
    /// No tries were left, so the code was not compared.
    NoTriesLeft,
    /// No code is stored for this address.
    NotFound,
}

impl CodeAttempt {
    /// Returns the outcome of this attempt.
    ///
    /// Wrong attempts are counted after expiry too, so an expired code cannot be guessed.
    pub fn check(&self, stored: &OneTimeCode) -> CodeOutcome {
        if stored.tries == 0 {
            CodeOutcome::NoTriesLeft
        } else if stored.digest != self.digest {
            CodeOutcome::Wrong
        } else if stored.ends_at <= self.at {
            CodeOutcome::Expired
        } else {
            CodeOutcome::Accepted
        }
    }
}
