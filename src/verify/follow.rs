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

use crate::{
    api::{ApiKeys, Inner},
    error::Error,
    manage::{Done, Touches},
};
use crate::{model::Owner, store::KeyStore, system::lock, verify::cache::Cache};

/// Where this node is in the change feed, and the task that follows it.
#[derive(Default)]
pub(crate) struct Follower {
    /// Held while the feed is read, so that its parts are taken in their order.
    cursor: tokio::sync::Mutex<Option<u64>>,
    running: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

impl Follower {
    pub(crate) fn stop(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

impl ApiKeys {
    /// Tells all nodes that what the host says of an owner has changed: suspended or not, its
    /// permissions, its plan. When this returns, this node asks the host anew; others do so as soon
    /// as they hear of it. Without it, they do within
    /// [`max_staleness`](crate::verify::cache::options::CacheOptions::max_staleness).
    ///
    /// # Errors
    /// Those of a store that fails. This node asks anew in any case.
    pub async fn account_changed(&self, owner: &Owner) -> Result<(), Error> {
        let (store, at) = (self.inner.store.clone(), self.inner.now());
        let touches = Touches::Owner(owner.clone());
        let owner = owner.clone();
        let write = async move {
            store.announce_account_change(&owner, at).await?;
            Ok(Done::nothing(()))
        };
        self.inner.change(touches, write).await
    }

    /// Waits until this node has heard of everything that other nodes had done when it was called.
    /// It hears of it by itself, usually within milliseconds; this is for those who were told of a
    /// change in another way and must not be faster than it.
    ///
    /// # Errors
    /// Those of a store that fails.
    pub async fn catch_up(&self) -> Result<(), Error> {
        match &self.inner.cache {
            Some(cache) => self.inner.read_feed(cache).await.map(drop),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Starts to follow the change feed, unless that runs. Outside of a runtime, entries are
    /// believed within the bound and no longer.
    #[inline]
    pub(crate) fn ensure_follower(self: &Arc<Self>) {
        if !self.follower.running.load(Ordering::Relaxed) {
            self.start_follower();
        }
    }

    #[cold]
    fn start_follower(self: &Arc<Self>) {
        let (Some(cache), Ok(runtime)) = (&self.cache, Handle::try_current()) else { return };
        if !self.is_shut_down() && !self.follower.running.swap(true, Ordering::AcqRel) {
            let inner = Arc::downgrade(self);
            let running = Running { inner: inner.clone(), flag: self.follower.running.clone() };
            let pace = Pace::of(cache.max_staleness());
            let task = runtime.spawn(follow(inner, self.store.clone(), pace, running));
            *lock(&self.follower.task) = Some(task.abort_handle());
        }
    }

    /// Takes in all that the feed has, and answers where it ended.
    async fn read_feed(&self, cache: &Cache) -> Result<u64, Error> {
        let mut cursor = self.follower.cursor.lock().await;
        loop {
            let began = self.glance().tick;
            let changes = self.store.changes(*cursor).await?;
            if cursor.is_none() || changes.missed {
                cache.forget_all();
            }
            for id in &changes.keys {
                cache.forget_key(*id);
            }
            *cursor = Some(changes.cursor);
            if !changes.more {
                cache.freshness().synced(began);
                return Ok(changes.cursor);
            }
        }
    }
}

async fn follow(inner: Weak<Inner>, store: Arc<dyn KeyStore>, pace: Pace, _running: Running) {
    loop {
        let read = {
            let Some(inner) = inner.upgrade() else { return };
            let Some(cache) = &inner.cache else { return };
            timeout(pace.patience, inner.read_feed(cache)).await
        };
        let waited = match read {
            // Nothing of `inner` is held while it waits, which is most of the time.
            Ok(Ok(cursor)) => {
                let wait = store.wait_for_changes(cursor, pace.interval);
                timeout(pace.interval + pace.patience, wait).await.ok().and_then(Result::ok)
            }
            Ok(Err(_)) | Err(_) => None,
        };
        {
            let Some(inner) = inner.upgrade() else { return };
            let Some(cache) = &inner.cache else { return };
            match waited {
                Some(feed) => cache.freshness().waited(feed),
                None => cache.freshness().failed(),
            }
        }
        if waited.is_none() {
            sleep(pace.retry).await;
        }
    }
}

/// How often the feed is looked at, derived from the bound.
#[derive(Clone, Copy)]
struct Pace {
    /// Without news, so often.
    interval: Duration,
    /// How long an answer may take.
    patience: Duration,
    /// After a failure, so soon.
    retry: Duration,
}

impl Pace {
    fn of(max_staleness: Duration) -> Self {
        let at_least = Duration::from_millis(10);
        Self {
            interval: (max_staleness / 4).max(at_least),
            patience: (max_staleness / 2).max(at_least),
            retry: (max_staleness / 20).max(at_least),
        }
    }
}

/// When the runtime takes the task down with it, the next miss starts another.
struct Running {
    inner: Weak<Inner>,
    flag: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(cache) = self.inner.upgrade().as_ref().and_then(|inner| inner.cache.as_ref()) {
            cache.freshness().stopped();
        }
        self.flag.store(false, Ordering::Release);
    }
}
