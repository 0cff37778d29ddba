//! The SQLite store.

mod connections;
mod counters;
mod errors;
mod feed;
mod options;
mod reads;
mod records;
mod statements;
mod writes;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use self::connections::SqliteDatabase;
pub use self::options::SqliteOptions;
use super::{
    ChangeBatch, ChangeFeed, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, Counters,
    FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyStore, KeyUse,
    OneTimeCode, OneTimeCodes, RevokeOutcome, RotateOutcome, RotateSecret, StoreClock, StoreError,
    UpdateOutcome, UsageHistory,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
};

/// Stores keys in an SQLite file: its own, or the service's, in tables of its own.
///
/// Several processes may open the file concurrently; it must be on a local disk. The file has a
/// write-ahead log, and a change is synced to disk before it is acknowledged. Writes queue in the
/// order in which they were called; reads do not wait for writes. A call that waits longer than the
/// timeout (2 s by default) fails as *unavailable*. A disk that hangs during a commit can delay a
/// call by one more timeout, and then its outcome is *unknown*.
///
/// The store opens its own connections and does not take the service's pool, whose connections
/// might not have the settings that durability needs. Do not copy the file while it is open: back
/// it up with `VACUUM INTO`.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyward::{ApiKeys, KeyFormat, SqliteStore};
///
/// let store = SqliteStore::open("/var/lib/app/keys.db").await?;
/// let keys = ApiKeys::builder(store, KeyFormat::builder("lc").build()?).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    database: Arc<SqliteDatabase>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.database.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        None
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        Some(self)
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        Some(self)
    }

    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        self.database.write(async |transaction| transaction.insert(new).await).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.database.find_key(digests).await
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
        self.database.write(async |transaction| transaction.update(key, event).await).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        self.database.write(async |transaction| transaction.rotate(rotate).await).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.database.write(async |transaction| transaction.revoke(within, id, event).await).await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.write(async |transaction| transaction.revoke_all(owner, event).await).await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.database.write(async |transaction| transaction.delete(within, id, event).await).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.database
            .write(async |transaction| transaction.purge_keys(before, limit, event).await)
            .await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.write(async |transaction| transaction.record_uses(uses).await).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.database.write(async |transaction| transaction.rehash(from, to).await).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        self.database.write(async |transaction| transaction.record_events(events).await).await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.database.list_events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(|sql| &sql.purge_events, before, limit).await
    }
}

#[async_trait]
impl ChangeFeed for SqliteStore {
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.database.changes_after(after).await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.database.poll_changes(after, at_most).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.database
            .write(async |transaction| transaction.announce_account_change(owner, at).await)
            .await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.database.write(async |transaction| transaction.purge_changes(before).await).await
    }
}

#[async_trait]
impl Counters for SqliteStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        self.database.write(async |transaction| transaction.charge(charges).await).await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.database.write(async |transaction| transaction.refund(charges).await).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(|sql| &sql.purge_anonymous_counters, before, limit).await
    }
}

#[async_trait]
impl UsageHistory for SqliteStore {
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError> {
        self.database.write(async |transaction| transaction.add_usage(usage).await).await
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.database.read_usage(within, id, from).await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(|sql| &sql.purge_usage, before, limit).await
    }
}

#[async_trait]
impl OneTimeCodes for SqliteStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.database.write(async |transaction| transaction.put_code(address, code).await).await
    }

    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        self.database.write(async |transaction| transaction.try_code(attempt).await).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(|sql| &sql.purge_codes, before, limit).await
    }
}
