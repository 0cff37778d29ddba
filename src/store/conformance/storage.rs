use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::Barrier,
    task::{JoinError, JoinSet},
};

use super::sample::{event, every, row};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        InsertOutcome, KeyStore, PreviousSecret, RotateOutcome, RotateSecret, StoreError,
        UpdateOutcome,
    },
};

/// How a check ends: well, or with the failure of the store. A false fact panics.
pub(super) type Checked = Result<(), StoreError>;

/// The storage of one check, and what checks ask of it all the time.
pub(super) struct Storage {
    handles: Vec<Arc<dyn KeyStore>>,
    turn: AtomicUsize,
    rounds: u32,
    patience: Duration,
}

impl Storage {
    pub(super) fn new(handles: Vec<Arc<dyn KeyStore>>, rounds: u32, patience: Duration) -> Self {
        assert!(!handles.is_empty(), "a store without a handle cannot be checked");
        Self { handles, turn: AtomicUsize::new(0), rounds, patience }
    }

    /// The next handle in turn: what was written through one is read through another.
    pub(super) fn any(&self) -> Arc<dyn KeyStore> {
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
    pub(super) async fn add(&self, key: &Key, digest: &SecretDigest) -> Checked {
        let created = event(EventKind::Created, key, key.created_at);
        let inserted = self.any().insert(row(key, digest, None, &created)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "a new key without a limit");
        Ok(())
    }

    /// A key as it is stored now, which must be there.
    pub(super) async fn key(&self, key: &Key) -> Result<Key, StoreError> {
        let stored = self.any().get((&key.owner).into(), key.id).await?;
        Ok(Key::clone(&stored.expect("the key is there")))
    }

    /// Writes a key over the revision that it has, which must do.
    pub(super) async fn update(&self, key: &Key, at: Timestamp) -> Checked {
        let updated = self.any().update(key, &event(EventKind::Updated, key, at)).await?;
        assert_eq!(updated, UpdateOutcome::Updated, "an update of the stored revision");
        Ok(())
    }

    /// Gives a key a new secret over the revision that it has, which must do.
    pub(super) async fn rotate(
        &self,
        key: &Key,
        to: &SecretDigest,
        previous: PreviousSecret,
    ) -> Checked {
        let rotated = event(EventKind::Rotated, key, key.created_at);
        let hint = format!("{}r", key.hint);
        let rotate =
            RotateSecret { key, digest: to, hint: &hint, previous, token: None, event: &rotated };
        let rotated = self.any().rotate(rotate).await?;
        assert_eq!(rotated, RotateOutcome::Rotated, "a rotation of the stored revision");
        Ok(())
    }

    /// Which key a digest leads to, and when that secret ends.
    pub(super) async fn holder(&self, digest: &SecretDigest) -> Result<Holder, StoreError> {
        let found = self.any().find(std::slice::from_ref(digest)).await?;
        Ok(found.map(|found| (found.key.id, found.ends_at)))
    }

    /// All keys, newest first.
    pub(super) async fn keys(&self, within: OwnerScope<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        self.any().list(&every(within)).await
    }

    /// The log, newest first.
    pub(super) async fn log(&self, within: OwnerScope<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        self.any().events(&AuditQuery::new(within).limit(1_000)).await
    }

    /// Where the change feed ends now.
    pub(super) async fn feed_end(&self) -> Result<u64, StoreError> {
        Ok(self.any().changes(None).await?.cursor)
    }

    /// Which keys the change feed tells of behind a cursor, up to its end; moves the cursor there.
    pub(super) async fn follow(&self, cursor: &mut u64) -> Result<BTreeSet<KeyId>, StoreError> {
        let mut told = BTreeSet::new();
        loop {
            let page = self.any().changes(Some(*cursor)).await?;
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
        ended.push(sound(task));
    }
    ended.sort_by_key(|(n, _)| *n);
    ended.into_iter().map(|(_, result)| result).collect()
}

/// The result of a task; its panic goes on in the task that waited for it.
pub(super) fn sound<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(aborted)) => panic!("nobody aborts tasks of the suite: {aborted}"),
    }
}
