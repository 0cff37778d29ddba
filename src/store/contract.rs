use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, FeedMode, FoundKey,
    HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, OneTimeCode, RevokeOutcome,
    RotateOutcome, RotateSecret, StoreError, UpdateOutcome,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
};

/// Stores keys and their audit log, and gives access to the optional parts of a store.
///
/// The methods of this trait are what every store has. The rest of the contract is split by subject:
/// [`ChangeFeed`], [`Counters`], [`UsageHistory`] and [`OneTimeCodes`], and [`StoreClock`]. A store may
/// lack any of them, and then returns `None`; [`Capability`] says what this means. A wrapper that
/// delegates must decide about each subject, because these methods are required as well.
///
/// # Contract
/// 1. Every method is required, so that a wrapper cannot forget one.
/// 2. Every write MUST be atomic: it happens as a whole or not at all, even if its future is dropped
///    or the process is killed. The audit event and the change feed entry of a change MUST be
///    written in the same transaction as the change. A write that returned `Ok` MUST survive a
///    crash.
/// 3. Expected outcomes MUST be `Ok`. An `Err` means that the store failed: *unavailable* only if
///    nothing was changed, *outcome unknown* if the answer to a change was lost. See
///    [`StoreErrorKind`](super::StoreErrorKind).
/// 4. No write may make a revoked key live again.
/// 5. A store MUST NOT read a clock, except for [`StoreClock`]. The instant of a change is the `at` of its event.
/// 6. A key or event outside `within` MUST be reported as *not found* and stay unchanged.
/// 7. A record that is damaged, incomplete or written by a newer version MUST be reported as
///    *corrupt*.
/// 8. What a store returns for a subject, `Some` or `None`, MUST NOT change while the store exists.
///
/// The feature `conformance` provides a test suite for implementations:
/// `keyward::store::conformance`.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Returns the change feed, or `None` if the store has none.
    ///
    /// A store with a change feed MUST write an entry with every change of a key, in the same
    /// transaction.
    fn change_feed(&self) -> Option<&dyn ChangeFeed>;

    /// Returns the counters of quotas, or `None` if the store has none.
    fn counters(&self) -> Option<&dyn Counters>;

    /// Returns the clock that all nodes share, or `None` if all nodes run on one machine, whose clock they share anyway.
    ///
    /// A store on a server returns the clock of that server: nodes compare their clocks with it.
    fn clock(&self) -> Option<&dyn StoreClock>;

    /// Returns the usage history, or `None` if the store has none.
    fn usage_history(&self) -> Option<&dyn UsageHistory>;

    /// Returns the one-time codes, or `None` if the store has none.
    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes>;

    /// Inserts a key with its secret.
    ///
    /// MUST count the owner's live keys ([`Key::is_live`] at the event's `at`) in the same
    /// transaction, so that concurrent inserts never exceed `max_active`. MUST NOT overwrite an
    /// existing digest or id, but return `DigestTaken`. If the limit is reached as well, MAY return
    /// either.
    ///
    /// If the key has an `issue_token`, MUST search the owner's keys for the token in the same
    /// transaction, by an index, and before anything else is checked: concurrent inserts with one
    /// token insert one key, and the others return `TokenTaken`.
    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError>;

    /// Returns the key whose current or retiring secret has one of the digests.
    ///
    /// MUST take one round trip for all digests. MUST read the latest committed data, not a
    /// replica that may lag. MUST compare digests as a whole, including the tag of the hasher. MUST
    /// also find the latest former secret of a rotated key, before and after its end, and return
    /// when it ends or ended.
    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError>;

    /// Returns one key.
    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError>;

    /// Lists keys, newest first.
    ///
    /// MUST return them in descending order of their ids, starting after `query.after`, and filter
    /// by [`Key::status`] at `query.now` before the limit is applied.
    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError>;

    /// Lists the tenants that have keys, up to `limit`, starting after `after`.
    ///
    /// The order is up to the store. A page MUST be empty only after the last tenant. A reader of
    /// all pages MUST see each tenant that has keys during the whole time exactly once, even if
    /// other tenants appear or disappear, and even if `after` has no keys any more. The empty string
    /// is a tenant like any other.
    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError>;

    /// Updates name, access, limits, networks, metadata and `disabled_at` of a key, and increments
    /// its revision.
    ///
    /// MUST return `Conflict` unless the stored revision is `key.revision` and the key is not
    /// revoked ([`Key::is_unchanged_since`]). MUST NOT change any other field.
    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError>;

    /// Gives a key a new current secret, and increments its revision.
    ///
    /// MUST return `Conflict` unless the stored revision is that of `rotate.key` and the key is not
    /// revoked. MUST set only the fields that a rotation sets: hint, `retiring`, `rotated_at` and
    /// `rotation_token`. In particular, MUST NOT change `expires_at`. MUST reset
    /// `secret_first_used_at`, because the new secret was never used.
    ///
    /// MUST NOT [replace](super::PreviousSecret::Replaced) a current secret whose use is recorded, but
    /// return `SecretUsed`. This and [`record_uses`](KeyStore::record_uses) MUST NOT interleave.
    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError>;

    /// Revokes a key and increments its revision.
    ///
    /// MUST revoke the key independent of its revision and status. MUST keep the instant and reason
    /// of an earlier revocation.
    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError>;

    /// Revokes all keys of an owner that are not revoked. Returns the events that were written.
    ///
    /// MUST revoke them in one atomic step, and write one event per key
    /// ([`AuditEvent::for_key`]). The events are numbered from 0, without gaps, in an order that is up
    /// to the store. MUST NOT fail because the record of a key is damaged: that key is revoked as well if this
    /// is possible without reading its record ([`AuditEvent::for_key_of`]), and skipped otherwise.
    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError>;

    /// Deletes a key with its secrets, usage history and counters. Returns false if the key does not
    /// exist.
    ///
    /// MUST keep the key's audit events.
    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError>;

    /// Deletes up to `limit` keys that were revoked or expired before `before`. Returns the events
    /// that were written.
    ///
    /// MUST write one event per key ([`AuditEvent::for_key`]), each with a number of its own. MUST NOT
    /// delete keys that are neither revoked nor expired.
    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError>;

    /// Records uses of keys. Returns the first-use events that were written.
    ///
    /// MUST only move `last_used_at` forward. MUST write the event of a key's first use exactly
    /// once, together with `first_used_at`. MUST set `secret_first_used_at`, unless it is set, if the
    /// digest of the use is that of the key's current secret. MUST skip unknown keys and record the
    /// others. MUST NOT change revisions or write to the change feed.
    ///
    /// A batch may have several elements for one key, such as one for each of its secrets. MUST record
    /// them as if they came one after the other, in their order.
    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError>;

    /// Replaces the digest of a secret with the digest that another hasher made of the same secret.
    ///
    /// MUST return false and change nothing if `from` does not exist or `to` exists, whichever key has
    /// it, also if both are the same digest. MUST NOT change anything else of the key.
    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError>;

    /// Adds audit events that belong to no change. Returns the number added.
    ///
    /// MUST skip an event whose id exists, and add the others: of concurrent calls with one event, one
    /// adds it.
    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError>;

    /// Returns audit events, newest first.
    ///
    /// MUST return the events that [match](AuditQuery::matches) the query, in descending order of
    /// their ids, up to `query.limit`.
    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError>;

    /// Deletes up to `limit` audit events from before `before`. Returns the number deleted.
    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;
}

/// The changes of all keys, in the order in which they were committed, for nodes that cache keys.
///
/// A store that has a change feed writes an entry with every change of a key: when it is inserted,
/// updated, rotated, revoked, deleted or purged.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// Returns the entries of the change feed after a cursor, in order. Without a cursor, returns
    /// the current end of the feed.
    ///
    /// MUST deliver each change at least once, or report that some may be missing:
    /// [`ChangeBatch::missed`]. A cursor that the feed never returned, such as one beyond its end, is
    /// that of a feed that has lost entries: MUST report it as missed, and continue at the end.
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError>;

    /// Waits until the change feed may have entries after `after`, for at most `at_most`.
    ///
    /// While it returns [`Pushed`](FeedMode::Pushed), MUST wake up for every change that is
    /// committed before or during the call. A store that cannot be notified, or cannot at the
    /// moment, MUST poll in short intervals and return [`Polled`](FeedMode::Polled). MAY
    /// return without a change.
    async fn wait_for_changes(&self, after: u64, at_most: Duration)
    -> Result<FeedMode, StoreError>;

    /// Writes a change feed entry for each key of an owner that is not revoked, because the host's
    /// account information about the owner changed. Returns the number of keys.
    ///
    /// MUST NOT change the keys or the audit log.
    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError>;

    /// Deletes entries of the change feed from before `before`. Returns the number deleted.
    ///
    /// MUST report the loss to each reader that has not read a deleted entry:
    /// [`ChangeBatch::missed`].
    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError>;
}

/// Counters of quotas, of attempts that are limited, and of jobs that one node performs.
#[async_trait]
pub trait Counters: Send + Sync {
    /// Charges quota counters: all of them, or none if one quota would be exceeded.
    ///
    /// MUST be exact: concurrent charges never exceed a limit ([`CounterCharge::charge`] defines the
    /// new value of a counter). The caller passes each counter at most once. A counter that was never
    /// charged, or whose key was deleted, counts from 0: a charge does not look at the records of keys.
    ///
    /// MUST keep the counters of a key as long as the key exists, and delete them with the key.
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError>;

    /// Refunds charges, as defined by [`CounterCharge::refund`].
    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError>;

    /// Deletes up to `limit` counters of anonymous callers
    /// ([`CounterKey::Anonymous`](super::CounterKey::Anonymous)) whose period began before `before`.
    /// Returns the number deleted.
    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;
}

/// The clock of a store's server, with which each node compares its own clock.
#[async_trait]
pub trait StoreClock: Send + Sync {
    /// Returns the current time of the server.
    ///
    /// MUST ask the server that makes the changes, during the call, and MUST NOT cache the answer: a node assumes that
    /// the answer was right in the middle of the call.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}

/// How often keys were presented in each hour.
#[async_trait]
pub trait UsageHistory: Send + Sync {
    /// Adds to the usage history of keys, in one atomic step.
    ///
    /// MUST skip unknown keys and add to the others. MUST delete a key's history with the key. MUST
    /// NOT change revisions or write to the change feed.
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError>;

    /// Returns the usage of a key in the hours that began at `from` or later, oldest first. A key outside
    /// `within` has none.
    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError>;

    /// Deletes up to `limit` hours of usage that began before `before`. Returns the number deleted.
    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;
}

/// One-time codes that were sent to addresses.
#[async_trait]
pub trait OneTimeCodes: Send + Sync {
    /// Stores a code for an address.
    ///
    /// MUST replace an existing code for this address, with its tries and expiry.
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError>;

    /// Tries a code, as defined by [`CodeAttempt::check`].
    ///
    /// MUST compare the code and consume it or one of its tries in one atomic step: concurrent
    /// attempts never get more tries than are left, and a code is accepted only once.
    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError>;

    /// Deletes up to `limit` codes that expired before `before`. Returns the number deleted.
    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;
}

/// A subject of the contract that a store may lack.
///
/// What is missing is known: [`Health::not_supported`](crate::api::Health::not_supported) names it, and
/// it is never reported as a failure of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Without a [change feed](ChangeFeed), a node does not learn of changes that other nodes make. It
    /// trusts a cached key for [`max_staleness`](crate::verify::CacheOptions::max_staleness) after it
    /// was read, and then reads it again. With
    /// [`strict`](crate::verify::CacheOptions::strict), it reads every key again.
    ChangeFeed,
    /// Without [counters](Counters), a key with a quota, or of an owner with a quota, is not issued, and
    /// enrollment and TOTP are refused. The hourly jobs run on every node.
    Counters,
    /// Without a [usage history](UsageHistory), uses are not counted by the hour.
    UsageHistory,
    /// Without [one-time codes](OneTimeCodes), enrollment is refused.
    OneTimeCodes,
}

impl Capability {
    /// All subjects that a store may lack.
    pub const ALL: [Self; 4] =
        [Self::ChangeFeed, Self::Counters, Self::UsageHistory, Self::OneTimeCodes];

    /// Returns whether a store has it.
    pub fn is_supported_by(self, store: &dyn KeyStore) -> bool {
        match self {
            Self::ChangeFeed => store.change_feed().is_some(),
            Self::Counters => store.counters().is_some(),
            Self::UsageHistory => store.usage_history().is_some(),
            Self::OneTimeCodes => store.one_time_codes().is_some(),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChangeFeed => "change feed",
            Self::Counters => "counters",
            Self::UsageHistory => "usage history",
            Self::OneTimeCodes => "one-time codes",
        })
    }
}
