use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use super::{FoundKey, StoreError, timed_out::TimedOut};
use crate::{secret::SecretDigest, system::lock};

/// A server that can be asked for many digests at once.
pub(super) trait Source: Send + Sync + 'static {
    /// What it is called where it does not answer.
    const NAME: &'static str;

    /// How many questions are on their way at the same time: few make each of them larger.
    const AT_ONCE: usize;

    /// For how long a call may keep its caller waiting.
    fn limit(&self) -> Duration;

    /// What is stored under these digests, each at most once. A record that cannot be read is its
    /// own caller's error, and not that of those who asked together with him.
    fn ask(
        &self,
        digests: &[SecretDigest],
    ) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;
}

/// What is stored under a digest.
pub(super) type Record = (SecretDigest, Answer);

type Answer = Result<Option<FoundKey>, StoreError>;

type Records = HashMap<SecretDigest, Answer>;

/// Look-ups by digest. One that comes alone goes at once; those that come while enough questions
/// are on their way wait, and share the next one.
pub(super) struct Coalesced<S> {
    source: S,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    questions: usize,
}

struct Waiting {
    digests: Vec<SecretDigest>,
    answer: oneshot::Sender<Answer>,
}

impl<S: Source> Coalesced<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, queue: Mutex::default() }
    }

    pub(super) async fn find(self: &Arc<Self>, digests: &[SecretDigest]) -> Answer {
        if digests.is_empty() {
            return Ok(None);
        }
        let waiting = match self.begin(digests) {
            Ok(_place) => return pick(&self.ask(digests).await?, digests),
            Err(waiting) => waiting,
        };
        match timeout(self.source.limit(), waiting).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::unavailable("the runtime is shutting down")),
            Err(_) => Err(StoreError::unavailable(TimedOut(S::NAME, self.source.limit()))),
        }
    }

    /// A place for a question of its own, or one in the queue.
    fn begin(
        self: &Arc<Self>,
        digests: &[SecretDigest],
    ) -> Result<Place<S>, oneshot::Receiver<Answer>> {
        let mut queue = lock(&self.queue);
        if queue.questions < S::AT_ONCE {
            queue.questions += 1;
            return Ok(Place(self.clone()));
        }
        let (answer, answered) = oneshot::channel();
        queue.waiting.push_back(Waiting { digests: digests.to_vec(), answer });
        Err(answered)
    }

    async fn ask(&self, digests: &[SecretDigest]) -> Result<Records, StoreError> {
        self.source.ask(digests).await.map(Records::from_iter)
    }

    /// The next ones to ask for, together. `None` if nobody waits.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = lock(&self.queue);
        let some = queue.waiting.len().min(MAX_BATCH);
        let batch: Vec<_> = queue.waiting.drain(..some).collect();
        (!batch.is_empty()).then_some(batch)
    }
}

/// What there is for one of several candidates: the first that is there.
fn pick(records: &Records, digests: &[SecretDigest]) -> Answer {
    digests.iter().find_map(|digest| records.get(digest)).cloned().unwrap_or(Ok(None))
}

/// One of the questions that may be on their way at the same time.
struct Place<S: Source>(Arc<Coalesced<S>>);

impl<S: Source> Place<S> {
    /// Asks for all who wait, until nobody does.
    async fn serve(self) {
        while let Some(mut batch) = self.0.next() {
            // Whoever does not wait any more is not asked for.
            batch.retain(|waiting| !waiting.answer.is_closed());
            if batch.is_empty() {
                continue;
            }
            let digests: Vec<SecretDigest> =
                batch.iter().flat_map(|w| &w.digests).copied().collect();
            let records = self.0.ask(&digests).await;
            for Waiting { digests, answer } in batch {
                let records = records.as_ref().map_err(StoreError::clone);
                // Nor is it an error that it went away meanwhile.
                let _ = answer.send(records.and_then(|records| pick(records, &digests)));
            }
        }
    }
}

/// Whoever had the place may have gone away in the midst of it: those who wait are served by a task
/// that nobody can drop.
impl<S: Source> Drop for Place<S> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        match Handle::try_current() {
            Ok(runtime) if !queue.waiting.is_empty() => {
                drop(runtime.spawn(Self(self.0.clone()).serve()));
            }
            _ => queue.questions -= 1,
        }
    }
}

const MAX_BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;
    use crate::{
        secret::{Hasher, Sha256Hasher},
        store::StoreErrorKind,
    };

    /// Answers when the gate is opened, and keeps the questions.
    struct Gated {
        gate: Semaphore,
        asked: Mutex<Vec<usize>>,
        damaged: SecretDigest,
        down: std::sync::atomic::AtomicBool,
    }

    impl Source for Arc<Gated> {
        const NAME: &'static str = "the test";
        const AT_ONCE: usize = 1;

        fn limit(&self) -> Duration {
            Duration::from_secs(60)
        }

        async fn ask(&self, digests: &[SecretDigest]) -> Result<Vec<Record>, StoreError> {
            lock(&self.asked).push(digests.len());
            self.gate.acquire().await.expect("it stays open").forget();
            if self.down.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(StoreError::unavailable("down"));
            }
            let answer = |digest: &SecretDigest| match *digest == self.damaged {
                true => Err(StoreError::corrupt("damaged")),
                false => Ok(None),
            };
            Ok(digests.iter().map(|digest| (*digest, answer(digest))).collect())
        }
    }

    type Lookups = Arc<Coalesced<Arc<Gated>>>;

    /// One that is on its way, and nine that wait.
    async fn ten(source: &Arc<Gated>, lookups: &Lookups) -> (JoinSet<Answer>, JoinSet<Answer>) {
        let (mut first, mut others) = (JoinSet::new(), JoinSet::new());
        let look = |n: u8| {
            let lookups = lookups.clone();
            async move { lookups.find(&[Sha256Hasher.digest(&[n])]).await }
        };
        first.spawn(look(0));
        while lock(&source.asked).is_empty() {
            tokio::task::yield_now().await;
        }
        (1..10).for_each(|n| drop(others.spawn(look(n))));
        while lock(&lookups.queue).waiting.len() < 9 {
            tokio::task::yield_now().await;
        }
        (first, others)
    }

    fn gated() -> (Arc<Gated>, Lookups) {
        let source = Arc::new(Gated {
            gate: Semaphore::new(0),
            asked: Mutex::default(),
            damaged: Sha256Hasher.digest(&[7]),
            down: false.into(),
        });
        (source.clone(), Arc::new(Coalesced::new(source)))
    }

    #[tokio::test]
    async fn those_who_come_meanwhile_share_one_question_and_a_damaged_record_is_one_callers() {
        let (source, lookups) = gated();
        let (first, others) = ten(&source, &lookups).await;
        source.gate.add_permits(2);
        assert!(first.join_all().await.iter().all(|answer| matches!(answer, Ok(None))));
        let answers = others.join_all().await;
        assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(None))).count(), 8);
        assert_eq!(*lock(&source.asked), [1, 9]);
        // And who comes alone then goes at once.
        source.gate.add_permits(1);
        assert!(lookups.find(&[Sha256Hasher.digest(b"later")]).await.is_ok());
        assert_eq!(*lock(&source.asked), [1, 9, 1]);
    }

    #[tokio::test]
    async fn whoever_asks_for_others_may_go_away() {
        let (source, lookups) = gated();
        let (mut first, others) = ten(&source, &lookups).await;
        first.shutdown().await;
        source.gate.add_permits(1);
        assert_eq!(others.join_all().await.len(), 9);
        assert_eq!(*lock(&source.asked), [1, 9]);
    }

    #[tokio::test]
    async fn a_question_that_fails_is_everyones_who_asked_it_and_nobody_elses() {
        let (source, lookups) = gated();
        source.down.store(true, std::sync::atomic::Ordering::SeqCst);
        let (first, others) = ten(&source, &lookups).await;
        source.gate.add_permits(2);
        for answer in first.join_all().await.into_iter().chain(others.join_all().await) {
            assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::Unavailable);
        }
        source.down.store(false, std::sync::atomic::Ordering::SeqCst);
        source.gate.add_permits(1);
        assert!(lookups.find(&[Sha256Hasher.digest(b"later")]).await.is_ok());
    }
}
