use std::{sync::atomic::Ordering, time::Duration};

use crate::verify::FeedState;
use crate::{api::ApiKeys, error::Error};

/// How this node is doing: for health checks and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// How this node learns of the changes that others make.
    pub feed: FeedState,
    /// How old this node's knowledge of such changes is; `None` if it has none yet. Beyond
    /// [`max_staleness`](crate::verify::CacheOptions::max_staleness), nothing is answered from
    /// memory that was read before.
    pub staleness: Option<Duration>,
    /// How many keys are in memory.
    pub cached_keys: usize,
    /// How many digests are in memory that belong to no key.
    pub cached_unknown: usize,
    /// How many keys were used without that being written yet.
    pub unwritten_uses: usize,
    /// How many events of refused attempts the store has failed to take so far.
    pub unwritten_events: usize,
    /// How often cleaning up or writing reminders has failed since this node started. What fails is
    /// done in another hour, by whichever node.
    pub failed_jobs: usize,
    /// By how much the clock of the machine was set back since this node started. Until it has
    /// caught up, time stands still here: what was over stays over.
    pub clock_set_back: Duration,
}

impl ApiKeys {
    /// How this node is doing. Asks nobody, and never waits.
    pub fn health(&self) -> Health {
        let inner = &self.inner;
        let moment = inner.clock.moment();
        let tick = inner.glance().tick;
        let cache = inner.cache.as_ref();
        let (cached_keys, cached_unknown) = cache.map_or((0, 0), |cache| cache.len());
        Health {
            feed: cache.map_or(FeedState::Idle, |cache| cache.state(tick)),
            staleness: cache.and_then(|cache| cache.staleness(tick)),
            cached_keys,
            cached_unknown,
            unwritten_uses: inner.outbox.usage.len(),
            unwritten_events: inner.outbox.unwritten(),
            failed_jobs: inner.failed_jobs.load(Ordering::Relaxed),
            clock_set_back: inner.ratchet.ahead_of(moment.at),
        }
    }

    /// Ends the work in the background and writes what is left to be written: for the end of a
    /// service. Verifications still work after it, but write nothing by themselves.
    ///
    /// # Errors
    /// Those of a store that fails; then it can be called again.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.inner.shut_down();
        self.flush().await
    }
}
