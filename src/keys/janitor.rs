use std::time::Duration;

use super::{
    ApiKeys, Error,
    change::{Done, Touches},
};
use crate::{
    audit::{AuditEvent, EventKind},
    key::Actor,
};

/// How long what is no longer needed is kept.
///
/// # Examples
/// ```
/// # use keyward::{keys::Purge, testing::TestKeys};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), keyward::Error> {
/// # let keys = TestKeys::new().keys;
/// let purged = keys.purge(Purge::default(), |so_far| println!("{} keys so far", so_far.keys)).await?;
/// assert_eq!(purged.keys, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Purge {
    keys_after: Duration,
    events_after: Duration,
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

impl Purge {
    /// Revoked and expired keys are kept so long; 90 days by default.
    pub fn keys_after(mut self, retention: Duration) -> Self {
        self.keys_after = retention;
        self
    }

    /// Audit events are kept so long; a year by default.
    pub fn events_after(mut self, retention: Duration) -> Self {
        self.events_after = retention;
        self
    }

    /// How many rows are removed in one step; 500 by default. Small steps keep others waiting less.
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows.clamp(1, 10_000);
        self
    }
}

impl Default for Purge {
    fn default() -> Self {
        Self { keys_after: DAY * 90, events_after: DAY * 365, batch: 500 }
    }
}

impl ApiKeys {
    /// Cleans away keys that were revoked or expired long ago, and audit events that are old
    /// enough. Keys that do not expire stay. It goes in batches, and tells the progress after each;
    /// dropped halfway, it has done the batches it told of.
    ///
    /// # Errors
    /// Those of a store that fails; what was purged before stays purged.
    pub async fn purge(
        &self,
        purge: Purge,
        mut progress: impl FnMut(Purged) + Send,
    ) -> Result<Purged, Error> {
        let Purge { keys_after, events_after, batch } = purge;
        let now = self.inner.now();
        let store = &self.inner.store;
        let mut purged = Purged::default();
        loop {
            let removed = self.purge_keys(keys_after, batch).await?;
            purged.keys += u64::from(removed);
            progress(purged);
            if removed < batch {
                break;
            }
        }
        loop {
            let removed = store.purge_events(now.before(events_after), batch).await?;
            purged.events += u64::from(removed);
            progress(purged);
            if removed < batch {
                break;
            }
        }
        store.purge_changes(now.before(FEED_RETENTION)).await?;
        Ok(purged)
    }

    async fn purge_keys(&self, retention: Duration, batch: u32) -> Result<u32, Error> {
        let now = self.inner.now();
        let id = self.inner.ids.event_id(now)?;
        let event = AuditEvent::by(id, now, EventKind::Purged, &Actor::system("purge"));
        let store = self.inner.store.clone();
        let write = async move {
            let events = store.purge_keys(now.before(retention), batch, &event).await?;
            Ok(Done { answer: events.len() as u32, events })
        };
        self.inner.change(Touches::Nothing, write).await
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Far longer than a node can be behind and still trust its memory.
const FEED_RETENTION: Duration = DAY;
