//! A store that wraps another one, counts calls, and injects faults and delays.

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
        Capability, ChangeBatch, ChangeFeed, ChargeOutcome, CodeAttempt, CodeOutcome,
        CounterCharge, CounterKey, Counters, FeedMode, FoundKey, HourlyUsage, InsertKey,
        InsertOutcome, KeyQuery, KeyUse, OneTimeCode, OneTimeCodes, RevokeOutcome, RotateOutcome,
        RotateSecret, StoreClock, StoreError, UpdateOutcome, UsageHistory,
    },
    system::Clock,
    testing::ManualClock,
};
use tokio::{sync::Semaphore, task::yield_now};

/// How calls of one kind fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    Unavailable,
    /// It is unavailable, and knows for how long: 7 seconds.
    Busy,
    /// The call never completes.
    Hangs,
    Panics,
    /// The change is made, but reported as *outcome unknown*.
    AnswerLost,
}

#[derive(Clone)]
pub struct FaultyStore {
    store: Arc<dyn KeyStore>,
    faults: Arc<Mutex<Faults>>,
    /// The tenant with corrupt keys: listing them fails.
    corrupt_tenant: Arc<Mutex<Option<String>>>,
    finds: Arc<AtomicUsize>,
    charges: Arc<AtomicUsize>,
    /// Each look-up by digest takes one permit between its read and its answer.
    find_gate: Arc<Semaphore>,
    /// Each change takes one permit before it is made.
    change_gate: Arc<Semaphore>,
    /// The number of changes that have reached the gate.
    changes: Arc<AtomicUsize>,
    /// Each reading of the change feed takes one permit between its read and its answer.
    feed_gate: Arc<Semaphore>,
    feed_reads: Arc<AtomicUsize>,
    /// Each recording of audit events takes one permit before it is made.
    event_gate: Arc<Semaphore>,
    event_writes: Arc<AtomicUsize>,
    use_writes: Arc<AtomicUsize>,
    /// The digest that is looked up instead of any other.
    found_digest: Arc<Mutex<Option<SecretDigest>>>,
    /// The clock of the server. Without one, the clock of the wrapped store.
    clock: Option<ManualClock>,
    clock_reads: Arc<AtomicUsize>,
    /// Each reading of the clock takes one permit between its read and its answer.
    clock_gate: Arc<Semaphore>,
    /// What this store pretends to lack.
    missing: Vec<Capability>,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    feed: Fault,
    find: Fault,
    change: Fault,
    uses: Fault,
    charge: Fault,
    usage: Fault,
    /// The number of audit reads that still succeed. `None` is unlimited.
    audit_reads: Option<usize>,
    clock: Fault,
}

impl FaultyStore {
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        let gate = || Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self {
            store,
            faults: Arc::default(),
            corrupt_tenant: Arc::default(),
            finds: Arc::default(),
            charges: Arc::default(),
            find_gate: gate(),
            change_gate: gate(),
            changes: Arc::default(),
            feed_gate: gate(),
            feed_reads: Arc::default(),
            event_gate: gate(),
            event_writes: Arc::default(),
            use_writes: Arc::default(),
            found_digest: Arc::default(),
            clock: None,
            clock_reads: Arc::default(),
            clock_gate: gate(),
            missing: Vec::new(),
        }
    }

    /// Gives the store a clock that the test sets.
    pub fn with_clock(self, clock: &ManualClock) -> Self {
        Self { clock: Some(clock.clone()), ..self }
    }

    pub fn set_clock_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().clock = fault;
    }

    /// Holds the answers of the clock until they are released.
    pub fn hold_clock(&self) {
        self.clock_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_clock(&self) {
        self.clock_gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// How often the clock of the server was read.
    pub fn clock_reads(&self) -> usize {
        self.clock_reads.load(Ordering::SeqCst)
    }

    /// Removes capabilities of the store.
    pub fn without(self, missing: impl IntoIterator<Item = Capability>) -> Self {
        Self { missing: missing.into_iter().collect(), ..self }
    }

    fn has(&self, capability: Capability) -> bool {
        !self.missing.contains(&capability)
    }

    pub fn set_feed_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().feed = fault;
    }

    pub fn set_find_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().find = fault;
    }

    pub fn corrupt_keys_of(&self, tenant: &str) {
        *self.corrupt_tenant.lock().unwrap() = Some(tenant.into());
    }

    pub fn set_change_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().change = fault;
    }

    pub fn set_use_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().uses = fault;
    }

    pub fn set_usage_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().usage = fault;
    }

    pub fn set_charge_fault(&self, fault: Fault) {
        self.faults.lock().unwrap().charge = fault;
    }

    /// Makes audit reads fail after this number of calls.
    pub fn allow_audit_reads(&self, times: usize) {
        self.faults.lock().unwrap().audit_reads = Some(times);
    }

    /// Returns the number of charges for keys and owners.
    pub fn charges(&self) -> usize {
        self.charges.load(Ordering::SeqCst)
    }

    /// Returns the number of look-ups by digest.
    pub fn finds(&self) -> usize {
        self.finds.load(Ordering::SeqCst)
    }

    /// Finds the key of this digest for every digest, as a column with a lax collation may.
    pub fn confuse_finds(&self, digest: SecretDigest) {
        *self.found_digest.lock().unwrap() = Some(digest);
    }

    /// Makes look-ups wait between their read and their answer, until `release_finds`.
    pub fn hold_finds(&self) {
        self.find_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_finds(&self, lookups: usize) {
        self.find_gate.add_permits(lookups);
    }

    /// Returns the number of changes that were begun. They may wait for `release_changes`.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Makes changes wait before they are made, until `release_changes`.
    pub fn hold_changes(&self) {
        self.change_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_changes(&self, changes: usize) {
        self.change_gate.add_permits(changes);
    }

    /// Returns how often the change feed was read, whether it was answered or not.
    pub fn feed_reads(&self) -> usize {
        self.feed_reads.load(Ordering::SeqCst)
    }

    /// Returns how often uses were written, whether it failed or not.
    pub fn use_writes(&self) -> usize {
        self.use_writes.load(Ordering::SeqCst)
    }

    /// Makes recordings of audit events wait before they are made, until `release_events`.
    pub fn hold_events(&self) {
        self.event_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_events(&self, recordings: usize) {
        self.event_gate.add_permits(recordings);
    }

    /// Returns how often audit events were to be recorded, also by calls that still wait.
    pub fn event_writes(&self) -> usize {
        self.event_writes.load(Ordering::SeqCst)
    }

    /// Holds readings of the change feed, each after its read, until they are released.
    pub fn hold_feed(&self) {
        self.feed_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_feed(&self, readings: usize) {
        self.feed_gate.add_permits(readings);
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    async fn change<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let fault = self.faults().change;
        if fault != Fault::AnswerLost {
            inject(fault).await?;
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.change_gate.acquire().await.unwrap().forget();
        let answer = work.await;
        if fault == Fault::AnswerLost { Err(StoreError::outcome_unknown("lost")) } else { answer }
    }
}

async fn inject(fault: Fault) -> Result<(), StoreError> {
    match fault {
        Fault::None | Fault::AnswerLost => Ok(()),
        Fault::Unavailable => Err(StoreError::unavailable("injected fault")),
        Fault::Busy => {
            Err(StoreError::unavailable("injected fault").with_retry_after(Duration::from_secs(7)))
        }
        Fault::Hangs => pending().await,
        Fault::Panics => panic!("injected panic"),
    }
}

type Answer<T> = Result<T, StoreError>;

#[async_trait]
impl KeyStore for FaultyStore {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        self.has(Capability::ChangeFeed).then_some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        self.has(Capability::Counters).then_some(self)
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        self.has(Capability::UsageHistory).then_some(self)
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        self.clock.is_some().then_some(self as _).or_else(|| self.store.clock())
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        self.has(Capability::OneTimeCodes).then_some(self)
    }

    async fn insert(&self, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.change(self.store.insert(new)).await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        self.finds.fetch_add(1, Ordering::SeqCst);
        inject(self.faults().find).await?;
        let confused = *self.found_digest.lock().unwrap();
        let found = self.store.find(confused.as_ref().map_or(digests, std::slice::from_ref)).await;
        self.find_gate.acquire().await.unwrap().forget();
        found
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Answer<Option<Arc<Key>>> {
        self.store.get(within, id).await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        if self.corrupt_tenant.lock().unwrap().as_deref() == Some(query.within.tenant()) {
            return Err(StoreError::corrupt("injected corruption"));
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
        self.use_writes.fetch_add(1, Ordering::SeqCst);
        inject(self.faults().uses).await?;
        self.store.record_uses(uses).await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Answer<bool> {
        self.store.rehash(from, to).await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Answer<u32> {
        inject(self.faults().uses).await?;
        self.event_writes.fetch_add(1, Ordering::SeqCst);
        self.event_gate.acquire().await.unwrap().forget();
        let answer = self.store.record_events(events).await;
        // A store with a disk answers later.
        yield_now().await;
        answer
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        if let Some(left) = &mut self.faults.lock().unwrap().audit_reads {
            let read = left.checked_sub(1).ok_or(StoreError::unavailable("injected fault"));
            *left = read?;
        }
        self.store.events(query).await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.purge_events(before, limit).await
    }
}

#[async_trait]
impl ChangeFeed for FaultyStore {
    async fn changes(&self, after: Option<u64>) -> Answer<ChangeBatch> {
        inject(self.faults().feed).await?;
        let changes = self.store.change_feed().unwrap().changes(after).await;
        self.feed_reads.fetch_add(1, Ordering::SeqCst);
        self.feed_gate.acquire().await.unwrap().forget();
        changes
    }

    async fn wait_for_changes(&self, after: u64, at_most: Duration) -> Answer<FeedMode> {
        inject(self.faults().feed).await?;
        let feed = self.store.change_feed().unwrap().wait_for_changes(after, at_most).await?;
        // A fault that was set meanwhile applies too.
        inject(self.faults().feed).await?;
        Ok(feed)
    }

    async fn announce_account_change(&self, owner: &Owner, at: Timestamp) -> Answer<u32> {
        self.change(self.store.change_feed().unwrap().announce_account_change(owner, at)).await
    }

    async fn purge_changes(&self, before: Timestamp) -> Answer<u32> {
        self.store.change_feed().unwrap().purge_changes(before).await
    }
}

#[async_trait]
impl Counters for FaultyStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Answer<ChargeOutcome> {
        if !matches!(charges[0].counter_key, CounterKey::Job(_)) {
            self.charges.fetch_add(1, Ordering::SeqCst);
        }
        // Continues when the fault is cleared.
        while self.faults().charge == Fault::Hangs {
            tokio::task::yield_now().await;
        }
        let fault = self.faults().charge;
        if fault != Fault::AnswerLost {
            inject(fault).await?;
        }
        let outcome = self.store.counters().unwrap().charge(charges).await;
        if fault == Fault::AnswerLost { Err(StoreError::outcome_unknown("lost")) } else { outcome }
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Answer<()> {
        tokio::task::yield_now().await;
        self.store.counters().unwrap().refund(charges).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.counters().unwrap().purge_counters(before, limit).await
    }
}

#[async_trait]
impl UsageHistory for FaultyStore {
    async fn add_usage(&self, tallies: &[HourlyUsage]) -> Answer<()> {
        let fault = self.faults().usage;
        if fault != Fault::AnswerLost {
            inject(fault).await?;
        }
        let added = self.store.usage_history().unwrap().add_usage(tallies).await;
        if fault == Fault::AnswerLost { Err(StoreError::outcome_unknown("lost")) } else { added }
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Answer<Vec<HourlyUsage>> {
        self.store.usage_history().unwrap().hourly_usage(within, id, from).await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.usage_history().unwrap().purge_usage(before, limit).await
    }
}

#[async_trait]
impl OneTimeCodes for FaultyStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Answer<()> {
        self.change(self.store.one_time_codes().unwrap().put_code(address, code)).await
    }

    async fn try_code(&self, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        self.change(self.store.one_time_codes().unwrap().try_code(guess)).await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Answer<u32> {
        self.store.one_time_codes().unwrap().purge_codes(before, limit).await
    }
}

#[async_trait]
impl StoreClock for FaultyStore {
    async fn now(&self) -> Answer<Timestamp> {
        self.clock_reads.fetch_add(1, Ordering::SeqCst);
        inject(self.faults().clock).await?;
        let time = self.clock.as_ref().unwrap().now();
        self.clock_gate.acquire().await.unwrap().forget();
        Ok(time)
    }
}
