//! A store in the memory of the process, for tests, demos and hosts without persistent storage.

mod state;

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::timeout};

use self::state::State;
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

/// Stores keys in memory, until the process ends. Clones share the same keys.
///
/// # Examples
/// ```
/// use keyward::{ApiKeys, KeyFormat, MemoryStore};
///
/// let format = KeyFormat::builder("lc").build()?;
/// let keys = ApiKeys::builder(MemoryStore::new(), format).build();
/// # Ok::<(), keyward::secret::FormatError>(())
/// ```
// Not `KvStore` over a B-tree: with 10,000 keys on two cores of an AMD EPYC, verifying without a cache takes 32 µs there
// and 2.4 µs here, because a look-up parses a document instead of sharing an `Arc`. Issuing takes 40 µs and 18 µs.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<RwLock<State>>,
    /// The number of the last change, to wake up callers that wait for the next one.
    last_change: watch::Sender<u64>,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ignores poisoning: no operation panics halfway, so the state is consistent.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let result = operation(&mut state);
        self.last_change.send_replace(state.last_change());
        result
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("keys", &self.read().len()).finish()
    }
}

/// Each operation is atomic, because it holds the one lock throughout. The lock is never held
/// across an `await`.
#[async_trait]
impl KeyStore for MemoryStore {
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
        Ok(self.write(|state| state.insert(new)))
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        Ok(self.read().find(digests))
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        Ok(self.read().get(within, id))
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        Ok(self.read().list(query))
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        Ok(self.read().tenants(after, limit))
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        Ok(self.write(|state| state.update(key, event)))
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        Ok(self.write(|state| state.rotate(rotate)))
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        Ok(self.write(|state| state.revoke(within, id, event)))
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.write(|state| state.revoke_all(owner, event)))
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|state| state.delete(within, id, event)))
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.write(|state| state.purge_keys(before, limit, event)))
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.write(|state| state.record_uses(uses)))
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        Ok(self.write(|state| state.rehash(from, to)))
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.record_events(events)))
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.read().events(query))
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.purge_events(before, limit)))
    }
}

#[async_trait]
impl ChangeFeed for MemoryStore {
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        Ok(self.read().changes(after))
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        let mut last_change = self.last_change.subscribe();
        // The sender lives as long as `self`, so the only possible error is the timeout.
        let _ = timeout(at_most, last_change.wait_for(|last| *last > after)).await;
        Ok(FeedMode::Pushed)
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.announce_account_change(owner, at)))
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.purge_changes(before)))
    }
}

#[async_trait]
impl Counters for MemoryStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        Ok(self.write(|state| state.counters.charge(charges)))
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.write(|state| state.counters.refund(charges));
        Ok(())
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.counters.purge_counters(before, limit)))
    }
}

#[async_trait]
impl UsageHistory for MemoryStore {
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError> {
        self.write(|state| state.add_usage(usage));
        Ok(())
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        Ok(self.read().usage_history(within, id, from))
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.counters.purge_usage(before, limit)))
    }
}

#[async_trait]
impl OneTimeCodes for MemoryStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.write(|state| state.counters.put_code(address, code));
        Ok(())
    }

    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        Ok(self.write(|state| state.counters.try_code(attempt)))
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.counters.purge_codes(before, limit)))
    }
}
