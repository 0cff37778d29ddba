//! Everything that issues, changes, lists, removes or reminds of keys.
//!
//! Every change goes through one function, in `change.rs`: it writes the change with its audit event, invalidates this
//! node's cache before and after, then notifies the sinks, and runs to its end if the caller is dropped. Every change by
//! which a key can do more is authorized in `authorize_change.rs` first.

mod audit_log;
mod authorize_change;
mod change;
mod codes;
mod issue;
mod jobs;
mod leaks;
mod list;
mod reminders;
mod retention;
mod rotate;
mod update;

use std::sync::Arc;

use self::jobs::Jobs;
pub use self::{
    audit_log::AuditExport,
    issue::{Issued, NewKey},
    leaks::Identified,
    list::{KeyPage, Page},
    reminders::{DuePage, Reminder, Reminders},
    retention::{Purged, Retention},
    rotate::Rotation,
    update::KeyChange,
};
use crate::{
    accounts::{Accounts, StepUp},
    audit::{AuditEvent, EventKind, Fanout},
    error::Error,
    model::{Actor, Key, KeyId, OwnerScope},
    secret::{Formats, Hashers},
    store::KeyStore,
    system::{IdGenerator, NodeClock},
    verify::Cache,
};

/// Manages keys: one of the two parts of [`ApiKeys`](crate::ApiKeys).
pub(crate) struct Manager {
    store: Arc<dyn KeyStore>,
    accounts: Arc<dyn Accounts>,
    step_up: Arc<dyn StepUp>,
    formats: Arc<Formats>,
    hashers: Hashers,
    clock: Arc<NodeClock>,
    ids: Arc<IdGenerator>,
    sinks: Arc<Fanout>,
    /// Invalidated by every change.
    cache: Arc<Cache>,
    jobs: Jobs,
}

/// What a [`Manager`] is made of.
pub(crate) struct ManagerParts {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) step_up: Arc<dyn StepUp>,
    pub(crate) formats: Arc<Formats>,
    pub(crate) hashers: Hashers,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) ids: Arc<IdGenerator>,
    pub(crate) sinks: Arc<Fanout>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) retention: Option<Retention>,
    pub(crate) reminders: Option<Reminders>,
}

impl Manager {
    pub(crate) fn new(parts: ManagerParts) -> Self {
        let ManagerParts {
            store,
            accounts,
            step_up,
            formats,
            hashers,
            clock,
            ids,
            sinks,
            cache,
            retention,
            reminders,
        } = parts;
        let jobs = Jobs::new(retention, reminders);
        Self { store, accounts, step_up, formats, hashers, clock, ids, sinks, cache, jobs }
    }

    /// Reads a key that is neither revoked nor expired.
    async fn live(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Arc<Key>, Error> {
        let key = self.get(within, id).await?;
        if key.is_live(self.clock.now()) { Ok(key) } else { Err(Error::not_live(&key)) }
    }

    fn event(&self, kind: EventKind, key: &Key, by: &Actor) -> Result<AuditEvent, Error> {
        let now = self.clock.now();
        Ok(AuditEvent::of(self.ids.event_id(now)?, now, kind, key, by))
    }
}

/// How often a change is retried if others change the key at the same time. Each lost attempt means that another change
/// was written, so only a storm of changes gets this far.
const MAX_ATTEMPTS: usize = 100;
