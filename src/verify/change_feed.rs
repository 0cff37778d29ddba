use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    background::BackgroundTask,
    cache::{Cache, FeedState},
    checked_clock::CheckedClock,
};
use crate::{
    error::Error,
    store::{ChangeFeed, KeyStore},
};

/// Follows the store's change feed, and invalidates in the cache what other nodes changed.
///
/// Of a store without a change feed, nothing is followed, and entries are trusted within `max_staleness`.
pub(crate) struct FeedFollower {
    store: Arc<dyn KeyStore>,
    cache: Arc<Cache>,
    clock: Arc<CheckedClock>,
    /// The position up to which the feed was read. Held while it is read, so that entries are taken in order.
    cursor: tokio::sync::Mutex<Option<u64>>,
    task: BackgroundTask,
}

impl FeedFollower {
    pub(crate) fn new(
        store: Arc<dyn KeyStore>,
        cache: Arc<Cache>,
        clock: Arc<CheckedClock>,
    ) -> Self {
        let (cursor, task) = (tokio::sync::Mutex::default(), BackgroundTask::default());
        Self { store, cache, clock, cursor, task }
    }

    /// Starts the task that follows the feed, unless it runs. Outside of a runtime, or without a cache, nothing is
    /// followed, and entries are trusted within `max_staleness`.
    #[inline]
    pub(crate) fn ensure_running(self: &Arc<Self>) {
        if self.cache.is_enabled && self.store.change_feed().is_some() {
            self.task.ensure_running(|| {
                let following = Following(self.cache.clone());
                follow(Arc::downgrade(self), self.store.clone(), following)
            });
        }
    }

    pub(crate) fn stop(&self) {
        self.task.stop();
    }

    /// Makes the cache trust nothing that another node has changed before this was called.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        match self.store.change_feed() {
            _ if !self.cache.is_enabled => Ok(()),
            Some(feed) => self.read_to_end(feed).await.map(drop),
            None => {
                self.cache.invalidate_all();
                Ok(())
            }
        }
    }

    /// Returns the state of the feed, at an instant of the monotonic clock.
    pub(crate) fn state(&self, now: u64) -> FeedState {
        match self.store.change_feed() {
            Some(_) => self.cache.feed_state(now),
            None => FeedState::NotSupported,
        }
    }

    /// Reads the feed to its end and invalidates what it names. Returns the position of the end.
    async fn read_to_end(&self, feed: &dyn ChangeFeed) -> Result<u64, Error> {
        let mut cursor = self.cursor.lock().await;
        loop {
            // Before the read: what is committed during it may be missing from the answer.
            let began = self.clock.coarse_now().cache_time;
            let changes = feed.changes(*cursor).await?;
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

async fn follow(follower: Weak<FeedFollower>, store: Arc<dyn KeyStore>, following: Following) {
    let Some(feed) = store.change_feed() else { return };
    let cache = &following.0;
    let part = |of: u32| (cache.max_staleness / of).max(Duration::from_millis(10));
    let (answer_timeout, longest_wait, retry_pause) = (part(2), part(4), part(20));
    loop {
        let read = {
            let Some(follower) = follower.upgrade() else { return };
            timeout(answer_timeout, follower.read_to_end(feed)).await
        };
        let waited = match read {
            // The follower is not kept alive while the task waits, which is most of the time.
            Ok(Ok(cursor)) => {
                let wait = feed.wait_for_changes(cursor, longest_wait);
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
