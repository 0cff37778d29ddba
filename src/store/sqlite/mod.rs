//! Keys in an SQLite file.

mod audit;
mod change;
mod codes;
mod ends;
mod errors;
mod feed;
mod keys;
mod lane;
mod migrate;
mod options;
mod quotas;
mod reads;
mod rows;
mod statements;
mod tallies;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::SqliteConnection;

pub use self::options::SqliteOptions;
use self::{lane::Lane, statements::Statements};
use super::{
    ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, FeedMode, FoundKey,
    HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyStore, KeyUse, OneTimeCode, RevokeOutcome,
    RotateOutcome, RotateSecret, StoreError, UpdateOutcome,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
};

/// Keys in an SQLite file: one of their own, or the host's, in tables of their own.
///
/// Several processes may have the file open at once; it has to lie on a local disk. The file has a
/// write-ahead log, and a change is on the disk before it is acknowledged. Changes wait for each
/// other in the order in which they came; reads wait for nobody. A call that has waited for as long
/// as the timeout (2 s by default) ends as *unavailable*. Only a disk that hangs in the middle of a
/// commit can hold it for as long again, and makes it *outcome unknown*.
///
/// It opens its own connections and takes no pool of the host: a pool would bring connections whose
/// settings are not those that durability needs. SQLite files are made to be opened twice. What
/// they are not made for is being copied while they are open: back up with `VACUUM INTO`.
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
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// SQLite has one writer at a time: here they queue, instead of trying again and again.
    writer: Arc<Lane>,
    readers: Arc<Lane>,
    sql: Statements,
    timeout: Duration,
    /// What lies in memory is gone with its last connection.
    #[allow(dead_code, reason = "it is there to be there")]
    anchor: Option<SqliteConnection>,
}

impl SqliteStore {
    /// Opens a file, which is created for its owner's eyes only if there is none, and brings its
    /// tables up to date. More is set with [`SqliteOptions`].
    ///
    /// # Errors
    /// If the file cannot be opened or is no database, or its tables are newer than this crate.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        SqliteOptions::new().open(path).await
    }

    /// A store that lasts as long as its clones, for tests.
    ///
    /// # Errors
    /// If there is no memory left.
    pub async fn in_memory() -> Result<Self, StoreError> {
        SqliteOptions::new().in_memory().await
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        self.change(async |change| change.insert(new).await).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.find_key(digests).await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        self.get_key(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.list_keys(query).await
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.list_tenants(after, limit).await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        self.change(async |change| change.update(key, event).await).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        self.change(async |change| change.rotate(rotate).await).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.change(async |change| change.revoke(within, id, event).await).await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.change(async |change| change.revoke_all(owner, event).await).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.change(async |change| change.announce_account_change(owner, at).await).await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.change(async |change| change.delete(within, id, event).await).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.change(async |change| change.purge_keys(before, limit, event).await).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.change(async |change| change.record_uses(uses).await).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.change(async |change| change.rehash(from, to).await).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        self.change(async |change| change.record_all(events).await).await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.read_events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.change(async |change| change.purge(&change.sql.purge_events, before, limit).await)
            .await
    }

    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.read_changes(after).await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.wait_for_change(after, at_most).await
    }

    async fn add_usage(&self, tallies: &[HourlyUsage]) -> Result<(), StoreError> {
        self.change(async |change| change.add_usage(tallies).await).await
    }

    async fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.read_tallies(within, id, from).await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.change(async |change| change.purge(&change.sql.purge_usage, before, limit).await).await
    }

    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        self.change(async |change| change.charge(charges).await).await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.change(async |change| change.refund(charges).await).await
    }

    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.change(async |change| change.put_code(address, code).await).await
    }

    async fn try_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        self.change(async |change| change.try_code(guess).await).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.change(async |change| change.purge_codes(before, limit).await).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.change(async |change| change.purge_changes(before).await).await
    }
}
