use std::sync::Arc;

use super::{
    authorize_change::{check_within_actor, check_within_owner},
    change::{Affected, Written},
    manager::{MAX_ATTEMPTS, Manager},
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, EventKind},
    error::Error,
    model::{
        Access, Actor, Invalid, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner, OwnerScope,
        Timestamp,
    },
    store::{RevokeOutcome, UpdateOutcome},
};

/// A change of a key. What is not set stays as it is.
///
/// # Examples
/// ```
/// use keyward::{Access, manage::KeyChange};
///
/// let change = KeyChange::default().name("deploys")?.access(Access::only(["deploy"])?);
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
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
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Sets how often the key may be used.
    pub fn limits(mut self, limits: KeyLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets the networks that the key may be used from.
    pub fn networks(mut self, networks: Networks) -> Self {
        self.networks = Some(networks);
        self
    }

    /// Replaces the host's metadata.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
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

impl Manager {
    pub(crate) async fn update(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        change: &KeyChange,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        self.edit(within, id, EventKind::Updated, by, |key, _| change.apply(key)).await
    }

    pub(crate) async fn disable(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        let disable = |key: &mut Key, now| key.disabled_at = key.disabled_at.or(Some(now));
        self.edit(within, id, EventKind::Disabled, by, disable).await
    }

    pub(crate) async fn enable(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        let enable = |key: &mut Key, _| key.disabled_at = None;
        self.edit(within, id, EventKind::Enabled, by, enable).await
    }

    pub(crate) async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        reason: &str,
        by: &Actor,
    ) -> Result<(), Error> {
        let key = self.get(within, id).await?;
        let event = self.event(EventKind::Revoked, &key, by)?.reason(reason);
        let store = self.store.clone();
        let write = async move {
            match store.revoke((&key.owner).into(), id, &event).await? {
                RevokeOutcome::Revoked => Ok(Written::with_event(Ok(()), event)),
                RevokeOutcome::AlreadyRevoked => Ok(Written::nothing(Ok(()))),
                RevokeOutcome::NotFound => Ok(Written::nothing(Err(Error::not_found()))),
            }
        };
        self.change(Affected::Key(id), write).await?
    }

    pub(crate) async fn revoke_all(
        &self,
        owner: &Owner,
        reason: &str,
        by: &Actor,
    ) -> Result<Vec<KeyId>, Error> {
        let now = self.clock.now();
        let id = self.ids.event_id(now)?;
        let event = AuditEvent::of_owner(id, now, EventKind::Revoked, owner, by).reason(reason);
        let (store, owner) = (self.store.clone(), owner.clone());
        let affected = Affected::Owner(owner.clone());
        let write = async move {
            let events = store.revoke_all(&owner, &event).await?;
            let answer = events.iter().filter_map(|event| event.key_id).collect();
            Ok(Written { answer, events })
        };
        self.change(affected, write).await
    }

    pub(crate) async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        by: &Actor,
    ) -> Result<(), Error> {
        let key = self.get(within, id).await?;
        let event = self.event(EventKind::Deleted, &key, by)?;
        let store = self.store.clone();
        let write = async move {
            match store.delete((&key.owner).into(), id, &event).await? {
                true => Ok(Written::with_event(Ok(()), event)),
                false => Ok(Written::nothing(Err(Error::not_found()))),
            }
        };
        self.change(Affected::Key(id), write).await?
    }

    pub(crate) async fn account_changed(&self, owner: &Owner) -> Result<(), Error> {
        let (store, at, owner) = (self.store.clone(), self.clock.now(), owner.clone());
        let affected = Affected::Owner(owner.clone());
        let write = async move {
            store.announce_account_change(&owner, at).await?;
            Ok(Written::nothing(()))
        };
        self.change(affected, write).await
    }

    /// Reads a live key, applies `edit`, and writes it if it was not changed meanwhile; otherwise starts again.
    async fn edit(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        kind: EventKind,
        by: &Actor,
        edit: impl Fn(&mut Key, Timestamp) + Send,
    ) -> Result<Arc<Key>, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let before = self.live(within, id).await?;
            let mut after = Key::clone(&before);
            edit(&mut after, self.clock.now());
            if after == *before {
                return Ok(before);
            }
            if is_wider(&after, &before) {
                let change = match kind {
                    EventKind::Enabled => SensitiveChange::Enable,
                    _ => SensitiveChange::Widen,
                };
                let check = |account: &Account| {
                    if !before.access.covers(&after.access) {
                        check_within_owner(&after, account)?;
                    }
                    check_within_actor(&after, by)
                };
                self.authorize_change(&after.owner, by, change, check).await?;
            }
            let event = self.event(kind, &after, by)?;
            let (store, key) = (self.store.clone(), after.clone());
            let write = async move {
                match store.update(&key, &event).await? {
                    UpdateOutcome::Updated => {
                        Ok(Written::with_event(UpdateOutcome::Updated, event))
                    }
                    refused => Ok(Written::nothing(refused)),
                }
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
}

/// Returns whether a key can do something that it could not do before. Narrowing a key needs no authorization.
fn is_wider(after: &Key, before: &Key) -> bool {
    let is_enabled = before.disabled_at.is_some() && after.disabled_at.is_none();
    is_enabled
        || !before.access.covers(&after.access)
        || !before.limits.covers(&after.limits)
        || !before.networks.covers(&after.networks)
}
