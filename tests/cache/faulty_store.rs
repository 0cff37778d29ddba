//! A store between the cache and a real one, which counts what it is asked and does what it is told.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, Owner, OwnerScope, SecretDigest, Timestamp,
    store::{
        ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, CounterKey, FeedMode,
        HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, Lookup, OneTimeCode,
        RevokeOutcome, RotateOutcome, RotateSecret, StoreError, UpdateOutcome,
    },
};
use tokio::{sync::Semaphore, task::yield_now};

/// How calls of one kind fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    Unavailable,
    /// The call never completes.
    Hangs,
    Panics,
    /// The change is made, but reported as *outcome unknown*.
    AnswerLost,
}

#[derive(Clone)]
pub struct FaultyStore {
    store: Arc<dyn KeyStore>,
    moods: Arc<Mutex<Moods>>,
    /// The tenant whose keys cannot be listed.
    damaged: Arc<Mutex<Option<String>>>,
    finds: Arc<AtomicUsize>,
    charges: Arc<AtomicUsize>,
    /// Each look-up by digest takes one permit, between its read and its answer.
    gate: Arc<Semaphore>,
    /// Each change takes one, before it is made.
    changes: Arc<Semaphore>,
}

#[derive(Clone, Copy, Default)]
struct Moods {
    feed: Fault,
    find: Fault,
    change: Fault,
    uses: Fault,
    spend: Fault,
    tally: Fault,
    /// How often the log can still be read; always, unless told.
    log: Option<usize>,
}

impl FaultyStore {
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        let gate = || Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self {
            store,
            moods: Arc::default(),
            damaged: Arc::default(),
            finds: Arc::default(),
            charges: Arc::default(),
            gate: gate(),
            changes: gate(),
        }
    }

    pub fn set_feed_fault(&self, mood: Fault) {
        self.moods.lock().unwrap().feed = mood;
    }

    pub fn set_find_fault(&self, mood: Fault) {
        self.moods.lock().unwrap().find = mood;
    }

    pub fn corrupt_keys_of(&self, tenant: &str) {
        *self.damaged.lock().unwrap() = Some(tenant.into());
    }

    pub fn set_change_fault(&self, mood: Fault) {
        self.moods.lock().unwrap().change = mood;
    }

    pub fn set_use_fault(&self, mood: Fault) {
        self.moods.lock().unwrap().uses = mood;
    }

    pub fn set_usage_fault(&self, mood: Fault) {
        self.moods.lock().unwrap().tally = mood;
    }

    pub fn set_charge_fault(&self, mood: Fault) {
        self.moods.lock().unwrap().spend = mood;
    }

    /// So often; then it fails.
    pub fn allow_audit_reads(&self, times: usize) {
        self.moods.lock().unwrap().log = Some(times);
    }

    /// How often it was asked to spend for keys and owners.
    pub fn charges(&self) -> usize {
        self.charges.load(Ordering::SeqCst)
    }

    /// How often it was asked for a digest.
    pub fn finds(&self) -> usize {
        self.finds.load(Ordering::SeqCst)
    }

    /// From now on look-ups wait, each after it has read, until it is let go.
    pub fn hold_finds(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_finds(&self, lookups: usize) {
        self.gate.add_permits(lookups);
    }

    /// From now on changes wait before they are made, until they are let go.
    pub fn hold_changes(&self) {
        self.changes.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_changes(&self, changes: usize) {
        self.changes.add_permits(changes);
    }

    fn moods(&self) -> Moods {
        *self.moods.lock().unwrap()
    }

    async fn change<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mood = self.moods().change;
        if mood != Fault::AnswerLost {
            obey(mood).await?;
        }
        self.changes.acquire().await.unwrap().forget();
        let answer = work.await;
        if mood == Fault::AnswerLost { Err(StoreError::outcome_unknown("lost")) } else { answer }
    }
}

async fn obey(mood: Fault) -> Result<(), StoreError> {
    match mood {
        Fault::None | Fault::AnswerLost => Ok(()),
        Fault::Unavailable => Err(StoreError::unavailable("told to fail")),
        Fault::Hangs => pending().await,
        Fault::Panics => panic!("told to panic"),
    }
}

type Answer<T> = Result<T, StoreError>;

#[async_trait]
impl KeyStore for FaultyStore {
    async fn insert(&self, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.change(self.store.insert(new)).await
    }

    fn find<'a>(&'a self, digests: &'a [SecretDigest]) -> Lookup<'a> {
        self.finds.fetch_add(1, Ordering::SeqCst);
        Lookup::later(async {
            obey(self.moods().find).await?;
            let found = self.store.find(digests).await;
            self.gate.acquire().await.unwrap().forget();
            found
        })
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Answer<Option<Arc<Key>>> {
        self.store.get(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        if self.damaged.lock().unwrap().as_deref() == Some(query.within.tenant()) {
            return Err(StoreError::corrupt("told to be damaged"));
        }
        self.store.list(query).await
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Answer<Vec<String>> {
        self.store.tenants(after, limit).await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Answer<UpdateOutcome> {
        self.change(self.store.update(key, event)).await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        self.change(self.store.rotate(rotate)).await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        self.change(self.store.revoke(within, id, event)).await
    }

    async fn revoke_all(&self, owner: &Owner, event: &AuditEvent) -> Answer<Vec<AuditEvent>> {
        self.change(self.store.revoke_all(owner, event)).await
    }

    async fn announce_account_change(&self, owner: &Owner, at: Timestamp) -> Answer<u32> {
        self.change(self.store.announce_account_change(owner, at)).await
    }

    async fn delete(&self, within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> Answer<bool> {
        self.change(self.store.delete(within, id, event)).await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        self.change(self.store.purge_keys(before, limit, event)).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        obey(self.moods().uses).await?;
        self.store.record_uses(uses).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Answer<bool> {
        self.store.rehash(from, to).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Answer<()> {
        obey(self.moods().uses).await?;
        let answer = self.store.record_events(events).await;
        // That of a store with a disk comes later.
        yield_now().await;
        answer
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        if let Some(left) = &mut self.moods.lock().unwrap().log {
            let read = left.checked_sub(1).ok_or(StoreError::unavailable("told to fail"));
            *left = read?;
        }
        self.store.events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.purge_events(before, limit).await
    }

    async fn changes(&self, after: Option<u64>) -> Answer<ChangeBatch> {
        obey(self.moods().feed).await?;
        self.store.changes(after).await
    }

    async fn wait_for_changes(&self, after: u64, at_most: Duration) -> Answer<FeedMode> {
        obey(self.moods().feed).await?;
        let feed = self.store.wait_for_changes(after, at_most).await?;
        // What was frozen meanwhile does not tell either.
        obey(self.moods().feed).await?;
        Ok(feed)
    }

    async fn add_usage(&self, tallies: &[HourlyUsage]) -> Answer<()> {
        let mood = self.moods().tally;
        if mood != Fault::AnswerLost {
            obey(mood).await?;
        }
        let tallied = self.store.add_usage(tallies).await;
        if mood == Fault::AnswerLost { Err(StoreError::outcome_unknown("lost")) } else { tallied }
    }

    async fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Answer<Vec<HourlyUsage>> {
        self.store.usage_history(within, id, from).await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.purge_usage(before, limit).await
    }

    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Answer<ChargeOutcome> {
        if !matches!(charges[0].payer, CounterKey::Job(_)) {
            self.charges.fetch_add(1, Ordering::SeqCst);
        }
        // Told otherwise, it goes on.
        while self.moods().spend == Fault::Hangs {
            tokio::task::yield_now().await;
        }
        let mood = self.moods().spend;
        if mood != Fault::AnswerLost {
            obey(mood).await?;
        }
        let spent = self.store.charge(charges).await;
        if mood == Fault::AnswerLost { Err(StoreError::outcome_unknown("lost")) } else { spent }
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Answer<()> {
        tokio::task::yield_now().await;
        self.store.refund(charges).await
    }

    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Answer<()> {
        self.change(self.store.put_code(address, code)).await
    }

    async fn try_code(&self, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        self.change(self.store.try_code(guess)).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.purge_codes(before, limit).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Answer<u32> {
        self.store.purge_changes(before).await
    }
}
