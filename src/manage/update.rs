use std::sync::Arc;

use super::{
    change::{Affected, Written, check_within_actor, check_within_owner},
    manager::{MAX_ATTEMPTS, Manager, Target},
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, EventKind},
    error::Error,
    model::{Access, Invalid, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner},
    store::{RevokeOutcome, UpdateOutcome},
};

/// A change of a key, for [`ApiKeys::update`](crate::ApiKeys::update). What is not set stays as it is.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KeyChange {
    name: Option<Name>,
    access: Option<Access>,
    limits: Option<KeyLimits>,
    networks: Option<Networks>,
    metadata: Option<Metadata>,
}

impl KeyChange {
    /// Sets the name.
    ///
    /// # Errors
    /// If it is empty, longer than 100 characters, or contains a NUL.
    pub fn name(mut self, name: &str) -> Result<Self, Invalid> {
        self.name = Some(Name::new(name)?);
        Ok(self)
    }

    /// Sets what the key may do.
    pub fn access(self, access: Access) -> Self {
        Self { access: Some(access), ..self }
    }

    /// Sets how often the key may be used.
    pub fn limits(self, limits: KeyLimits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// Sets the networks that the key may be used from.
    pub fn networks(self, networks: Networks) -> Self {
        Self { networks: Some(networks), ..self }
    }

    /// Replaces the host's metadata.
    pub fn metadata(self, metadata: Metadata) -> Self {
        Self { metadata: Some(metadata), ..self }
    }

    fn apply(&self, key: &mut Key) {
        let Self { name, access, limits, networks, metadata } = self.clone();
        key.name = name.unwrap_or_else(|| key.name.clone());
        key.access = access.unwrap_or_else(|| key.access.clone());
        key.limits = limits.unwrap_or(key.limits);
        key.networks = networks.unwrap_or_else(|| key.networks.clone());
        key.metadata = metadata.unwrap_or_else(|| key.metadata.clone());
    }
}

/// What is done to a live key.
#[derive(Clone, Copy)]
pub(crate) enum Edit<'a> {
    Change(&'a KeyChange),
    Disable,
    Enable,
}

impl Manager {
    /// Reads a live key, edits it, and writes it if it was not changed meanwhile; otherwise starts again.
    pub(crate) async fn edit(&self, on: Target<'_>, edit: Edit<'_>) -> Result<Arc<Key>, Error> {
        let Target { within, id, by } = on;
        for _ in 0..MAX_ATTEMPTS {
            let before = self.live(within, id).await?;
            let mut after = Key::clone(&before);
            let (kind, sensitive) = match edit {
                Edit::Change(change) => {
                    change.apply(&mut after);
                    (EventKind::Updated, SensitiveChange::Widen)
                }
                Edit::Disable => {
                    after.disabled_at = before.disabled_at.or(Some(self.clock.now()));
                    (EventKind::Disabled, SensitiveChange::Widen)
                }
                Edit::Enable => {
                    after.disabled_at = None;
                    (EventKind::Enabled, SensitiveChange::Enable)
                }
            };
            if after == *before {
                return Ok(before);
            }
            if is_wider(&after, &before) {
                let check = |account: &Account| {
                    if !before.access.covers(&after.access) {
                        check_within_owner(&after, account)?;
                    }
                    check_within_actor(&after, by)
                };
                self.authorize_change(&after.owner, by, sensitive, check).await?;
            }
            let event = self.event(kind, by)?.of_key(&after);
            let (store, key) = (self.store.clone(), after.clone());
            let write = async move {
                let outcome = store.update(&key, &event).await?;
                Ok(Written::new(outcome, outcome == UpdateOutcome::Updated, event))
            };
            match self.change(Affected::Key(id), write).await? {
                UpdateOutcome::Updated => {
                    after.revision += 1;
                    return Ok(Arc::new(after));
                }
                UpdateOutcome::Conflict => {}
                UpdateOutcome::NotFound => return Err(Error::not_found()),
            }
        }
        Err(Error::conflict())
    }

    pub(crate) async fn revoke(&self, on: Target<'_>, reason: &str) -> Result<(), Error> {
        let Target { within, id, by } = on;
        let key = self.get(within, id).await?;
        let event = self.event(EventKind::Revoked, by)?.of_key(&key).reason(reason);
        let store = self.store.clone();
        let write = async move {
            let outcome = store.revoke((&key.owner).into(), id, &event).await?;
            Ok(Written::new(outcome, outcome == RevokeOutcome::Revoked, event))
        };
        match self.change(Affected::Key(id), write).await? {
            RevokeOutcome::Revoked | RevokeOutcome::AlreadyRevoked => Ok(()),
            RevokeOutcome::NotFound => Err(Error::not_found()),
        }
    }

    pub(crate) async fn revoke_all(
        &self,
        owner: &Owner,
        event: AuditEvent,
    ) -> Result<Vec<KeyId>, Error> {
        let (store, owner) = (self.store.clone(), owner.clone());
        let affected = Affected::Owner(owner.clone());
        let write = async move {
            let events = store.revoke_all(&owner, &event).await?;
            let answer = events.iter().filter_map(|event| event.key_id).collect();
            Ok(Written { answer, events })
        };
        self.change(affected, write).await
    }

    pub(crate) async fn delete(&self, on: Target<'_>) -> Result<(), Error> {
        let Target { within, id, by } = on;
        let key = self.get(within, id).await?;
        let event = self.event(EventKind::Deleted, by)?.of_key(&key);
        let store = self.store.clone();
        let write = async move {
            let is_deleted = store.delete((&key.owner).into(), id, &event).await?;
            Ok(Written::new(is_deleted, is_deleted, event))
        };
        let is_deleted = self.change(Affected::Key(id), write).await?;
        if is_deleted { Ok(()) } else { Err(Error::not_found()) }
    }

    pub(crate) async fn account_changed(&self, owner: &Owner) -> Result<(), Error> {
        let (store, at, owner) = (self.store.clone(), self.clock.now(), owner.clone());
        let affected = Affected::Owner(owner.clone());
        let write = async move {
            store.announce_account_change(&owner, at).await?;
            Ok(Written { answer: (), events: Vec::new() })
        };
        self.change(affected, write).await
    }
}

/// Returns whether a key can do something that it could not do before. Narrowing a key needs no authorization.
fn is_wider(after: &Key, before: &Key) -> bool {
    let is_enabled = before.disabled_at.is_some() && after.disabled_at.is_none();
    is_enabled
        || !before.access.covers(&after.access)
        || !before.limits.covers(&after.limits)
        || !before.networks.covers(&after.networks)
}
