use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    api::{ApiKeys, Inner},
    error::Error,
};
use crate::{
    audit::AuditEvent,
    secret::SecretDigest,
    store::StoreErrorKind,
    system::lock,
    verify::{denials::Denials, usage::Usage},
};

/// What verifications leave behind, to be written by a task of its own: no verification waits for
/// a write, and none fails for one.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) usage: Usage,
    pub(crate) denials: Denials,
    rehashes: Mutex<Vec<(SecretDigest, SecretDigest)>>,
    /// What is an event already, but not written: refusals, and what was done with codes.
    pub(crate) unwritten: Mutex<Vec<AuditEvent>>,
    running: Arc<AtomicBool>,
    wake: Arc<Notify>,
    /// One writer at a time, so that a key's uses are written in their order.
    writing: tokio::sync::Mutex<()>,
}

impl Outbox {
    /// A digest of a retired hasher, to be replaced. If there is no room, the next use is the one.
    pub(crate) fn rehash(&self, from: SecretDigest, to: SecretDigest) {
        let mut rehashes = lock(&self.rehashes);
        if rehashes.len() < MAX_REHASHES && !rehashes.iter().any(|(known, _)| *known == from) {
            rehashes.push((from, to));
        }
    }

    /// How many events the store has failed to take.
    pub(crate) fn unwritten(&self) -> usize {
        lock(&self.unwritten).len()
    }

    /// The writer shall not wait for its interval.
    pub(crate) fn hurry(&self) {
        self.wake.notify_one();
    }
}

impl Drop for Outbox {
    /// The writer finds that its `ApiKeys` are gone, and ends.
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl ApiKeys {
    /// Writes what verifications have left to be written: first and last uses, how many there were,
    /// refused attempts, digests that move to the current hasher. It happens by itself every few seconds; a service
    /// calls this before it exits, and a test before it looks.
    ///
    /// # Errors
    /// Those of a store that fails; nothing is lost by it, and it is tried again.
    pub async fn flush(&self) -> Result<(), Error> {
        self.inner.write_out(true).await
    }
}

impl Inner {
    /// Starts the writer unless it runs. Outside of a runtime there is only
    /// [`flush`](ApiKeys::flush).
    #[inline]
    pub(crate) fn ensure_writer(self: &Arc<Self>) {
        if !self.outbox.running.load(Ordering::Relaxed) {
            self.start_writer();
        }
    }

    #[cold]
    fn start_writer(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.is_shut_down() && !self.outbox.running.swap(true, Ordering::AcqRel) {
            let running = Running(self.outbox.running.clone());
            runtime.spawn(write_behind(Arc::downgrade(self), self.outbox.wake.clone(), running));
        }
    }

    /// Writes what is due, and keeps what could not be written.
    async fn write_out(self: &Arc<Self>, with_counts: bool) -> Result<(), Error> {
        let inner = self.clone();
        let write = async move {
            let _one = inner.outbox.writing.lock().await;
            let uses = inner.outbox.usage.drain(&inner.ids)?;
            for (n, batch) in uses.chunks(BATCH).enumerate() {
                match inner.store.record_uses(batch).await {
                    Ok(events) => inner.tell(&events),
                    Err(error) => {
                        inner.outbox.usage.restore(&uses[n * BATCH..]);
                        return Err(error.into());
                    }
                }
            }
            let rehashes = std::mem::take(&mut *lock(&inner.outbox.rehashes));
            for (from, to) in rehashes {
                // If it fails, the next use of the key tries again.
                inner.store.rehash(&from, &to).await?;
            }
            if with_counts {
                inner.write_tallies().await?;
                inner.tell(&inner.write_denials().await?);
            }
            Ok(())
        };
        self.apart(write).await
    }

    /// Counts add up: what may have been written is not written again, and rather lost.
    async fn write_tallies(&self) -> Result<(), Error> {
        let tallies = self.outbox.usage.drain_tallies();
        for (n, batch) in tallies.chunks(BATCH).enumerate() {
            if let Err(error) = self.store.add_usage(batch).await {
                let undone = error.kind() == StoreErrorKind::Unavailable;
                let rest = if undone { n * BATCH } else { n * BATCH + batch.len() };
                self.outbox.usage.restore_tallies(&tallies[rest..]);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// What a failing store did not take stays, up to a bound, and has kept its ids: written twice
    /// it is still there once.
    async fn write_denials(&self) -> Result<Vec<AuditEvent>, Error> {
        let events = {
            let mut unwritten = lock(&self.outbox.unwritten);
            unwritten.extend(self.outbox.denials.drain(&self.ids)?);
            unwritten.truncate(MAX_UNWRITTEN);
            unwritten.clone()
        };
        self.store.record_events(&events).await?;
        lock(&self.outbox.unwritten).drain(..events.len());
        Ok(events)
    }
}

async fn write_behind(inner: Weak<Inner>, wake: Arc<Notify>, _running: Running) {
    let mut counts_due = Instant::now() + COUNTS_INTERVAL;
    let (mut failed, mut worked) = (false, None);
    loop {
        let interval = Instant::now() + INTERVAL;
        if failed {
            // Nothing is in such a hurry that it may hammer a store in trouble.
            sleep_until(interval).await;
        } else {
            let _ = timeout_at(interval, wake.notified()).await;
        }
        let Some(inner) = inner.upgrade().filter(|inner| !inner.is_shut_down()) else { return };
        let due = Instant::now() >= counts_due;
        if due {
            counts_due = Instant::now() + COUNTS_INTERVAL;
        }
        // A failure leaves everything where it was, for the next time.
        failed = inner.write_out(due).await.is_err();
        inner.work_hourly(&mut worked);
    }
}

/// When the runtime takes the writer down with it, the next verification starts another.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
/// Uses and refusals are counted together for so long: this bounds the rows that a flood can make.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);
const BATCH: usize = 500;
const MAX_REHASHES: usize = 1_024;
pub(crate) const MAX_UNWRITTEN: usize = 10_000;
