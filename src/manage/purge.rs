use std::{sync::Arc, time::Duration};

use crate::{
    api::{ApiKeys, Inner},
    error::Error,
    manage::change::{Done, Touches},
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{Actor, Timestamp},
};

/// How long what is no longer needed is kept.
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
    /// Keys that were revoked or expired long enough ago.
    pub keys: u64,
    /// Events of the audit log that were old enough.
    pub events: u64,
}

impl Retention {
    /// Revoked and expired keys are kept so long; 90 days by default.
    pub fn keys(mut self, retention: Duration) -> Self {
        self.keys = retention;
        self
    }

    /// Audit events are kept so long; a year by default.
    pub fn audit_events(mut self, retention: Duration) -> Self {
        self.audit_events = retention;
        self
    }

    /// Counts of uses by the hour are kept so long; 30 days by default.
    pub fn usage_history(mut self, retention: Duration) -> Self {
        self.usage_history = retention;
        self
    }

    /// How many rows are removed in one step; 500 by default. Small steps keep others waiting less.
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

impl ApiKeys {
    /// Cleans away keys that were revoked or expired long ago, audit events and counts that are old
    /// enough, and one-time codes that are over. Keys that do not expire stay. It goes in batches, and tells the progress after
    /// each; dropped halfway, it has done the batches it told of.
    ///
    /// It happens by itself every hour, on one of all nodes, with the retention that the
    /// [builder](crate::api::ApiKeysBuilder::purge) was given.
    ///
    /// # Errors
    /// Those of a store that fails; what was purged before stays purged.
    pub async fn purge(
        &self,
        purge: Retention,
        mut progress: impl FnMut(Purged) + Send,
    ) -> Result<Purged, Error> {
        let mut purging = Purging::new(purge);
        while purging.step(&self.inner).await? {
            progress(purging.purged);
        }
        Ok(purging.purged)
    }
}

/// A purge on its way, batch by batch.
pub(crate) struct Purging {
    purge: Retention,
    rest: &'static [Stage],
    purged: Purged,
}

/// What is purged, one after the other.
#[derive(Clone, Copy)]
enum Stage {
    Keys,
    Events,
    Tallies,
    Codes,
    Changes,
}

impl Purging {
    pub(crate) fn new(purge: Retention) -> Self {
        let rest = &[Stage::Keys, Stage::Events, Stage::Tallies, Stage::Codes, Stage::Changes];
        Self { purge, rest, purged: Purged::default() }
    }

    /// Does one batch; false if there was nothing left to do.
    pub(crate) async fn step(&mut self, inner: &Arc<Inner>) -> Result<bool, Error> {
        let Some((stage, rest)) = self.rest.split_first() else { return Ok(false) };
        let Retention { keys, audit_events, usage_history, batch } = self.purge;
        let (store, now) = (&inner.store, inner.now());
        let removed = match stage {
            Stage::Keys => {
                let removed = inner.purge_keys(now, keys, batch).await?;
                self.purged.keys += u64::from(removed);
                removed
            }
            Stage::Events => {
                let removed = store.purge_events(now.before(audit_events), batch).await?;
                self.purged.events += u64::from(removed);
                removed
            }
            Stage::Tallies => store.purge_usage(now.before(usage_history), batch).await?,
            Stage::Codes => store.purge_codes(now.before(CODES_RETENTION), batch).await?,
            Stage::Changes => {
                store.purge_changes(now.before(FEED_RETENTION)).await?;
                0
            }
        };
        if removed < batch {
            self.rest = rest;
        }
        Ok(true)
    }
}

impl Inner {
    async fn purge_keys(
        self: &Arc<Self>,
        now: Timestamp,
        retention: Duration,
        batch: u32,
    ) -> Result<u32, Error> {
        let id = self.ids.event_id(now)?;
        let event = AuditEvent::by(id, now, EventKind::Purged, &Actor::system("purge"));
        let store = self.store.clone();
        let write = async move {
            let events = store.purge_keys(now.before(retention), batch, &event).await?;
            Ok(Done { answer: events.len() as u32, events })
        };
        self.change(Touches::Nothing, write).await
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Long enough that who comes late is told so, and longer than the day for which guests are counted.
const CODES_RETENTION: Duration = Duration::from_secs(26 * 3_600);
/// Far longer than a node can be behind and still trust its memory.
const FEED_RETENTION: Duration = DAY;
