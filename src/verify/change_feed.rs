use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::cache::Cache;
use crate::{
    error::Error,
    store::KeyStore,
    system::{NodeClock, lock},
};

/// Follows the store's change feed, and invalidates in the cache what other nodes changed.
pub(crate) struct ChangeFeed {
    store: Arc<dyn KeyStore>,
    cache: Arc<Cache>,
    clock: Arc<NodeClock>,
    /// The position up to which the feed was read. Held while it is read, so that entries are taken in order.
    cursor: tokio::sync::Mutex<Option<u64>>,
    stopped: AtomicBool,
    running: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

impl ChangeFeed {
    pub(crate) fn new(store: Arc<dyn KeyStore>, cache: Arc<Cache>, clock: Arc<NodeClock>) -> Self {
        Self {
            store,
            cache,
            clock,
            cursor: tokio::sync::Mutex::default(),
            stopped: AtomicBool::new(false),
            running: Arc::default(),
            task: Mutex::default(),
        }
    }

    /// Starts the task that follows the feed, unless it runs. Outside of a runtime, or without a cache, nothing is
    /// followed, and entries are trusted within `max_staleness`.
    #[inline]
    pub(crate) fn ensure_running(self: &Arc<Self>) {
        if !self.running.load(Ordering::Relaxed) && self.cache.is_enabled {
            self.start();
        }
    }

    #[cold]
    fn start(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.stopped.load(Ordering::Acquire) && !self.running.swap(true, Ordering::AcqRel) {
            let feed = Arc::downgrade(self);
            let running = Running { feed: feed.clone(), flag: self.running.clone() };
            let bound = self.cache.max_staleness;
            let task = runtime.spawn(follow(feed, self.store.clone(), bound, running));
            *lock(&self.task) = Some(task.abort_handle());
            // `stop` may have come before there was a task to abort.
            if self.stopped.load(Ordering::Acquire) {
                self.abort();
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.abort();
    }

    fn abort(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }

    /// Reads the feed to its end and invalidates what it names. Returns the position of the end.
    pub(crate) async fn read_to_end(&self) -> Result<u64, Error> {
        let mut cursor = self.cursor.lock().await;
        loop {
            // Before the read: what is committed during it may be missing from the answer.
            let began = self.clock.coarse_now().monotonic;
            let changes = self.store.changes(*cursor).await?;
            if cursor.is_none() || changes.missed {
                self.cache.invalidate_all();
            }
            for id in &changes.keys {
                self.cache.invalidate_key(*id);
            }
            *cursor = Some(changes.cursor);
            if !changes.more {
                self.cache.freshness.synced(began);
                return Ok(changes.cursor);
            }
        }
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.abort();
    }
}

async fn follow(
    feed: Weak<ChangeFeed>,
    store: Arc<dyn KeyStore>,
    max_staleness: Duration,
    _running: Running,
) {
    let part = |of: u32| (max_staleness / of).max(Duration::from_millis(10));
    let (answer_timeout, longest_wait, retry_pause) = (part(2), part(4), part(20));
    loop {
        let read = {
            let Some(feed) = feed.upgrade() else { return };
            timeout(answer_timeout, feed.read_to_end()).await
        };
        let waited = match read {
            // The feed is not kept alive while the task waits, which is most of the time.
            Ok(Ok(cursor)) => {
                let wait = store.wait_for_changes(cursor, longest_wait);
                timeout(longest_wait + answer_timeout, wait).await.ok().and_then(Result::ok)
            }
            Ok(Err(_)) | Err(_) => None,
        };
        {
            let Some(feed) = feed.upgrade() else { return };
            match waited {
                Some(mode) => feed.cache.freshness.waited(mode),
                None => feed.cache.freshness.failed(),
            }
        }
        if waited.is_none() {
            sleep(retry_pause).await;
        }
    }
}

/// Marks the task as running. If the runtime drops the task, the next cache miss starts another one.
struct Running {
    feed: Weak<ChangeFeed>,
    flag: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.upgrade() {
            feed.cache.freshness.stopped();
        }
        self.flag.store(false, Ordering::Release);
    }
}
