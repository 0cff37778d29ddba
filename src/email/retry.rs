use std::{
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

/// The messages that are being sent, and the counts of those that were sent or dropped.
#[derive(Debug)]
pub(super) struct RetryQueue {
    policy: RetryPolicy,
    free_slots: Arc<Semaphore>,
    attempts: Semaphore,
    pub(super) counters: Arc<Counters>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    pub(super) max_attempts: u32,
    /// The delay before the second attempt; it is multiplied by four after each further one.
    pub(super) delay: Duration,
    pub(super) attempt_timeout: Duration,
    pub(super) max_pending: u32,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// The place of one pending message. A message whose slot is dropped before it was sent counts as dropped.
pub(super) struct PendingSlot {
    counters: Arc<Counters>,
    delivered: bool,
    _permit: OwnedSemaphorePermit,
}

/// A successful attempt.
pub(super) enum Delivery {
    Sent,
    /// The owner has no address, or the host wants no message.
    Skipped,
}

/// The reason why an attempt failed.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub(super) struct SendError {
    cause: Box<dyn std::error::Error + Send + Sync>,
    /// A retry would fail in the same way.
    permanent: bool,
}

impl RetryQueue {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            free_slots: Arc::new(Semaphore::new(policy.max_pending as usize)),
            attempts: Semaphore::new(MAX_CONCURRENT_ATTEMPTS),
            counters: Arc::default(),
        }
    }

    /// Reserves a slot for one message. If the queue is full, counts the message as dropped and returns
    /// `None`.
    pub(super) fn reserve(&self) -> Option<PendingSlot> {
        let Ok(permit) = self.free_slots.clone().try_acquire_owned() else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            log::queue_full();
            return None;
        };
        Some(PendingSlot { counters: self.counters.clone(), delivered: false, _permit: permit })
    }

    /// Attempts until one succeeds, one fails permanently, or the last allowed one has failed.
    pub(super) async fn run<F: Future<Output = Result<Delivery, SendError>>>(
        &self,
        mut slot: PendingSlot,
        attempt: impl Fn() -> F,
    ) -> Result<(), SendError> {
        let mut delay = self.policy.delay;
        for number in 1.. {
            let error = match self.run_once(attempt()).await {
                Ok(delivery) => {
                    let sent = u64::from(matches!(delivery, Delivery::Sent));
                    self.counters.sent.fetch_add(sent, Ordering::Relaxed);
                    slot.delivered = true;
                    break;
                }
                Err(error) => error,
            };
            let giving_up = error.permanent || number >= self.policy.max_attempts;
            log::attempt_failed(number, giving_up, &error);
            if giving_up {
                return Err(error);
            }
            self.counters.retried.fetch_add(1, Ordering::Relaxed);
            sleep(delay).await;
            delay = (delay * 4).min(MAX_RETRY_DELAY);
        }
        Ok(())
    }

    /// Holds a permit for the attempt only, so that a message between two attempts does not block others.
    async fn run_once(
        &self,
        attempt: impl Future<Output = Result<Delivery, SendError>>,
    ) -> Result<Delivery, SendError> {
        let _permit = self.attempts.acquire().await.map_err(SendError::permanent)?;
        let timed_out = |_| SendError::temporary("the mail server, or the host, took too long");
        timeout(self.policy.attempt_timeout, attempt).await.map_err(timed_out)?
    }

    /// The number of pending messages.
    pub(super) fn pending(&self) -> usize {
        self.policy.max_pending as usize - self.free_slots.available_permits()
    }

    /// Waits until no message is pending.
    pub(super) async fn flush(&self) {
        // Fails only if the semaphore is closed, which never happens.
        let _all = self.free_slots.acquire_many(self.policy.max_pending).await;
    }
}

/// Runs also when the runtime shuts down and drops the task.
impl Drop for PendingSlot {
    fn drop(&mut self) {
        if !self.delivered {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl SendError {
    pub(super) fn temporary(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: cause.into(), permanent: false }
    }

    pub(super) fn permanent(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: cause.into(), permanent: true }
    }
}

/// Neither the recipient nor the content is logged.
#[cfg(feature = "tracing")]
mod log {
    use super::SendError;
    use crate::model::one_line;

    pub(super) fn attempt_failed(attempt: u32, giving_up: bool, error: &SendError) {
        let reason = error.to_string();
        let reason = one_line(&reason);
        tracing::warn!(target: "keyward::email", attempt, giving_up, %reason, "cannot send an e-mail");
    }

    pub(super) fn queue_full() {
        tracing::warn!(target: "keyward::email", "an e-mail was dropped: too many are pending");
    }
}

#[cfg(not(feature = "tracing"))]
mod log {
    pub(super) fn attempt_failed(_: u32, _: bool, _: &super::SendError) {}

    pub(super) fn queue_full() {}
}

/// The number of connections to the mail server.
const MAX_CONCURRENT_ATTEMPTS: usize = 4;
const MAX_RETRY_DELAY: Duration = Duration::from_secs(600);
