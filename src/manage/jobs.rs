use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    manager::Manager,
    reminders::{Reminders, remind_while},
};
use crate::{
    audit::EventKind,
    error::{Error, ErrorKind},
    model::{Actor, DAY, HOUR, OwnerScope, Period},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    system::lock,
    verify::{Cache, start_of_hour},
};

/// How long ended keys, audit events and the usage history are kept.
///
/// # Examples
/// ```
/// # use keyward::{manage::Retention, testing::TestKeys};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), keyward::Error> {
/// # let keys = TestKeys::new().keys;
/// let purged = keys.purge(Retention::default(), |so_far| println!("{} keys so far", so_far.keys)).await?;
/// assert_eq!(purged.keys, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    keys: Duration,
    audit_events: Duration,
    usage_history: Duration,
    batch: u32,
}

/// How much was purged so far. The usage history is purged too, but not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// Keys that were revoked or expired.
    pub keys: u64,
    /// Audit events.
    pub events: u64,
}

impl Retention {
    /// Sets how long revoked and expired keys are kept. Defaults to 90 days.
    pub fn keys(self, retention: Duration) -> Self {
        Self { keys: retention, ..self }
    }

    /// Sets how long audit events are kept. Defaults to 1 year.
    pub fn audit_events(self, retention: Duration) -> Self {
        Self { audit_events: retention, ..self }
    }

    /// Sets how long the usage history is kept. Defaults to 30 days.
    pub fn usage_history(self, retention: Duration) -> Self {
        Self { usage_history: retention, ..self }
    }

    /// Sets how many rows are removed in one step, 1 to 10,000. Defaults to 500. Small steps delay other writers less.
    pub fn batch(self, rows: u32) -> Self {
        Self { batch: rows.clamp(1, 10_000), ..self }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { keys: DAY * 90, audit_events: DAY * 365, usage_history: DAY * 30, batch: 500 }
    }
}

impl Manager {
    /// Starts the jobs that run once an hour, on one of all nodes, unless this node did so in this hour. Each is a task.
    /// If the store has no counters, the jobs run on every node: each of their steps has an effect only once.
    pub(crate) fn start_due_jobs(
        self: &Arc<Self>,
        retention: Option<Retention>,
        reminders: Option<&Reminders>,
    ) {
        let now = self.clock.precise_now();
        if !now.is_trusted {
            return;
        }
        let hour = Some(start_of_hour(now.at));
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
        tokio::spawn(async move {
            let Some(manager) = manager() else { return };
            let claimed = manager.claim_job(name).await;
            drop(manager);
            let done = if let Ok(true) = claimed { job.await } else { claimed.map(drop) };
            if done.is_err() {
                jobs.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Returns the manager while it exists and the jobs are not stopped. A job holds it for one step only.
    fn while_running(self: &Arc<Self>) -> impl Fn() -> Option<Arc<Self>> + use<> {
        let weak = Arc::downgrade(self);
        move || weak.upgrade().filter(|manager| !manager.jobs.stopped.load(Ordering::Acquire))
    }

    /// Returns true on the first of all nodes that asks for a job in this hour, or if the store cannot tell.
    async fn claim_job(&self, name: &'static str) -> Result<bool, Error> {
        let Some(counters) = self.store.counters() else { return Ok(true) };
        let now = self.clock.checked_now().await?.at;
        let (period, window) = (Period::Ever, start_of_hour(now));
        let counter_key = CounterKey::Job(name);
        let latest_window = window.after(HOUR);
        let charge =
            CounterCharge { counter_key, period, window, latest_window, limit: 1, uses: 1 };
        Ok(matches!(counters.charge(&[charge]).await?, ChargeOutcome::Granted(_)))
    }

    async fn purge_keys(&self, retention: Duration, batch: u32) -> Result<u32, Error> {
        let event = self.event(EventKind::Purged, &Actor::system("purge")).await?;
        let (store, before) = (self.store.clone(), event.at.before(retention));
        let write = async move {
            let events = store.purge_keys(before, batch, &event).await?;
            Ok((events.len() as u32, events))
        };
        self.change(Cache::invalidate_unknown, write).await
    }
}

/// What is purged.
enum Stage {
    Keys,
    Events,
    UsageHistory,
    Codes,
    Counters,
    ChangeFeed,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Keys,
        Self::Events,
        Self::UsageHistory,
        Self::Codes,
        Self::Counters,
        Self::ChangeFeed,
    ];
}

/// Purges batch by batch while `manager` returns one. Holds nothing between two batches.
pub(crate) async fn purge_while(
    manager: impl Fn() -> Option<Arc<Manager>>,
    retention: Retention,
    mut progress: impl FnMut(Purged),
) -> Result<Purged, Error> {
    let Retention { keys, audit_events, usage_history, batch } = retention;
    let mut purged = Purged::default();
    for stage in Stage::ALL {
        while let Some(manager) = manager() {
            let (store, now) = (&manager.store, manager.clock.checked_now().await?.at);
            let removed = match stage {
                Stage::Keys => manager.purge_keys(keys, batch).await?,
                Stage::Events => store.purge_events(now.before(audit_events), batch).await?,
                Stage::UsageHistory => match store.usage_history() {
                    Some(history) => history.purge_usage(now.before(usage_history), batch).await?,
                    None => 0,
                },
                Stage::Codes => match store.one_time_codes() {
                    Some(codes) => codes.purge_codes(now.before(CODE_RETENTION), batch).await?,
                    None => 0,
                },
                Stage::Counters => match store.counters() {
                    Some(counters) => {
                        counters.purge_counters(now.before(CODE_RETENTION), batch).await?
                    }
                    None => 0,
                },
                Stage::ChangeFeed => {
                    if let Some(feed) = store.change_feed() {
                        feed.purge_changes(now.before(FEED_RETENTION)).await?;
                    }
                    0
                }
            };
            match stage {
                Stage::Keys => purged.keys += u64::from(removed),
                Stage::Events => purged.events += u64::from(removed),
                _ => {}
            }
            progress(purged);
            if removed < batch {
                break;
            }
        }
    }
    Ok(purged)
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

/// Longer than a code is valid, so that a late one is reported as expired, and than a day, as anonymous counters count.
const CODE_RETENTION: Duration = Duration::from_secs(26 * 3_600);
/// Longer than a node can be behind and still trust its cache.
const FEED_RETENTION: Duration = DAY;
/// Leaves room for other e-mails when many reminders are due the first time.
const MAX_PER_HOUR: u64 = 500;
const TENANTS_PER_PAGE: u32 = 100;
