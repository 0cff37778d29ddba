//! Coalesces concurrent lookups by digest into batched queries.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use super::{FoundKey, StoreError, error::TimedOut};
use crate::{secret::SecretDigest, system::lock};

/// A server that can look up many digests in one query.
pub(super) trait LookupSource: Send + Sync + 'static {
    /// The server's name in error messages.
    const NAME: &'static str;

    /// The maximum number of concurrent queries. A small number makes each batch larger.
    const MAX_IN_FLIGHT: usize;

    /// Returns how long a caller may wait.
    fn timeout(&self) -> Duration;

    /// Returns the records stored under these digests, each at most once.
    ///
    /// A record that cannot be read is an error in its own [`LookupRecord`], so that it does not
    /// fail the other lookups of the batch.
    fn look_up(
        &self,
        digests: &[SecretDigest],
    ) -> impl Future<Output = Result<Vec<LookupRecord>, StoreError>> + Send;
}

/// A digest and the key stored under it.
pub(super) type LookupRecord = (SecretDigest, LookupResult);

type LookupResult = Result<Option<FoundKey>, StoreError>;

type Records = HashMap<SecretDigest, LookupResult>;

/// Runs a lookup immediately while fewer than [`MAX_IN_FLIGHT`](LookupSource::MAX_IN_FLIGHT)
/// queries are in flight. Further lookups are queued, and the next query takes them as one batch.
pub(super) struct CoalescedLookups<S> {
    source: S,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    lookups: VecDeque<QueuedLookup>,
    in_flight: usize,
}

struct QueuedLookup {
    digests: Vec<SecretDigest>,
    result: oneshot::Sender<LookupResult>,
}

impl<S: LookupSource> CoalescedLookups<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, queue: Mutex::default() }
    }

    pub(super) async fn find(self: &Arc<Self>, digests: &[SecretDigest]) -> LookupResult {
        if digests.is_empty() {
            return Ok(None);
        }
        let queued = match self.acquire_or_enqueue(digests) {
            Ok(_permit) => return first_match(&self.query(digests).await?, digests),
            Err(queued) => queued,
        };
        match timeout(self.source.timeout(), queued).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::unavailable("the runtime is shutting down")),
            Err(_) => Err(StoreError::unavailable(TimedOut(S::NAME, self.source.timeout()))),
        }
    }

    /// Returns a permit for a query of its own, or the receiver of a queued lookup.
    fn acquire_or_enqueue(
        self: &Arc<Self>,
        digests: &[SecretDigest],
    ) -> Result<QueryPermit<S>, oneshot::Receiver<LookupResult>> {
        let mut queue = lock(&self.queue);
        if queue.in_flight < S::MAX_IN_FLIGHT {
            queue.in_flight += 1;
            return Ok(QueryPermit(self.clone()));
        }
        let (result, receiver) = oneshot::channel();
        queue.lookups.push_back(QueuedLookup { digests: digests.to_vec(), result });
        Err(receiver)
    }

    async fn query(&self, digests: &[SecretDigest]) -> Result<Records, StoreError> {
        self.source.look_up(digests).await.map(Records::from_iter)
    }

    /// Takes the next batch of queued lookups, or `None` if the queue is empty.
    fn next_batch(&self) -> Option<Vec<QueuedLookup>> {
        let mut queue = lock(&self.queue);
        let count = queue.lookups.len().min(MAX_BATCH);
        let batch: Vec<_> = queue.lookups.drain(..count).collect();
        (!batch.is_empty()).then_some(batch)
    }
}

/// Returns the record of the first candidate that has one.
fn first_match(records: &Records, digests: &[SecretDigest]) -> LookupResult {
    digests.iter().find_map(|digest| records.get(digest)).cloned().unwrap_or(Ok(None))
}

/// The right to run one of the concurrent queries.
struct QueryPermit<S: LookupSource>(Arc<CoalescedLookups<S>>);

impl<S: LookupSource> QueryPermit<S> {
    /// Runs queries until the queue is empty.
    async fn drain_queue(self) {
        while let Some(mut batch) = self.0.next_batch() {
            // Skip lookups whose caller was dropped.
            batch.retain(|lookup| !lookup.result.is_closed());
            if batch.is_empty() {
                continue;
            }
            let digests: Vec<SecretDigest> =
                batch.iter().flat_map(|lookup| &lookup.digests).copied().collect();
            let records = self.0.query(&digests).await;
            for QueuedLookup { digests, result } in batch {
                let records = records.as_ref().map_err(StoreError::clone);
                // Sending fails if the caller was dropped in the meantime, which is not an error.
                let _ = result.send(records.and_then(|records| first_match(records, &digests)));
            }
        }
    }
}

/// Hands the permit to a task that serves the queue. A spawned task cannot be cancelled by a caller
/// that is dropped in the middle of its query.
impl<S: LookupSource> Drop for QueryPermit<S> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        match Handle::try_current() {
            Ok(runtime) if !queue.lookups.is_empty() => {
                drop(runtime.spawn(Self(self.0.clone()).drain_queue()));
            }
            _ => queue.in_flight -= 1,
        }
    }
}

const MAX_BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;
    use crate::{
        secret::{Hasher, Sha256Hasher},
        store::StoreErrorKind,
    };

    /// Answers a query when the gate has a permit, and records the size of each query.
    struct GatedSource {
        gate: Semaphore,
        query_sizes: Mutex<Vec<usize>>,
        damaged: SecretDigest,
        down: AtomicBool,
    }

    impl LookupSource for Arc<GatedSource> {
        const NAME: &'static str = "the test";
        const MAX_IN_FLIGHT: usize = 1;

        fn timeout(&self) -> Duration {
            Duration::from_secs(60)
        }

        async fn look_up(&self, digests: &[SecretDigest]) -> Result<Vec<LookupRecord>, StoreError> {
            lock(&self.query_sizes).push(digests.len());
            self.gate.acquire().await.expect("the gate is never closed").forget();
            if self.down.load(Ordering::SeqCst) {
                return Err(StoreError::unavailable("down"));
            }
            let result = |digest: &SecretDigest| match *digest == self.damaged {
                true => Err(StoreError::corrupt("damaged")),
                false => Ok(None),
            };
            Ok(digests.iter().map(|digest| (*digest, result(digest))).collect())
        }
    }

    type Lookups = Arc<CoalescedLookups<Arc<GatedSource>>>;

    /// Starts one lookup that is in flight, and nine that are queued.
    async fn start_ten(
        source: &Arc<GatedSource>,
        lookups: &Lookups,
    ) -> (JoinSet<LookupResult>, JoinSet<LookupResult>) {
        let (mut first, mut others) = (JoinSet::new(), JoinSet::new());
        let look_up = |n: u8| {
            let lookups = lookups.clone();
            async move { lookups.find(&[Sha256Hasher.digest(&[n])]).await }
        };
        first.spawn(look_up(0));
        while lock(&source.query_sizes).is_empty() {
            tokio::task::yield_now().await;
        }
        (1..10).for_each(|n| drop(others.spawn(look_up(n))));
        while lock(&lookups.queue).lookups.len() < 9 {
            tokio::task::yield_now().await;
        }
        (first, others)
    }

    fn gated() -> (Arc<GatedSource>, Lookups) {
        let source = Arc::new(GatedSource {
            gate: Semaphore::new(0),
            query_sizes: Mutex::default(),
            damaged: Sha256Hasher.digest(&[7]),
            down: false.into(),
        });
        (source.clone(), Arc::new(CoalescedLookups::new(source)))
    }

    #[tokio::test]
    async fn queued_lookups_share_one_query_and_a_damaged_record_fails_only_its_own_lookup() {
        let (source, lookups) = gated();
        let (first, others) = start_ten(&source, &lookups).await;
        source.gate.add_permits(2);
        assert!(first.join_all().await.iter().all(|result| matches!(result, Ok(None))));
        let results = others.join_all().await;
        assert_eq!(results.iter().filter(|result| matches!(result, Ok(None))).count(), 8);
        assert_eq!(*lock(&source.query_sizes), [1, 9]);
        // Afterwards, a single lookup is not queued.
        source.gate.add_permits(1);
        assert!(lookups.find(&[Sha256Hasher.digest(b"later")]).await.is_ok());
        assert_eq!(*lock(&source.query_sizes), [1, 9, 1]);
    }

    #[tokio::test]
    async fn queued_lookups_are_served_after_the_running_caller_is_dropped() {
        let (source, lookups) = gated();
        let (mut first, others) = start_ten(&source, &lookups).await;
        first.shutdown().await;
        source.gate.add_permits(1);
        assert_eq!(others.join_all().await.len(), 9);
        assert_eq!(*lock(&source.query_sizes), [1, 9]);
    }

    #[tokio::test]
    async fn a_failed_query_fails_its_own_lookups_and_no_later_ones() {
        let (source, lookups) = gated();
        source.down.store(true, Ordering::SeqCst);
        let (first, others) = start_ten(&source, &lookups).await;
        source.gate.add_permits(2);
        for result in first.join_all().await.into_iter().chain(others.join_all().await) {
            assert_eq!(result.unwrap_err().kind(), StoreErrorKind::Unavailable);
        }
        source.down.store(false, Ordering::SeqCst);
        source.gate.add_permits(1);
        assert!(lookups.find(&[Sha256Hasher.digest(b"later")]).await.is_ok());
    }
}
