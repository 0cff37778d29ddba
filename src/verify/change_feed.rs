use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{background::BackgroundTask, cache::Cache};
use crate::{error::Error, store::KeyStore, system::NodeClock};

/// Follows the store's change feed, and invalidates in the cache what other nodes changed.
pub(crate) struct ChangeFeed {
    store: Arc<dyn KeyStore>,
    cache: Arc<Cache>,
    clock: Arc<NodeClock>,
    /// The position up to which the feed was read. Held while it is read, so that entries are taken in order.
    cursor: tokio::sync::Mutex<Option<u64>>,
    task: BackgroundTask,
}

impl ChangeFeed {
    pub(crate) fn new(store: Arc<dyn KeyStore>, cache: Arc<Cache>, clock: Arc<NodeClock>) -> Self {
        let (cursor, task) = (tokio::sync::Mutex::default(), BackgroundTask::default());
        Self { store, cache, clock, cursor, task }
    }

    /// Starts the task that follows the feed, unless it runs. Outside of a runtime, or without a cache, nothing is
    /// followed, and entries are trusted within `max_staleness`.
    #[inline]
    pub(crate) fn ensure_running(self: &Arc<Self>) {
        if self.cache.is_enabled {
            self.task.ensure_running(|| {
                let following = Following(self.cache.clone());
                follow(Arc::downgrade(self), self.store.clone(), following)
            });
        }
    }

    pub(crate) fn stop(&self) {
        self.task.stop();
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

async fn follow(feed: Weak<ChangeFeed>, store: Arc<dyn KeyStore>, following: Following) {
    let cache = &following.0;
    let part = |of: u32| (cache.max_staleness / of).max(Duration::from_millis(10));
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
        match waited {
            Some(mode) => cache.freshness.waited(mode),
            None => {
                cache.freshness.failed();
                sleep(retry_pause).await;
            }
        }
    }
}

/// Records in the cache that the feed is not followed any more, when it is dropped with the task.
struct Following(Arc<Cache>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.freshness.stopped();
    }
}
