//! What checks are made of: the test storage, races, and snapshots of a tenant.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    ops::Deref,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Barrier, mpsc, oneshot},
    task::{JoinError, JoinSet},
};

use super::{
    fixtures::{all_keys, event, insert_key},
    recorder::{Calls, RecordedStore},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        Capability, ChangeFeed, Counters, InsertOutcome, KeyStore, MemoryStore, OneTimeCodes,
        PreviousSecret, RotateOutcome, RotateSecret, StoreError, UpdateOutcome, UsageHistory,
    },
};

/// The name of a fact about stores, and the function that checks it.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// What a store must have for this check.
    pub(super) needs: Option<Capability>,
    /// Whether it opens the storage again: [`TestStorage::reopen`].
    pub(super) reopens: bool,
    pub(super) run: fn(TestStorage) -> RunningCheck,
}

pub(super) type RunningCheck = Pin<Box<dyn Future<Output = CheckResult> + Send>>;

/// Defines `CHECKS`, the list of a module's checks, from functions. A check has the name of its
/// function. Those after the name of a capability need it.
macro_rules! checks {
    ($($check:ident),* $(,)? $(; $capability:ident: $($needing:ident),* $(,)?)?) => {
        pub(super) const CHECKS: &[super::check::Check] = &[
            $(super::check::checks!(@ None, $check),)*
            $($(super::check::checks!(
                @ Some(crate::store::Capability::$capability), $needing
            ),)*)?
        ];
    };
    (@ $needs:expr, $check:ident) => {
        super::check::Check {
            name: stringify!($check),
            needs: $needs,
            reopens: false,
            run: |storage| Box::pin($check(storage)),
        }
    };
}
pub(super) use checks;

/// The result of a check. `Err` is a failure of the store; a fact that does not hold panics.
pub(super) type CheckResult = Result<(), StoreError>;

/// A handle to the storage of one check. Fails the check if it uses a capability that the store lacks.
#[derive(Clone)]
pub(super) struct Handle(Arc<dyn KeyStore>);

impl Deref for Handle {
    type Target = dyn KeyStore;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Handle {
    pub(super) fn feed(&self) -> &dyn ChangeFeed {
        self.0.change_feed().unwrap_or_else(|| missing(Capability::ChangeFeed))
    }

    pub(super) fn quotas(&self) -> &dyn Counters {
        self.0.counters().unwrap_or_else(|| missing(Capability::Counters))
    }

    pub(super) fn history(&self) -> &dyn UsageHistory {
        self.0.usage_history().unwrap_or_else(|| missing(Capability::UsageHistory))
    }

    pub(super) fn codes(&self) -> &dyn OneTimeCodes {
        self.0.one_time_codes().unwrap_or_else(|| missing(Capability::OneTimeCodes))
    }
}

fn missing(capability: Capability) -> ! {
    panic!(
        "the store has no {capability}: leave its checks out with \
         `Suite::without(Capability::{capability:?})`, or return it from `KeyStore`"
    )
}

/// The storage of one check, with the operations that many checks use.
pub(super) struct TestStorage {
    handles: Handles,
    next_handle: AtomicUsize,
    calls: Calls,
    rounds: u32,
    patience: Duration,
    reopen: mpsc::Sender<Reopening>,
}

pub(super) type Handles = Vec<Arc<dyn KeyStore>>;

/// A request to open the storage again. The answer has the new handles.
pub(super) type Reopening = oneshot::Sender<Handles>;

impl TestStorage {
    pub(super) fn new(
        handles: Handles,
        calls: Calls,
        rounds: u32,
        patience: Duration,
        reopen: mpsc::Sender<Reopening>,
    ) -> Self {
        let handles = recorded(handles, &calls);
        Self { handles, next_handle: AtomicUsize::new(0), calls, rounds, patience, reopen }
    }

    /// Storage in a memory store, whose state is the expected one.
    pub(super) fn in_memory() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::new(vec![store], Calls::default(), 1, Duration::ZERO, mpsc::channel(1).0)
    }

    /// Drops all handles and opens the storage again.
    pub(super) async fn reopen(&mut self) {
        self.handles.clear();
        let (request, handles) = oneshot::channel();
        self.reopen.send(request).await.expect("the suite waits for requests of its checks");
        let handles = handles.await.expect("the suite answers each request");
        self.handles = recorded(handles, &self.calls);
    }

    /// Returns the handles round-robin, so that a write through one is read through another.
    pub(super) fn handle(&self) -> Handle {
        let next = self.next_handle.fetch_add(1, Ordering::Relaxed);
        Handle(self.handles[next % self.handles.len()].clone())
    }

    /// Returns the numbers of the rounds of a race. A round uses keys from `round * 1_000` on.
    pub(super) fn rounds(&self) -> impl Iterator<Item = u64> + use<> {
        1..=u64::from(self.rounds)
    }

    /// Returns the instant by which background work must be finished.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Returns how long the store may take to do something that it must do.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Inserts a key without a limit. Panics if the store refuses it.
    pub(super) async fn add(&self, key: &Key, digest: &SecretDigest) -> CheckResult {
        let created = event(EventKind::Created, key, key.created_at);
        let inserted = self.handle().insert(insert_key(key, digest, None, &created)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "a new key without a limit");
        Ok(())
    }

    /// Returns the stored key. Panics if it does not exist.
    pub(super) async fn key(&self, key: &Key) -> Result<Key, StoreError> {
        let stored = self.handle().get((&key.owner).into(), key.id).await?;
        Ok(Key::clone(&stored.expect("the key exists")))
    }

    /// Updates a key at its current revision. Panics if the store refuses it.
    pub(super) async fn update(&self, key: &Key, at: Timestamp) -> CheckResult {
        let updated = self.handle().update(key, &event(EventKind::Updated, key, at)).await?;
        assert_eq!(updated, UpdateOutcome::Updated, "an update of the stored revision");
        Ok(())
    }

    /// Rotates a key at its current revision. Panics if the store refuses it.
    pub(super) async fn rotate(
        &self,
        key: &Key,
        to: &SecretDigest,
        previous: PreviousSecret,
    ) -> CheckResult {
        let rotated = event(EventKind::Rotated, key, key.created_at);
        let hint = format!("{}r", key.hint);
        let rotate =
            RotateSecret { key, digest: to, hint: &hint, previous, token: None, event: &rotated };
        let rotated = self.handle().rotate(rotate).await?;
        assert_eq!(rotated, RotateOutcome::Rotated, "a rotation of the stored revision");
        Ok(())
    }

    /// Returns the key with this digest.
    pub(super) async fn holder(&self, digest: &SecretDigest) -> Result<Holder, StoreError> {
        let found = self.handle().find(std::slice::from_ref(digest)).await?;
        Ok(found.map(|found| (found.key.id, found.ends_at)))
    }

    /// Returns all keys, newest first.
    pub(super) async fn keys(&self, within: OwnerScope<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.handle().list(&all_keys(within)).await
    }

    /// Returns all audit events, newest first.
    pub(super) async fn log(&self, within: OwnerScope<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.handle().events(&AuditQuery::new(within).limit(1_000)).await
    }

    pub(super) fn has_feed(&self) -> bool {
        self.handles[0].change_feed().is_some()
    }

    /// Returns the cursor of the current end of the change feed, or `None` if the store has none.
    pub(super) async fn mark(&self) -> Result<Option<u64>, StoreError> {
        if self.has_feed() { self.feed_end().await.map(Some) } else { Ok(None) }
    }

    /// Returns the keys that entered the change feed since a mark, or `None` if the store has none.
    pub(super) async fn changed_since(
        &self,
        mark: Option<u64>,
    ) -> Result<Option<BTreeSet<KeyId>>, StoreError> {
        match mark {
            Some(mut cursor) => self.read_feed(&mut cursor).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the cursor of the current end of the change feed.
    pub(super) async fn feed_end(&self) -> Result<u64, StoreError> {
        Ok(self.handle().feed().changes(None).await?.cursor)
    }

    /// Reads the change feed from a cursor to its end, and moves the cursor there.
    pub(super) async fn read_feed(&self, cursor: &mut u64) -> Result<BTreeSet<KeyId>, StoreError> {
        let mut changed = BTreeSet::new();
        loop {
            let page = self.handle().feed().changes(Some(*cursor)).await?;
            assert!(!page.missed, "the feed reports missed entries although none was removed");
            assert!(page.cursor >= *cursor, "the cursor of the feed moved backwards");
            *cursor = page.cursor;
            changed.extend(page.keys);
            if !page.more {
                return Ok(changed);
            }
        }
    }
}

fn recorded(handles: Handles, calls: &Calls) -> Handles {
    assert!(!handles.is_empty(), "`open` returned no handle to the store");
    let record = |store| Arc::new(RecordedStore { store, calls: calls.clone() }) as _;
    handles.into_iter().map(record).collect()
}

/// The key that has a digest, and when that secret ends. `None` if no key has the digest.
pub(super) type Holder = Option<(KeyId, Option<Timestamp>)>;

/// Runs tasks concurrently, starting when all are ready. Returns their results in order.
pub(super) async fn race<T, Task>(count: u64, mut task: impl FnMut(u64) -> Task) -> Vec<T>
where
    T: Send + 'static,
    Task: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(count as usize));
    let mut running = JoinSet::new();
    for n in 0..count {
        let (start, task) = (start.clone(), task(n));
        running.spawn(async move {
            start.wait().await;
            (n, task.await)
        });
    }
    let mut results: Vec<(u64, T)> = Vec::new();
    while let Some(task) = running.join_next().await {
        results.push(joined(task));
    }
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Returns the result of a task. A panic of the task resumes in the caller.
pub(super) fn joined<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(aborted)) => panic!("a task of the suite was aborted: {aborted}"),
    }
}

/// Takes snapshots of a tenant. The feed is read from the end that it had at the start.
pub(super) struct Watch<'a> {
    pub(super) storage: &'a TestStorage,
    tenant: &'a str,
    digests: Vec<SecretDigest>,
    /// `None` if the store has no change feed.
    cursor: Option<u64>,
    /// The keys whose feed entries are included; all keys if empty.
    keys: BTreeSet<KeyId>,
}

/// Everything that can be read of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) secrets: Vec<Holder>,
    pub(super) log: Vec<AuditEvent>,
    pub(super) changed: BTreeSet<KeyId>,
}

impl<'a> Watch<'a> {
    pub(super) async fn start(
        storage: &'a TestStorage,
        tenant: &'a str,
        digests: impl IntoIterator<Item = SecretDigest>,
    ) -> Result<Self, StoreError> {
        let digests = digests.into_iter().collect();
        let cursor = storage.mark().await?;
        Ok(Self { storage, tenant, digests, cursor, keys: BTreeSet::new() })
    }

    /// Ignores feed entries of other keys.
    pub(super) fn only(mut self, keys: &[Key]) -> Self {
        self.keys = keys.iter().map(|key| key.id).collect();
        self
    }

    pub(super) async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let within = OwnerScope::Tenant(self.tenant);
        let mut secrets = Vec::new();
        for digest in &self.digests {
            secrets.push(self.storage.holder(digest).await?);
        }
        let mut changed = self.storage.changed_since(self.cursor).await?.unwrap_or_default();
        changed.retain(|id| self.keys.is_empty() || self.keys.contains(id));
        Ok(Snapshot {
            keys: self.storage.keys(within).await?,
            secrets,
            log: self.storage.log(within).await?,
            changed,
        })
    }
}

/// Returns the events that were added to a log, or `None` if earlier events were removed or changed.
pub(super) fn added_events(log: &[AuditEvent], before: &[AuditEvent]) -> Option<Vec<AuditEvent>> {
    let new: Vec<_> = log.iter().filter(|event| !before.contains(event)).cloned().collect();
    (log.len() == before.len() + new.len()).then_some(new)
}

/// Returns the result of a future, or drops it and returns `None` if it is not ready after `polls`
/// polls. Between polls, the future waits to be woken as usual.
pub(super) async fn poll_at_most<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub(super) const MAX_POLLS: u64 = 500;
