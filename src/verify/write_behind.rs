use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    background::BackgroundTask, checked_clock::CheckedClock, denials::DenialCounts,
    replacements::Replacements, usage::UsageRecorder,
};
use crate::{
    audit::{AuditEvent, AuditSink, Fanout},
    error::{Error, ErrorKind},
    secret::SecretDigest,
    store::{KeyStore, KeyUse, StoreErrorKind},
    system::{IdGenerator, lock},
};

/// What verification leaves to be written: a background task writes it, so that no verification waits for a write or
/// fails because of one.
pub(crate) struct WriteBehind {
    store: Arc<dyn KeyStore>,
    sinks: Arc<Fanout>,
    ids: Arc<IdGenerator>,
    pub(crate) usage: UsageRecorder,
    pub(crate) denials: DenialCounts,
    pub(crate) replacements: Replacements,
    /// Digests of retired hashers, and what replaces them.
    rehashes: Mutex<Vec<(SecretDigest, SecretDigest)>>,
    /// Events that are complete but not written: denials, and what was done with one-time codes.
    events: Mutex<Vec<AuditEvent>>,
    /// Compared with the store's clock in each interval.
    clock: Arc<CheckedClock>,
    /// Called after each write, to start jobs that are due.
    after_write: Box<dyn Fn() + Send + Sync>,
    task: BackgroundTask,
    wake: Arc<Notify>,
    /// One writer at a time, so that the uses of a key are written in order.
    writing: tokio::sync::Mutex<()>,
}

impl WriteBehind {
    pub(crate) fn new(
        store: Arc<dyn KeyStore>,
        sinks: Arc<Fanout>,
        ids: Arc<IdGenerator>,
        clock: Arc<CheckedClock>,
        after_write: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            sinks,
            ids,
            usage: UsageRecorder::default(),
            denials: DenialCounts::default(),
            replacements: Replacements::default(),
            rehashes: Mutex::default(),
            events: Mutex::default(),
            clock,
            after_write: Box::new(after_write),
            task: BackgroundTask::default(),
            wake: Arc::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Replaces a digest of a retired hasher. If there is no room, the next use of the key tries again.
    pub(crate) fn rehash(self: &Arc<Self>, from: SecretDigest, to: SecretDigest) {
        let mut rehashes = lock(&self.rehashes);
        if rehashes.len() < MAX_REHASHES && !rehashes.iter().any(|(known, _)| *known == from) {
            rehashes.push((from, to));
        }
        drop(rehashes);
        self.ensure_running();
        self.hurry();
    }

    /// Adds an event, unless too many are unwritten.
    pub(crate) fn add_event(self: &Arc<Self>, event: AuditEvent) {
        let mut events = lock(&self.events);
        if events.len() < MAX_UNWRITTEN_EVENTS {
            events.push(event);
        }
        drop(events);
        self.ensure_running();
    }

    /// Adds to the error of a last write how much was not written.
    pub(crate) fn unwritten(&self, error: Error) -> Error {
        let (keys, hours, events) = (self.usage.len(), self.usage.hours(), self.unwritten_events());
        let message = format!(
            "{error}. Not written: the last uses of {keys} keys, {hours} hourly counts and {events} events. They are lost \
             unless the shutdown is repeated when the store is back"
        );
        Error::new(error.kind(), message).caused_by(Arc::new(error))
    }

    pub(crate) fn unwritten_events(&self) -> usize {
        lock(&self.events).len()
    }

    /// Writes without waiting for the interval.
    pub(crate) fn hurry(&self) {
        self.wake.notify_one();
    }

    /// Stops the writer. A write that has begun runs to its end.
    pub(crate) fn stop(&self) {
        self.task.stop();
    }

    /// Starts the writer, unless it runs. Outside of a runtime, only [`flush`](Self::flush) writes.
    #[inline]
    pub(crate) fn ensure_running(self: &Arc<Self>) {
        self.task.ensure_running(|| write_in_intervals(Arc::downgrade(self), self.wake.clone()));
    }

    /// Writes all that is there, and keeps what the store does not take.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Error> {
        self.write(true).await
    }

    /// Writes the uses of keys, so that the store can decide by them.
    pub(crate) async fn flush_uses(self: &Arc<Self>) -> Result<(), Error> {
        self.write(false).await
    }

    async fn write(self: &Arc<Self>, with_counts: bool) -> Result<(), Error> {
        let this = self.clone();
        // In a task of its own: what was drained must not be lost if the caller is dropped.
        let write = async move {
            let _one_at_a_time = this.writing.lock().await;
            // The uses of a secret are found by its digest, so a digest that is replaced comes first.
            let rehashed = this.write_rehashes().await;
            this.write_uses().await?;
            rehashed?;
            if with_counts {
                this.write_hourly_usage().await?;
                this.write_events().await?;
            }
            Ok(())
        };
        run_to_end(write).await
    }

    async fn write_uses(&self) -> Result<(), Error> {
        let uses = self.usage.drain(&self.ids)?;
        let mut drained = DrainedUses { usage: &self.usage, uses: &uses };
        for batch in uses.chunks(BATCH) {
            let events = self.store.record_uses(batch).await?;
            drained.uses = &drained.uses[batch.len()..];
            events.iter().for_each(|event| self.sinks.event(event));
        }
        Ok(())
    }

    async fn write_rehashes(&self) -> Result<(), Error> {
        let rehashes = std::mem::take(&mut *lock(&self.rehashes));
        for (from, to) in rehashes {
            // If it fails, the next use of the key tries again.
            self.store.rehash(&from, &to).await?;
        }
        Ok(())
    }

    /// Counts add up: those that may have been written are not written again, and rather lost. A store without a usage
    /// history gets none.
    async fn write_hourly_usage(&self) -> Result<(), Error> {
        let hours = self.usage.drain_hourly();
        let Some(history) = self.store.usage_history() else { return Ok(()) };
        for (n, batch) in hours.chunks(BATCH).enumerate() {
            if let Err(error) = history.add_usage(batch).await {
                let unchanged = error.kind() == StoreErrorKind::Unavailable;
                let rest = if unchanged { n * BATCH } else { n * BATCH + batch.len() };
                self.usage.restore_hourly(&hours[rest..]);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Events that the store does not take are kept, up to a bound. They keep their ids: written twice, they are stored
    /// once.
    async fn write_events(&self) -> Result<(), Error> {
        let events = {
            let mut events = lock(&self.events);
            events.extend(self.denials.drain(&self.ids)?);
            events.truncate(MAX_UNWRITTEN_EVENTS);
            events.clone()
        };
        self.store.record_events(&events).await?;
        lock(&self.events).drain(..events.len());
        events.iter().for_each(|event| self.sinks.event(event));
        Ok(())
    }
}

/// Uses that are being written. What is left is put back, also if the store panics or the runtime is shut down.
struct DrainedUses<'a> {
    usage: &'a UsageRecorder,
    uses: &'a [KeyUse],
}

impl Drop for DrainedUses<'_> {
    fn drop(&mut self) {
        self.usage.restore(self.uses);
    }
}

async fn write_in_intervals(writer: Weak<WriteBehind>, wake: Arc<Notify>) {
    let mut counts_due = Instant::now() + COUNTS_INTERVAL;
    let mut failed = false;
    loop {
        let next = Instant::now() + INTERVAL;
        if failed {
            // Nothing is so urgent that it may overload a store that is failing.
            sleep_until(next).await;
        } else {
            let _ = timeout_at(next, wake.notified()).await;
        }
        let Some(writer) = writer.upgrade() else { return };
        // If it fails, the writes most likely fail, too.
        let _ = writer.clock.measure_if_due().await;
        let with_counts = Instant::now() >= counts_due;
        if with_counts {
            counts_due = Instant::now() + COUNTS_INTERVAL;
        }
        failed = writer.write(with_counts).await.is_err();
        (writer.after_write)();
    }
}

/// Runs work as a task of its own, so that it ends also if the caller is dropped.
pub(crate) async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => {
            let message = "the runtime was shut down during a change, which may have happened: \
                read the key before trying again";
            Err(Error::new(ErrorKind::OutcomeUnknown, message))
        }
    })
}

const INTERVAL: Duration = Duration::from_secs(5);
/// Uses and denials are counted together for this long, which bounds the number of rows that a flood writes.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);
const BATCH: usize = 500;
const MAX_REHASHES: usize = 1_024;
const MAX_UNWRITTEN_EVENTS: usize = 10_000;
