//! The PostgreSQL store.

mod connections;
mod counters;
mod errors;
mod feed;
mod options;
mod reads;
mod records;
mod transaction;
mod writes;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::options::PostgresOptions;
use self::{feed::FeedListener, reads::KeyLookup, transaction::PostgresDatabase};
use super::{
    ChangeBatch, ChangeFeed, Counters, FeedMode, FoundKey, InsertKey, InsertOutcome, KeyQuery,
    KeyStore, KeyUse, OneTimeCodes, RevokeOutcome, RotateOutcome, RotateSecret, StoreClock,
    StoreError, UpdateOutcome, UsageHistory, coalesced::CoalescedLookups,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
};

/// Stores keys in PostgreSQL 12 or newer, in tables of its own beside the service's.
///
/// Every change is one transaction, with `synchronous_commit` on even if the service has turned it
/// off. Concurrent lookups share queries. Every call ends within the timeout (2 s by default): if the
/// server does not answer, the call fails as *unavailable*. Lookups also fail as *unavailable* on a
/// standby, which may not have a revocation yet.
///
/// Changes of different owners commit in parallel, and the server writes many of them to disk in one
/// flush. Changes per second grow with the connections: `connections(32)` or more for a service that
/// changes hundreds of keys per second.
///
/// Changes of other nodes arrive by LISTEN, on one more connection. While that connection is lost
/// or refused, the change feed is polled; through pgbouncer in transaction mode
/// ([`through_transaction_pooler`](PostgresOptions::through_transaction_pooler)) it is always polled.
///
/// # The change feed
/// A change commits its entry of the feed without a number. Afterwards, its node gives numbers to all
/// committed entries in one statement, and sends one notification for all of them. So a change waits
/// neither for the feed nor for the notification. A reader of the feed does the same with entries that
/// have no number yet: an entry that was committed before the read is in its answer, also if the node
/// that made the change has died. A waiting node looks for such entries once a second. A long transaction
/// elsewhere, such as a backup, does not delay the feed.
///
/// # The pool
/// The store works with the service's pool or with its own. These settings matter:
/// - `test_before_acquire(false)`. By default sqlx pings a connection before it lends it, which costs
///   each lookup one more round trip. The store does not need the ping: a call whose connection
///   turns out to be dead starts again on another one.
/// - `max_connections`: each change uses one connection of the pool, and so do reads for management.
///   Lookups and the change feed use up to six connections outside the pool, so that verification does
///   not wait behind changes: concurrent lookups use at most four and share queries beyond that. The
///   listener uses one more. Ten are plenty. While 1,024 calls wait for the pool, further ones are
///   *unavailable* immediately.
/// - `acquire_timeout` may have any value: a call gives up after the store's own timeout.
/// - `synchronous_commit` and `default_transaction_isolation` may have any value; a change sets its
///   own. `default_transaction_read_only` makes changes *unavailable*.
/// - `statement_cache_capacity`, 100 by default, should hold the store's forty statements in addition
///   to the service's.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyward::{ApiKeys, KeyFormat, PostgresStore};
///
/// let store = PostgresStore::connect("postgres://localhost/app").await?;
/// let keys = ApiKeys::builder(store, KeyFormat::builder("lc").build()?).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    database: PostgresDatabase,
    lookups: Arc<CoalescedLookups<KeyLookup>>,
    listener: Arc<FeedListener>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("tables", &self.database.tables)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for PostgresStore {
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
        self.database.insert_key(new).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.lookups.find(digests).await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        self.database.get_key(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.database.list_keys(query).await
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.database.list_tenants(after, limit).await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        self.database.update_key(key, event).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        self.database.rotate_key(rotate).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.database.revoke_key(within, id, event).await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.revoke_all_keys(owner, event).await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.database.delete_key(within, id, event).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.delete_dead_keys(before, limit, event).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.write_uses(uses).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.database.replace_digest(from, to).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        self.database.write_events(events).await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.list_events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let sql = "DELETE FROM {t}audit WHERE id IN (SELECT id FROM {t}audit WHERE at < $1 \
            ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.database.delete_old(sql, before, limit).await
    }
}

#[async_trait]
impl ChangeFeed for PostgresStore {
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.database.changes_after(after).await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.listener.wait_for_changes(after, at_most).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.database.announce_keys(owner, at).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.database.delete_old_changes(before).await
    }
}

#[async_trait]
impl StoreClock for PostgresStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.database.server_time().await
    }
}
