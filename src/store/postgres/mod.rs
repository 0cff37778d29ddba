//! Keys in PostgreSQL.

mod changes;
mod codes;
mod connect;
mod connections;
mod errors;
mod feed;
mod migrate;
mod quotas;
mod reads;
mod rows;
mod search;
mod steps;
mod tallies;
mod transaction;
mod uses;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::PgPool;

pub use self::connect::PostgresOptions;
use self::{connections::Connections, feed::Listener, search::Search, transaction::Names};
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

/// Keys in PostgreSQL 12 or newer, in tables of their own beside the host's.
///
/// Every change is one transaction, with `synchronous_commit` on even where the host has turned it
/// off. Look-ups that come at the same time share one query. Every call ends within the timeout
/// (2 s by default): a server that is frozen or gone makes it *unavailable*. A standby, which may
/// not know yet of a revocation, is *unavailable* for look-ups as well.
///
/// Changes of other nodes are heard of by LISTEN, on one more connection. Where that is lost or
/// refused, the change feed is polled until it is back; through pgbouncer in transaction mode
/// ([`through_transaction_pooler`](PostgresOptions::through_transaction_pooler)) it always is.
///
/// # The pool
/// The host's pool serves as well as one of its own. What matters in its settings:
/// - `test_before_acquire(false)`. By default sqlx pings a connection before it lends it, one round
///   trip more for every look-up. It is not needed here: a call whose connection turns out to be
///   dead begins again on another one.
/// - `max_connections`: look-ups use four at most, and come to more per query when they are many;
///   each change uses one while it lasts, and so does the listener, beside the pool. Ten are plenty.
/// - `acquire_timeout`: whatever it is, a call gives up after the timeout of the store.
/// - `synchronous_commit` and `default_transaction_isolation` may be what the host likes; a change
///   sets its own. `default_transaction_read_only` makes changes *unavailable*.
/// - The statement cache of a connection (`statement_cache_capacity`, 100 by default) should hold
///   the forty statements of this store beside the host's.
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
    names: Arc<Names>,
    connections: Connections,
    lookups: Arc<CoalescedLookups<Search>>,
    listener: Arc<Listener>,
}

impl PostgresStore {
    /// Connects to a server, with a pool of its own, and brings the tables up to date.
    ///
    /// # Errors
    /// If the server cannot be reached, or its tables are newer than this crate.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        PostgresOptions::new().connect(url).await
    }

    /// Uses the host's own pool, and brings the tables up to date.
    ///
    /// See [above](PostgresStore#the-pool) for what matters in its settings.
    ///
    /// # Errors
    /// As [`connect`](PostgresStore::connect).
    pub async fn with_pool(pool: PgPool) -> Result<Self, StoreError> {
        PostgresOptions::new().with_pool(pool).await
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("tables", &self.names).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        self.add(new).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.lookups.find(digests).await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        self.read_key(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.read_keys(query).await
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.read_tenants(after, limit).await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        self.write_key(key, event).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        self.replace_secret(rotate).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.revoke_key(within, id, event).await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.revoke_keys(owner, event).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.announce_keys(owner, at).await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.delete_key(within, id, event).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.delete_dead_keys(before, limit, event).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.record_uses(uses).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.replace_digest(from, to).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        self.record_events(events).await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.read_events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.delete_events(before, limit).await
    }

    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.read_changes(after).await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.listener.wait_for_changes(after, at_most).await
    }

    async fn add_usage(&self, tallies: &[HourlyUsage]) -> Result<(), StoreError> {
        self.add_tallies(tallies).await
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
        self.delete_tallies(before, limit).await
    }

    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        self.spend_quotas(charges).await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.refund_quotas(charges).await
    }

    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.keep_code(address, code).await
    }

    async fn try_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        self.guess_code(guess).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.delete_codes(before, limit).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.forget_changes(before).await
    }
}
