//! What checks are made of: the test storage, races, and snapshots of a tenant.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    sync::Barrier,
    task::{JoinError, JoinSet},
};

use super::fixtures::{all_keys, event, insert_key};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        InsertOutcome, KeyStore, PreviousSecret, RotateOutcome, RotateSecret, StoreError,
        UpdateOutcome,
    },
};

/// A fact about stores, and the function that checks it.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) run: fn(TestStorage) -> RunningCheck,
}

pub(super) type RunningCheck = Pin<Box<dyn Future<Output = CheckResult> + Send>>;

/// Defines `CHECKS`, the list of a module's checks, from functions. A check has the name of its
/// function.
macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        pub(super) const CHECKS: &[super::check::Check] = &[$(super::check::Check {
            name: stringify!($check),
            run: |storage| Box::pin($check(storage)),
        }),*];
    };
}
pub(super) use checks;

/// How a check ends: well, or with the failure of the store. A false fact panics.
pub(super) type CheckResult = Result<(), StoreError>;

/// The storage of one check, and what checks ask of it all the time.
pub(super) struct TestStorage {
    handles: Vec<Arc<dyn KeyStore>>,
    turn: AtomicUsize,
    rounds: u32,
    patience: Duration,
}

impl TestStorage {
    pub(super) fn new(handles: Vec<Arc<dyn KeyStore>>, rounds: u32, patience: Duration) -> Self {
        assert!(!handles.is_empty(), "a store without a handle cannot be checked");
        Self { handles, turn: AtomicUsize::new(0), rounds, patience }
    }

    /// The next handle in turn: what was written through one is read through another.
    pub(super) fn handle(&self) -> Arc<dyn KeyStore> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.handles[turn % self.handles.len()].clone()
    }

    /// The rounds of a race. Each makes keys with numbers from `round * 1_000` on.
    pub(super) fn rounds(&self) -> impl Iterator<Item = u64> + use<> {
        1..=u64::from(self.rounds)
    }

    /// When what goes on in the background must have come to its end.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// How long something may take that must happen.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Adds a key that must fit in.
    pub(super) async fn add(&self, key: &Key, digest: &SecretDigest) -> CheckResult {
        let created = event(EventKind::Created, key, key.created_at);
        let inserted = self.handle().insert(insert_key(key, digest, None, &created)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "a new key without a limit");
        Ok(())
    }

    /// A key as it is stored now, which must be there.
    pub(super) async fn key(&self, key: &Key) -> Result<Key, StoreError> {
        let stored = self.handle().get((&key.owner).into(), key.id).await?;
        Ok(Key::clone(&stored.expect("the key is there")))
    }

    /// Writes a key over the revision that it has, which must do.
    pub(super) async fn update(&self, key: &Key, at: Timestamp) -> CheckResult {
        let updated = self.handle().update(key, &event(EventKind::Updated, key, at)).await?;
        assert_eq!(updated, UpdateOutcome::Updated, "an update of the stored revision");
        Ok(())
    }

    /// Gives a key a new secret over the revision that it has, which must do.
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

    /// Which key a digest leads to, and when that secret ends.
    pub(super) async fn holder(&self, digest: &SecretDigest) -> Result<Holder, StoreError> {
        let found = self.handle().find(std::slice::from_ref(digest)).await?;
        Ok(found.map(|found| (found.key.id, found.ends_at)))
    }

    /// All keys, newest first.
    pub(super) async fn keys(&self, within: OwnerScope<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.handle().list(&all_keys(within)).await
    }

    /// The log, newest first.
    pub(super) async fn log(&self, within: OwnerScope<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.handle().events(&AuditQuery::new(within).limit(1_000)).await
    }

    /// Where the change feed ends now.
    pub(super) async fn feed_end(&self) -> Result<u64, StoreError> {
        Ok(self.handle().changes(None).await?.cursor)
    }

    /// Which keys the change feed tells of behind a cursor, up to its end; moves the cursor there.
    pub(super) async fn follow(&self, cursor: &mut u64) -> Result<BTreeSet<KeyId>, StoreError> {
        let mut told = BTreeSet::new();
        loop {
            let page = self.handle().changes(Some(*cursor)).await?;
            assert!(!page.missed, "nothing was removed from the feed, so nothing was missed");
            assert!(page.cursor >= *cursor, "the feed goes forward");
            *cursor = page.cursor;
            told.extend(page.keys);
            if !page.more {
                return Ok(told);
            }
        }
    }
}

/// The key that a digest leads to, and when that secret ends; `None` if it leads nowhere.
pub(super) type Holder = Option<(KeyId, Option<Timestamp>)>;

/// Runs tasks at once, none of them before all are ready, and returns what they return, in order.
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
    let mut ended: Vec<(u64, T)> = Vec::new();
    while let Some(task) = running.join_next().await {
        ended.push(joined(task));
    }
    ended.sort_by_key(|(n, _)| *n);
    ended.into_iter().map(|(_, result)| result).collect()
}

/// The result of a task; its panic goes on in the task that waited for it.
pub(super) fn joined<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(aborted)) => panic!("nobody aborts tasks of the suite: {aborted}"),
    }
}

/// Watches a tenant from an instant on: its keys, its secrets, its log and what the feed tells.
pub(super) struct Watch<'a> {
    pub(super) storage: &'a TestStorage,
    tenant: &'a str,
    digests: Vec<SecretDigest>,
    cursor: u64,
    /// The keys of the tenant that the feed may tell of; all there are if empty.
    keys: BTreeSet<KeyId>,
}

/// Everything that can be seen of a tenant. Two of them are equal where no call could tell a
/// difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) secrets: Vec<Holder>,
    pub(super) log: Vec<AuditEvent>,
    pub(super) told: BTreeSet<KeyId>,
}

impl<'a> Watch<'a> {
    pub(super) async fn start(
        storage: &'a TestStorage,
        tenant: &'a str,
        digests: impl IntoIterator<Item = SecretDigest>,
    ) -> Result<Self, StoreError> {
        let digests = digests.into_iter().collect();
        let cursor = storage.feed_end().await?;
        Ok(Self { storage, tenant, digests, cursor, keys: BTreeSet::new() })
    }

    /// Disregards what the feed tells of other keys.
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
        let mut told = self.storage.follow(&mut self.cursor.clone()).await?;
        told.retain(|id| self.keys.is_empty() || self.keys.contains(id));
        Ok(Snapshot {
            keys: self.storage.keys(within).await?,
            secrets,
            log: self.storage.log(within).await?,
            told,
        })
    }
}

/// The events by which a log has grown, unless it lost or changed some of those before.
pub(super) fn added_events(log: &[AuditEvent], before: &[AuditEvent]) -> Option<Vec<AuditEvent>> {
    let new: Vec<_> = log.iter().filter(|event| !before.contains(event)).cloned().collect();
    (log.len() == before.len() + new.len()).then_some(new)
}

/// The result of a future, unless it is not ready after so many polls; then it is dropped. Between
/// the polls it waits as ever, for whatever wakes it.
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
