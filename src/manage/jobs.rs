use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{Manager, Reminders, Retention, reminders::remind_all, retention::Purge};
use crate::{
    error::Error,
    model::{Period, Timestamp},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    system::lock,
    verify::start_of_hour,
};

/// The jobs that run once an hour, on one node of all: purging and reminding.
pub(super) struct Jobs {
    pub(super) retention: Option<Retention>,
    pub(super) reminders: Option<Reminders>,
    /// How many jobs failed. A failed job runs again in another hour.
    failed: AtomicUsize,
    /// The hour in which this node last started its jobs.
    started_in: Mutex<Option<Timestamp>>,
    stopped: AtomicBool,
}

impl Jobs {
    pub(super) fn new(retention: Option<Retention>, reminders: Option<Reminders>) -> Self {
        Self {
            retention,
            reminders,
            failed: AtomicUsize::new(0),
            started_in: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }
}

impl Manager {
    /// Starts the jobs, unless they were started in this hour already. Each runs in a task of its own.
    pub(crate) fn start_due_jobs(self: &Arc<Self>) {
        let hour = Some(start_of_hour(self.clock.now()));
        if std::mem::replace(&mut *lock(&self.jobs.started_in), hour) == hour {
            return;
        }
        if self.jobs.retention.is_some() {
            self.start_job(purge);
        }
        if self.jobs.reminders.is_some() {
            self.start_job(remind_all);
        }
    }

    fn start_job<J>(self: &Arc<Self>, job: fn(Weak<Self>) -> J)
    where
        J: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let manager = Arc::downgrade(self);
        tokio::spawn(async move {
            if job(manager.clone()).await.is_err()
                && let Some(manager) = manager.upgrade()
            {
                manager.jobs.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    pub(crate) fn failed_jobs(&self) -> usize {
        self.jobs.failed.load(Ordering::Relaxed)
    }

    /// Stops running jobs after their current step.
    pub(crate) fn stop_jobs(&self) {
        self.jobs.stopped.store(true, Ordering::Release);
    }

    /// Claims a turn that there is once an hour among all nodes: returns true on one of them.
    pub(super) async fn claim_turn(
        &self,
        turn: CounterKey<'_>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (period, window) = (Period::Ever, start_of_hour(now));
        let charge = CounterCharge { counter_key: turn, period, window, limit: 1, uses: 1 };
        Ok(matches!(self.store.charge(&[charge]).await?, ChargeOutcome::Granted(_)))
    }
}

/// Returns the manager while it exists and its jobs are not stopped. A job holds it for one step only.
pub(super) fn running(manager: &Weak<Manager>) -> Option<Arc<Manager>> {
    manager.upgrade().filter(|manager| !manager.jobs.stopped.load(Ordering::Acquire))
}

async fn purge(manager: Weak<Manager>) -> Result<(), Error> {
    let retention = match running(&manager) {
        Some(manager)
            if manager.claim_turn(CounterKey::Job("purge"), manager.clock.now()).await? =>
        {
            manager.jobs.retention
        }
        _ => None,
    };
    let Some(retention) = retention else { return Ok(()) };
    let mut purge = Purge::new(retention);
    while let Some(manager) = running(&manager)
        && purge.step(&manager).await?
    {}
    Ok(())
}
