use std::sync::{Arc, atomic::Ordering};

use super::{
    manager::Manager,
    reminders::{Reminders, remind_while},
    retention::{Retention, purge_while},
};
use crate::{
    error::{Error, ErrorKind},
    model::OwnerScope,
    store::CounterKey,
    system::lock,
    verify::start_of_hour,
};

impl Manager {
    /// Starts the jobs that run once an hour, on one node of all, unless this node started them in this hour already.
    /// Each runs in a task of its own.
    pub(crate) fn start_due_jobs(
        self: &Arc<Self>,
        retention: Option<Retention>,
        reminders: Option<&Reminders>,
    ) {
        let hour = Some(start_of_hour(self.clock.now()));
        if std::mem::replace(&mut *lock(&self.jobs.started_in), hour) == hour {
            return;
        }
        if let Some(retention) = retention {
            let manager = self.while_running();
            let job = async move { purge_while(manager, retention, |_| ()).await.map(drop) };
            self.start("purge", job);
        }
        if let Some(reminders) = reminders {
            self.start("remind", remind_all(self.while_running(), reminders.clone()));
        }
    }

    /// Starts a job, if this node is the one that runs it in this hour.
    fn start(
        self: &Arc<Self>,
        name: &'static str,
        job: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        let (jobs, manager) = (self.jobs.clone(), self.while_running());
        let claim = async move {
            match manager() {
                Some(manager) => manager.claim_turn(CounterKey::Job(name)).await,
                None => Ok(false),
            }
        };
        tokio::spawn(async move {
            let done = match claim.await {
                Ok(true) => job.await,
                claimed => claimed.map(drop),
            };
            if done.is_err() {
                jobs.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Returns the manager while it exists and the jobs are not stopped. A job holds it for one step only.
    fn while_running(self: &Arc<Self>) -> impl Fn() -> Option<Arc<Self>> + use<> {
        let manager = Arc::downgrade(self);
        move || manager.upgrade().filter(|it| !it.jobs.stopped.load(Ordering::Acquire))
    }
}

/// Reminds the owners of all tenants.
async fn remind_all(
    manager: impl Fn() -> Option<Arc<Manager>>,
    reminders: Reminders,
) -> Result<(), Error> {
    let mut left = MAX_PER_HOUR;
    let mut after: Option<String> = None;
    while let Some(current) = manager() {
        let mut tenants = current.store.tenants(after.as_deref(), TENANTS_PER_PAGE).await?;
        drop(current);
        for tenant in &tenants {
            match remind_while(&manager, OwnerScope::Tenant(tenant), &reminders, left).await {
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
