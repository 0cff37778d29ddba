use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{
    manager::Manager,
    reminders::{Reminders, remind_while},
    retention::{Purge, Retention},
};
use crate::{
    error::{Error, ErrorKind},
    model::{OwnerScope, Timestamp},
    store::CounterKey,
    system::lock,
    verify::start_of_hour,
};

/// The jobs that run once an hour, on one node of all: purging and reminding.
pub(crate) struct Jobs {
    manager: Arc<Manager>,
    retention: Option<Retention>,
    reminders: Option<Reminders>,
    /// The hour in which this node last started its jobs.
    started_in: Mutex<Option<Timestamp>>,
    failed: AtomicUsize,
    stopped: AtomicBool,
}

impl Jobs {
    pub(crate) fn new(
        manager: Arc<Manager>,
        retention: Option<Retention>,
        reminders: Option<Reminders>,
    ) -> Self {
        Self {
            manager,
            retention,
            reminders,
            started_in: Mutex::default(),
            failed: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Starts the jobs, unless this node started them in this hour already. Each runs in a task of its own.
    pub(crate) fn start_due(self: &Arc<Self>) {
        let hour = Some(start_of_hour(self.manager.clock.now()));
        if std::mem::replace(&mut *lock(&self.started_in), hour) == hour {
            return;
        }
        if let Some(retention) = self.retention {
            self.start(|jobs| purge(jobs, retention));
        }
        if let Some(reminders) = self.reminders.clone() {
            self.start(|jobs| remind_all(jobs, reminders));
        }
    }

    fn start<J>(self: &Arc<Self>, job: impl FnOnce(Weak<Self>) -> J)
    where
        J: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let jobs = Arc::downgrade(self);
        let job = job(jobs.clone());
        tokio::spawn(async move {
            if job.await.is_err()
                && let Some(jobs) = jobs.upgrade()
            {
                jobs.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// How many jobs have failed. A failed job runs again in the next hour.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Stops running jobs after their current step.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

/// Returns the manager while it exists and the jobs are not stopped. A job holds it for one step only.
fn running(jobs: &Weak<Jobs>) -> Option<Arc<Manager>> {
    let jobs = jobs.upgrade().filter(|jobs| !jobs.stopped.load(Ordering::Acquire))?;
    Some(jobs.manager.clone())
}

/// Returns whether this node is the one that runs the job in this hour.
async fn claim(jobs: &Weak<Jobs>, job: &'static str) -> Result<bool, Error> {
    let Some(manager) = running(jobs) else { return Ok(false) };
    manager.claim_turn(CounterKey::Job(job), manager.clock.now()).await
}

async fn purge(jobs: Weak<Jobs>, retention: Retention) -> Result<(), Error> {
    if !claim(&jobs, "purge").await? {
        return Ok(());
    }
    let mut purge = Purge::new(retention);
    while let Some(manager) = running(&jobs)
        && purge.step(&manager).await?
    {}
    Ok(())
}

/// Reminds the owners of all tenants.
async fn remind_all(jobs: Weak<Jobs>, reminders: Reminders) -> Result<(), Error> {
    if !claim(&jobs, "remind").await? {
        return Ok(());
    }
    let manager = || running(&jobs);
    let mut left = MAX_PER_HOUR;
    let mut after: Option<String> = None;
    while let Some(current) = manager() {
        let mut tenants = current.store.tenants(after.as_deref(), TENANTS_PER_PAGE).await?;
        drop(current);
        for tenant in &tenants {
            match remind_while(manager, OwnerScope::Tenant(tenant), &reminders, left).await {
                Ok(written) => left -= written,
                // A damaged record of one tenant does not stop the reminders of others.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        after = tenants.pop();
        if after.is_none() || left == 0 {
            break;
        }
    }
    Ok(())
}

/// Leaves room for other e-mails when many reminders are due the first time.
const MAX_PER_HOUR: u64 = 500;
const TENANTS_PER_PAGE: u32 = 100;
