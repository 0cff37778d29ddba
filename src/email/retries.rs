use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::trouble;

/// How often, how patiently, and how many at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempts: u32,
    pub(super) pause: Duration,
    pub(super) attempt: Duration,
    pub(super) waiting: u32,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub(super) struct Failure {
    cause: Box<dyn Error + Send + Sync>,
    /// The same letter would be refused again.
    for_good: bool,
}

/// A letter was sent, or there is nobody to write to.
pub(super) enum Sent {
    Sent,
    Nobody,
}

/// The letters that wait, and what became of the others.
#[derive(Debug)]
pub(super) struct Retries {
    patience: Patience,
    room: Arc<Semaphore>,
    turns: Semaphore,
    pub(super) counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// A letter's place among those that wait. Wherever its way ends, it is counted.
pub(super) struct Place {
    counts: Arc<Counts>,
    settled: bool,
    _room: OwnedSemaphorePermit,
}

impl Failure {
    pub(super) fn for_now(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: cause.into(), for_good: false }
    }

    pub(super) fn for_good(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: cause.into(), for_good: true }
    }
}

impl Retries {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            room: Arc::new(Semaphore::new(patience.waiting as usize)),
            turns: Semaphore::new(AT_ONCE),
            counts: Arc::default(),
        }
    }

    /// A place for one more letter, unless too many wait already. Without one, it is lost.
    pub(super) fn place(&self) -> Option<Place> {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            trouble::tell_full();
            return None;
        };
        Some(Place { counts: self.counts.clone(), settled: false, _room: room })
    }

    /// Tries until it succeeds, will never succeed, or was tried often enough.
    pub(super) async fn run<F: Future<Output = Result<Sent, Failure>>>(
        &self,
        mut place: Place,
        attempt: impl Fn() -> F,
    ) -> Result<(), Failure> {
        let mut pause = self.patience.pause;
        for n in 1.. {
            let failure = match self.once(attempt()).await {
                Ok(sent) => {
                    let sent = u64::from(matches!(sent, Sent::Sent));
                    self.counts.sent.fetch_add(sent, Ordering::Relaxed);
                    place.settled = true;
                    break;
                }
                Err(failure) => failure,
            };
            let given_up = failure.for_good || n >= self.patience.attempts;
            trouble::tell(n, given_up, &failure);
            if given_up {
                return Err(failure);
            }
            self.counts.retried.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            pause = (pause * 4).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    /// In its turn: a letter that pauses keeps none of the others back.
    async fn once(
        &self,
        attempt: impl Future<Output = Result<Sent, Failure>>,
    ) -> Result<Sent, Failure> {
        let _turn = self.turns.acquire().await.map_err(Failure::for_good)?;
        let late = |_| Failure::for_now("the mail server, or the host, took too long");
        timeout(self.patience.attempt, attempt).await.map_err(late)?
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.patience.waiting as usize - self.room.available_permits()
    }

    /// Until none waits.
    pub(super) async fn idle(&self) {
        // It fails only when the semaphore is closed, which it never is.
        let _all = self.room.acquire_many(self.patience.waiting).await;
    }
}

/// Also when the runtime ends, and takes with it what was under way.
impl Drop for Place {
    fn drop(&mut self) {
        if !self.settled {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Connections to the mail server at a time.
const AT_ONCE: usize = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
