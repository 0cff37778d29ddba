use std::{sync::Arc, time::Duration};

use super::{
    change::{Affected, Written},
    manager::Manager,
};
use crate::{
    audit::{AuditEvent, EventKind},
    error::Error,
    model::{Actor, Timestamp},
};

/// How long records are kept that are no longer needed.
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

/// How much was purged.
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
    pub fn keys(mut self, retention: Duration) -> Self {
        self.keys = retention;
        self
    }

    /// Sets how long audit events are kept. Defaults to 1 year.
    pub fn audit_events(mut self, retention: Duration) -> Self {
        self.audit_events = retention;
        self
    }

    /// Sets how long the usage history is kept. Defaults to 30 days.
    pub fn usage_history(mut self, retention: Duration) -> Self {
        self.usage_history = retention;
        self
    }

    /// Sets how many rows are removed in one step, 1 to 10,000. Defaults to 500. Other writers wait less for small
    /// steps.
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows.clamp(1, 10_000);
        self
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { keys: DAY * 90, audit_events: DAY * 365, usage_history: DAY * 30, batch: 500 }
    }
}

/// A purge in progress, batch by batch.
pub(crate) struct Purge {
    retention: Retention,
    remaining: &'static [Stage],
    pub(crate) purged: Purged,
}

/// What is purged, in this order.
#[derive(Clone, Copy)]
enum Stage {
    Keys,
    Events,
    UsageHistory,
    Codes,
    ChangeFeed,
}

impl Purge {
    pub(crate) fn new(retention: Retention) -> Self {
        let remaining =
            &[Stage::Keys, Stage::Events, Stage::UsageHistory, Stage::Codes, Stage::ChangeFeed];
        Self { retention, remaining, purged: Purged::default() }
    }

    /// Purges one batch. Returns false if nothing was left to do.
    pub(crate) async fn step(&mut self, manager: &Arc<Manager>) -> Result<bool, Error> {
        let Some((stage, remaining)) = self.remaining.split_first() else { return Ok(false) };
        let Retention { keys, audit_events, usage_history, batch } = self.retention;
        let (store, now) = (&manager.store, manager.clock.now());
        let removed = match stage {
            Stage::Keys => {
                let removed = manager.purge_keys(now, keys, batch).await?;
                self.purged.keys += u64::from(removed);
                removed
            }
            Stage::Events => {
                let removed = store.purge_events(now.before(audit_events), batch).await?;
                self.purged.events += u64::from(removed);
                removed
            }
            Stage::UsageHistory => store.purge_usage(now.before(usage_history), batch).await?,
            Stage::Codes => store.purge_codes(now.before(CODE_RETENTION), batch).await?,
            Stage::ChangeFeed => {
                store.purge_changes(now.before(FEED_RETENTION)).await?;
                0
            }
        };
        if removed < batch {
            self.remaining = remaining;
        }
        Ok(true)
    }
}

impl Manager {
    pub(crate) async fn purge(
        self: &Arc<Self>,
        retention: Retention,
        mut progress: impl FnMut(Purged) + Send,
    ) -> Result<Purged, Error> {
        let mut purge = Purge::new(retention);
        while purge.step(self).await? {
            progress(purge.purged);
        }
        Ok(purge.purged)
    }

    async fn purge_keys(
        &self,
        now: Timestamp,
        retention: Duration,
        batch: u32,
    ) -> Result<u32, Error> {
        let id = self.ids.event_id(now)?;
        let event = AuditEvent::by(id, now, EventKind::Purged, &Actor::system("purge"));
        let store = self.store.clone();
        let write = async move {
            let events = store.purge_keys(now.before(retention), batch, &event).await?;
            Ok(Written { answer: events.len() as u32, events })
        };
        self.change(Affected::UnknownDigests, write).await
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than a code is valid, so that a late code is reported as expired, and longer than the day for which anonymous
/// counters count.
const CODE_RETENTION: Duration = Duration::from_secs(26 * 3_600);
/// Longer than a node can be behind and still trust its cache.
const FEED_RETENTION: Duration = DAY;
