use std::sync::Arc;

use crate::{
    accounts::{Accounts, StepUp},
    audit::{AuditEvent, EventKind, Fanout},
    error::Error,
    model::{Actor, Key, KeyId, OwnerScope, Period, Timestamp},
    secret::{Formats, Hashers},
    store::{ChargeOutcome, CounterCharge, CounterKey, KeyStore},
    system::{IdGenerator, NodeClock},
    verify::{Cache, start_of_hour},
};

/// Manages keys: one of the two parts of [`ApiKeys`](crate::ApiKeys).
pub(crate) struct Manager {
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) accounts: Arc<dyn Accounts>,
    pub(super) step_up: Arc<dyn StepUp>,
    pub(super) formats: Arc<Formats>,
    pub(super) hashers: Hashers,
    pub(super) clock: Arc<NodeClock>,
    pub(super) ids: Arc<IdGenerator>,
    pub(super) sinks: Arc<Fanout>,
    /// Invalidated by every change.
    pub(super) cache: Arc<Cache>,
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
}

impl Manager {
    pub(crate) fn new(parts: ManagerParts) -> Self {
        let ManagerParts { store, accounts, step_up, formats, hashers, clock, ids, sinks, cache } =
            parts;
        Self { store, accounts, step_up, formats, hashers, clock, ids, sinks, cache }
    }

    pub(crate) async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Arc<Key>, Error> {
        self.store.get(within, id).await?.ok_or_else(Error::not_found)
    }

    /// Reads a key that is neither revoked nor expired.
    pub(super) async fn live(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Arc<Key>, Error> {
        let key = self.get(within, id).await?;
        if key.is_live(self.clock.now()) { Ok(key) } else { Err(Error::not_live(&key)) }
    }

    pub(super) fn event(
        &self,
        kind: EventKind,
        key: &Key,
        by: &Actor,
    ) -> Result<AuditEvent, Error> {
        let now = self.clock.now();
        Ok(AuditEvent::of(self.ids.event_id(now)?, now, kind, key, by))
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

/// How often a change is retried if others change the key at the same time. Each lost attempt means that another change
/// was written, so only a storm of changes gets this far.
pub(super) const MAX_ATTEMPTS: usize = 100;
