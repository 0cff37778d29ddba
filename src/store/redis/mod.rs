//! Keys in Redis: on one server, or on a cluster.

mod call;
mod changes;
mod check;
mod codes;
mod counters;
mod ends;
mod errors;
mod feed;
mod line;
mod link;
mod listener;
mod names;
mod options;
mod pack;
mod reads;
mod reply;
mod retention;
mod rows;
mod scripts;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::options::RedisOptions;
/// What a limiter needs of it, too.
pub(crate) use self::{
    errors::{Source, is},
    line::{Line, Sent, elsewhere},
    link::{is_elsewhere, left},
    names::owner_scope,
    options::checked_prefix,
};
use self::{link::Link, listener::Listener, names::Names};
pub(crate) use super::error::TimedOut;
use super::{
    ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, FeedMode, FoundKey,
    HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyStore, KeyUse, OneTimeCode, RevokeOutcome,
    RotateOutcome, RotateSecret, StoreError, UpdateOutcome, coalesced::CoalescedLookups,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
};

/// Keys in Redis 7.0 or newer, or Valkey: on one server, or on a cluster.
///
/// Every change is one script, which the server runs whole: a key, its secrets, the log and the
/// change feed together. A look-up is one round trip.
///
/// # What survives
/// As much as the server keeps. With `appendonly yes` and `appendfsync always`, what was
/// acknowledged survives a crash, as [`KeyStore`] promises; with `everysec`, a crash may take up to
/// a second of acknowledged changes, and revocations with them. A failover may lose what the replica
/// had not received: [`RedisOptions::replicas`] waits for it. In each of these cases the change feed
/// tells all nodes that they have missed something.
///
/// A server that throws data away when its memory is full, or keeps nothing on disk, is refused at
/// the start. When the memory of a server with `noeviction` is full, no key can be issued, and those
/// there are can be verified and revoked.
///
/// # The audit log
/// It is the stream `{keyward}audit`, in the order of arrival: other programs may read it, with
/// `XREAD`, and nothing but the retention of [`ApiKeys`](crate::api::ApiKeys) may trim it. An entry has an
/// event's identity, `i`, and the event, `e`, in MessagePack.
///
/// # On a cluster
/// All Redis keys of a store share one hash tag. So everything is as atomic as on one server; the
/// price is that one node holds the store and does its work, and that the store cannot be divided.
/// To spread many tenants over the nodes, give them several stores with different prefixes. While
/// their slot is moved from one node to another, calls may fail as *unavailable*.
///
/// # Failures
/// Every call ends within the timeout (2 s by default). Where surely nothing was done, it is
/// *unavailable*; so is every read that fails. A change that was sent and not answered is *outcome
/// unknown*, and is not sent again. A server that comes back empty is *unavailable* and denies
/// nobody, until its data are restored or a node is started anew. Connections are made anew by
/// themselves; behind Sentinel, use an address that leads to the primary: a replica is refused.
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
    inner: Arc<Inner>,
    lookups: Arc<CoalescedLookups<Arc<Inner>>>,
}

struct Inner {
    names: Arc<Names>,
    link: Arc<Link>,
    replicas: u32,
    listener: Listener,
}

impl RedisStore {
    /// Connects to one server. More is set with [`RedisOptions`].
    ///
    /// # Errors
    /// As [`RedisOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        RedisOptions::new().connect(url).await
    }

    /// Connects to a cluster by way of some of its nodes.
    ///
    /// # Errors
    /// As [`RedisOptions::connect`].
    pub async fn connect_cluster<T: AsRef<str>>(
        nodes: impl IntoIterator<Item = T>,
    ) -> Result<Self, StoreError> {
        RedisOptions::new().connect_cluster(nodes).await
    }
}

impl Inner {
    /// Whether changes wait for replicas, as the scripts take it.
    fn waits(&self) -> &'static [u8] {
        if self.replicas > 0 { b"1" } else { b"0" }
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("names", &self.inner.names).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for RedisStore {
    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        self.inner.insert(new).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.lookups.find(digests).await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        self.inner.get(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.inner.list(query).await
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.inner.tenants(after, limit).await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        self.inner.update(key, event).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        self.inner.rotate(rotate).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.inner.revoke(within, id, event).await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.inner.revoke_all(owner, event).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.inner.announce_account_change(owner, at).await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.inner.delete(within, id, event).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.inner.purge_keys(before, limit, event).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.inner.record_uses(uses).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.inner.rehash(from, to).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        self.inner.record_events(events).await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.inner.events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.inner.purge_events(before, limit).await
    }

    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.inner.changes(after).await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.inner.wait_for_changes(after, at_most).await
    }

    async fn add_usage(&self, tallies: &[HourlyUsage]) -> Result<(), StoreError> {
        self.inner.add_usage(tallies).await
    }

    async fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.inner.usage_history(within, id, from).await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.inner.purge_usage(before, limit).await
    }

    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        self.inner.charge(charges).await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.inner.refund(charges).await
    }

    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.inner.put_code(address, code).await
    }

    async fn try_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        self.inner.try_code(guess).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.inner.purge_codes(before, limit).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.inner.purge_changes(before).await
    }
}
