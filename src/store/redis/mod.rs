//! The Redis store, for one server or a cluster.

mod commands;
mod connection;
mod counters;
mod errors;
mod feed;
mod msgpack;
mod options;
mod reads;
mod records;
mod scripts;
mod writes;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::options::RedisOptions;
use self::{commands::RedisDatabase, feed::FeedListener};
// Shared with the Redis rate limiter.
pub(crate) use self::{
    connection::{CommandOutcome, Connection, redirect_target, time_left},
    errors::{BoxError, needs_other_server},
    options::checked_prefix,
    records::owner_hash,
    scripts::Script,
};
pub(crate) use super::error::TimedOut;
use super::{
    ChangeBatch, ChangeFeed, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, Counters,
    FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyStore, KeyUse,
    OneTimeCode, OneTimeCodes, RevokeOutcome, RotateOutcome, RotateSecret, StoreClock, StoreError,
    UpdateOutcome, UsageHistory, coalesced::CoalescedLookups,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
};

/// Stores keys in Redis 7.0 or newer, or Valkey, on one server or on a cluster.
///
/// Every change is one script, which the server runs atomically: the key, its secrets, the audit log
/// and the change feed change together. A lookup is one round trip.
///
/// # Durability
/// Changes are as durable as the server makes them. With `appendonly yes` and `appendfsync always`,
/// acknowledged changes survive a crash, as [`KeyStore`] requires. With `appendfsync everysec`, a
/// crash may lose up to one second of acknowledged changes, including revocations. A failover may
/// lose changes that the replica had not received; [`RedisOptions::replicas`] waits for replicas. In
/// each of these cases, every process that uses the store learns from the change feed that it may
/// have missed changes, and reads its cached keys again.
///
/// A server that evicts data when its memory is full, or does not write to disk, is rejected when
/// the store connects. When the memory of a server with `noeviction` is full, no key can be issued,
/// but existing keys can be verified and revoked.
///
/// # The audit log
/// The audit log is the stream `{keyward}audit`, in the order of arrival. Other programs may read it
/// with `XREAD`, but only the retention of [`ApiKeys`](crate::api::ApiKeys) may trim it. An entry has
/// two fields: `i` is the event's id, and `e` is the event in MessagePack.
///
/// # On a cluster
/// All Redis keys of a store share one hash tag. Changes are therefore as atomic as on one server, but
/// one server of the cluster holds the whole store and does its work. To spread many tenants over the
/// servers, use several stores with different prefixes. While the store's slot moves to another
/// server, calls may fail as *unavailable*.
///
/// # Failures
/// Every call ends within the timeout (2 s by default). A call that certainly changed nothing fails
/// as *unavailable*, as does every failed read. A change that was sent but not answered fails as
/// *outcome unknown*, and is not sent again. If a server comes back without its data, this store
/// fails as *unavailable* and denies no key until the data are restored. A process that starts
/// afterwards cannot know of the loss: for it, the store is new. The store reconnects by itself.
/// Behind Sentinel, use a host name that leads to the primary: a replica is rejected.
///
/// For `rediss://`, enable one of the TLS features of the `redis` crate.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyward::{ApiKeys, KeyFormat, RedisStore};
///
/// let store = RedisStore::connect("redis://localhost/").await?;
/// let keys = ApiKeys::builder(store, KeyFormat::builder("lc").build()?).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    database: Arc<RedisDatabase>,
    lookups: Arc<CoalescedLookups<Arc<RedisDatabase>>>,
    listener: Arc<FeedListener>,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("keys", &self.database.keys).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for RedisStore {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        Some(self)
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        Some(self)
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        Some(self)
    }

    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        self.database.insert(new).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.lookups.find(digests).await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        self.database.get(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.database.list(query).await
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.database.tenants(after, limit).await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        self.database.update(key, event).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        self.database.rotate(rotate).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.database.revoke(within, id, event).await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.revoke_all(owner, event).await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.database.delete(within, id, event).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.purge_keys(before, limit, event).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.record_uses(uses).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.database.rehash(from, to).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        self.database.record_events(events).await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge_events(before, limit).await
    }
}

#[async_trait]
impl ChangeFeed for RedisStore {
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.database.changes(after).await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.listener.wait_for_changes(&self.database, after, at_most).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.database.announce_account_change(owner, at).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.database.purge_changes(before).await
    }
}

#[async_trait]
impl Counters for RedisStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        self.database.charge(charges).await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.database.refund(charges).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge_counters(before, limit).await
    }
}

#[async_trait]
impl StoreClock for RedisStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.database.server_time().await
    }
}

#[async_trait]
impl UsageHistory for RedisStore {
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError> {
        self.database.add_usage(usage).await
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.database.usage_history(within, id, from).await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge_usage(before, limit).await
    }
}

#[async_trait]
impl OneTimeCodes for RedisStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.database.put_code(address, code).await
    }

    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        self.database.try_code(attempt).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge_codes(before, limit).await
    }
}
