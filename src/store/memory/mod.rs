//! Keys in the memory of the process: for tests, for trying things out, for hosts without a disk.

mod counters;
mod state;

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::timeout};

use self::state::State;
use super::{
    Changes, Code, Feed, Guess, Guessed, Inserted, KeyQuery, KeyStore, Lookup, NewRow, Revoked,
    RotateRow, RotatedRow, Spend, Spent, StoreError, Tally, Updated, Use,
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, Timestamp, Whose},
    secret::Digest,
};

/// A store that lasts as long as the process. Clones share what they hold.
///
/// # Examples
/// ```
/// use keyward::{ApiKeys, KeyFormat, MemoryStore};
///
/// let format = KeyFormat::builder("lc").build()?;
/// let keys = ApiKeys::builder(MemoryStore::new(), format).build();
/// # Ok::<(), keyward::secret::FormatError>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<RwLock<State>>,
    /// The number of the last change, for those who wait for one.
    latest: watch::Sender<u64>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// No code panics between two writes of one change, so a poisoned state is still whole.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let answer = operation(&mut state);
        self.latest.send_replace(state.last_change());
        answer
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("keys", &self.read().len()).finish()
    }
}

/// One lock, held for a whole operation and over no `await`: that makes each of them atomic.
#[async_trait]
impl KeyStore for MemoryStore {
    async fn insert(&self, new: NewRow<'_>) -> Result<Inserted, StoreError> {
        Ok(self.write(|state| state.insert(new)))
    }

    fn find<'a>(&'a self, digests: &'a [Digest]) -> Lookup<'a> {
        Lookup::Ready(Ok(self.read().find(digests)))
    }

    async fn get(&self, whose: Whose<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        Ok(self.read().get(whose, id))
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        Ok(self.read().list(query))
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        Ok(self.read().tenants(after, limit))
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<Updated, StoreError> {
        Ok(self.write(|state| state.update(key, event)))
    }

    async fn rotate(&self, rotate: RotateRow<'_>) -> Result<RotatedRow, StoreError> {
        Ok(self.write(|state| state.rotate(rotate)))
    }

    async fn revoke(
        &self,
        whose: Whose<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<Revoked, StoreError> {
        Ok(self.write(|state| state.revoke(whose, id, event)))
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.write(|state| state.revoke_all(owner, event)))
    }

    async fn announce(&self, owner: &Owner, at: Timestamp) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.announce(owner, at)))
    }

    async fn delete(
        &self,
        whose: Whose<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|state| state.delete(whose, id, event)))
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.write(|state| state.purge_keys(before, limit, event)))
    }

    async fn touch(&self, uses: &[Use]) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.write(|state| state.touch(uses)))
    }

    async fn rehash(&self, from: &Digest, to: &Digest) -> Result<bool, StoreError> {
        Ok(self.write(|state| state.rehash(from, to)))
    }

    async fn record(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        self.write(|state| state.record(events));
        Ok(())
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        Ok(self.read().events(query))
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.purge_events(before, limit)))
    }

    async fn changes(&self, after: Option<u64>) -> Result<Changes, StoreError> {
        Ok(self.read().changes(after))
    }

    async fn wait(&self, after: u64, at_most: Duration) -> Result<Feed, StoreError> {
        let mut latest = self.latest.subscribe();
        // The sender lives as long as `self`; what is left is that the time is over.
        let _ = timeout(at_most, latest.wait_for(|latest| *latest > after)).await;
        Ok(Feed::Pushed)
    }

    async fn tally(&self, tallies: &[Tally]) -> Result<(), StoreError> {
        self.write(|state| state.tally(tallies));
        Ok(())
    }

    async fn tallies(
        &self,
        whose: Whose<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        Ok(self.read().tallies(whose, id, from))
    }

    async fn purge_tallies(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.counters.purge_tallies(before, limit)))
    }

    async fn spend(&self, spends: &[Spend<'_>]) -> Result<Spent, StoreError> {
        Ok(self.write(|state| state.counters.spend(spends)))
    }

    async fn refund(&self, spends: &[Spend<'_>]) -> Result<(), StoreError> {
        self.write(|state| state.counters.refund(spends));
        Ok(())
    }

    async fn put_code(&self, address: &Digest, code: &Code) -> Result<(), StoreError> {
        self.write(|state| state.counters.put_code(address, code));
        Ok(())
    }

    async fn try_code(&self, guess: &Guess) -> Result<Guessed, StoreError> {
        Ok(self.write(|state| state.counters.try_code(guess)))
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.counters.purge_codes(before, limit)))
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        Ok(self.write(|state| state.purge_changes(before)))
    }
}
