use std::{sync::Arc, time::Duration};

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

/// Where keys live.
///
/// # Contract
/// 1. Every method is required, so that a wrapper cannot forget one.
/// 2. Every write is one atomic operation: whole or not at all, also when its future is dropped or
///    the process is killed. The audit event of a change, and its entry in the change feed, are
///    written in the same transaction as the change. An `Ok` means that it will survive a crash.
/// 3. Expected outcomes are `Ok`. An `Err` means that the store failed: *unavailable* if surely
///    nothing was changed, *outcome unknown* if the answer to a change was lost.
/// 4. No write brings a revoked key back.
/// 5. A store reads no clock: the instant of a change is its event's `at`.
/// 6. What lies outside `within` is *not found*.
///
/// The feature `conformance` brings a suite that tests an implementation against all of this.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Adds a key and its secret.
    ///
    /// MUST count the owner's live keys ([`Key::is_live`]) in the same atomic step: racing inserts
    /// never exceed `max_active`. MUST NOT overwrite: a digest or id that exists is `DigestTaken`.
    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError>;

    /// The key whose current or former secret has one of the digests, in one round trip.
    ///
    /// MUST read what is committed now, not a replica that may lag. Of a rotated key, the last
    /// former secret MUST be found as well, with the instant at which it ended or will.
    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError>;

    /// One key.
    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError>;

    /// Keys, newest first: in descending order of their ids, beginning behind `query.after`.
    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError>;

    /// The tenants that have keys, each once, in an order of the store's own: up to `limit` of them,
    /// beginning behind `after`. Only behind the last there are none.
    ///
    /// Who goes through them MUST NOT miss one that has keys all the while, whatever others come or
    /// go, also if `after` itself has no keys any more. The empty text is a tenant like any other.
    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError>;

    /// Writes name, access, limits, networks, metadata and `disabled_at` of a key as given, and
    /// nothing else, and adds one to its revision.
    ///
    /// MUST do so only if the stored revision is `key.revision` and the key is not revoked.
    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError>;

    /// Gives a key another current secret, and adds one to its revision.
    ///
    /// MUST do so only if the stored revision is the given one and the key is not revoked. MUST
    /// NOT change anything else of the key, least of all when it expires.
    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError>;

    /// Revokes a key, whatever its revision, and adds one to it.
    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError>;

    /// Revokes all keys of an owner that are not revoked, in one atomic step, with one event each
    /// ([`AuditEvent::for_key`]). Answers with the events that were written.
    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError>;

    /// Enters all keys of an owner that are not revoked into the change feed, without changing
    /// them, because what the host says of the owner has changed. Answers how many there are.
    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError>;

    /// Removes a key with its secrets. Its audit events stay. False if there is none.
    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError>;

    /// Removes up to `limit` keys that were revoked, or expired, before `before`, with one event
    /// each ([`AuditEvent::for_key`]), and answers with these. Keys that are neither MUST stay.
    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError>;

    /// Records uses. Moves `last_used_at` forward only, and writes the event of a first use exactly
    /// once, together with `first_used_at`. Unknown keys are passed over. Answers with the events
    /// that were written. Changes no revision and enters nothing into the change feed.
    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError>;

    /// Replaces a secret's digest by that of another hasher; false if `from` is gone. Changes
    /// nothing else.
    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError>;

    /// Adds events that belong to no change. An id that exists is passed over.
    async fn record_events(&self, events: &[AuditEvent]) -> Result<(), StoreError>;

    /// Events, newest first: in descending order of their ids.
    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError>;

    /// Removes up to `limit` events from before `before`, and tells how many.
    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;

    /// The entries of the change feed behind a cursor, in order; from its end where there is none.
    /// At least once, and in no case silently less: see [`ChangeBatch::missed`].
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError>;

    /// Waits until the change feed may have entries behind `after`, but no longer than `at_most`.
    ///
    /// MUST NOT miss a change that is committed before or during the call while it says that it is
    /// [`Pushed`](FeedMode::Pushed). A store that cannot be woken, or not at the moment, looks by itself
    /// in short intervals and says [`Polled`](FeedMode::Polled). Waking for nothing is fine.
    async fn wait_for_changes(&self, after: u64, at_most: Duration)
    -> Result<FeedMode, StoreError>;

    /// Adds to what is counted of keys, all in one step. Unknown keys are passed over, and a key's
    /// counts go with its record. Changes no revision and enters nothing into the change feed.
    async fn add_usage(&self, tallies: &[HourlyUsage]) -> Result<(), StoreError>;

    /// What was counted of a key in the hours that began at `from` or later, in their order.
    async fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError>;

    /// Removes the counts of up to `limit` hours that began before `before`, and tells how many.
    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;

    /// Spends from quotas: from all of them, or from none if one has not enough left.
    ///
    /// MUST be exact: racing calls never spend more than a quota has ([`CounterCharge::spend`] says what a
    /// counter becomes). What was granted MUST survive a crash. The count of a key lasts as long as
    /// its record, whatever else changes; the quotas in one call are different ones.
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError>;

    /// Gives back what was spent, as [`CounterCharge::refund`] says, because the work cost less.
    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError>;

    /// Keeps a code for an address, in place of any other code for it.
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError>;

    /// Tries a code, as [`CodeAttempt::check`] says.
    ///
    /// MUST compare, and take the code or one of its tries, in one atomic step: racing guesses never
    /// get more tries than there are, and of racing right ones one is told so.
    async fn try_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, StoreError>;

    /// Removes up to `limit` codes that ended before `before`, and counts of
    /// [guests](super::CounterKey::Anonymous) in periods that began before it, and tells how many.
    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError>;

    /// Removes entries of the change feed from before `before`, and tells how many.
    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError>;
}
