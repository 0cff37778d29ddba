use std::sync::Arc;

use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, EventKind},
    model::{
        Access, Actor, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner, OwnerScope,
        Timestamp,
    },
    store::{RevokeOutcome, UpdateOutcome},
};
use crate::{
    api::ApiKeys,
    error::Error,
    manage::{
        change::{Done, Touches},
        issue::within_owner,
    },
};

/// What shall become of a key; whatever is not named stays.
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
    /// Another name.
    ///
    /// # Errors
    /// If it is empty, longer than 100 characters, or holds a NUL.
    pub fn name(mut self, name: &str) -> Result<Self, crate::model::Invalid> {
        self.name = Some(Name::new(name)?);
        Ok(self)
    }

    /// What it may do from now on.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// How often it may be used from now on.
    pub fn limits(mut self, limits: KeyLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// From where it may be used from now on.
    pub fn networks(mut self, networks: Networks) -> Self {
        self.networks = Some(networks);
        self
    }

    /// What to remember with it, instead of what was remembered before.
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

impl ApiKeys {
    /// Changes a live key.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound); [`NotLive`](crate::error::ErrorKind::NotLive) if it is revoked or
    /// expired; [`Forbidden`](crate::error::ErrorKind::Forbidden) if more access would reach further than the
    /// owner or the actor, or more networks, oftener use, or switching it on would further than the
    /// actor; [`Suspended`](crate::error::ErrorKind::Suspended) and
    /// [`SecondFactorRequired`](crate::error::ErrorKind::SecondFactorRequired) if the key could do more by it;
    /// and what stores, accounts and policy have to say when they fail.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Access, Actor, manage::KeyChange, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::account("ada"));
    /// # let issued = test.issue(["builds:read", "deploy"]).await;
    /// let change = KeyChange::default().name("read only")?.access(Access::only(["builds:read"])?);
    /// let key = keys.update(ada, issued.key.id, &change, &actor).await?;
    /// assert_eq!(key.name.as_str(), "read only");
    /// # Ok(()) }
    /// ```
    pub async fn update<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        change: &KeyChange,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        self.amend(within.into(), id, EventKind::Updated, by, |key, _| change.apply(key)).await
    }

    /// Switches a live key off until it is enabled. It keeps counting against the owner's limit.
    ///
    /// # Errors
    /// As [`update`](ApiKeys::update).
    pub async fn disable<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        let off = |key: &mut Key, now| key.disabled_at = key.disabled_at.or(Some(now));
        self.amend(within.into(), id, EventKind::Disabled, by, off).await
    }

    /// Switches a key on again. It brings no revoked or expired key back.
    ///
    /// # Errors
    /// As [`update`](ApiKeys::update).
    pub async fn enable<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        let on = |key: &mut Key, _| key.disabled_at = None;
        self.amend(within.into(), id, EventKind::Enabled, by, on).await
    }

    /// Revokes a key for ever. Revoking it again changes nothing, and is no error. Of the reason, the
    /// first 1,000 characters are kept, and a NUL in it is replaced.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound), and those of a store that fails.
    pub async fn revoke<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        reason: &str,
        by: &Actor,
    ) -> Result<(), Error> {
        let key = self.get(within, id).await?;
        let event = self.event(EventKind::Revoked, &key, by)?.reason(reason);
        let store = self.inner.store.clone();
        let write = async move {
            match store.revoke((&key.owner).into(), id, &event).await? {
                RevokeOutcome::Revoked => Ok(Done::written(Ok(()), event)),
                RevokeOutcome::AlreadyRevoked => Ok(Done::nothing(Ok(()))),
                RevokeOutcome::NotFound => Ok(Done::nothing(Err(Error::not_found()))),
            }
        };
        self.inner.change(Touches::Key(id), write).await?
    }

    /// Revokes all of an owner's keys in one step, and tells which ones were not revoked before. One that
    /// is being issued may come after it: an owner that leaves is suspended by the host's
    /// [`Accounts`](crate::Accounts) first.
    ///
    /// # Errors
    /// Only those of a store that fails.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::account("ada"));
    /// # let (ci, laptop) = (test.issue(["a"]).await, test.issue(["a"]).await);
    /// let revoked = keys.revoke_all(ada, "left the company", &actor).await?;
    /// assert!(revoked.contains(&ci.key.id) && revoked.contains(&laptop.key.id));
    /// # Ok(()) }
    /// ```
    pub async fn revoke_all(
        &self,
        owner: &Owner,
        reason: &str,
        by: &Actor,
    ) -> Result<Vec<KeyId>, Error> {
        let now = self.inner.now();
        let id = self.inner.ids.event_id(now)?;
        let event = AuditEvent::of_owner(id, now, EventKind::Revoked, owner, by).reason(reason);
        let (store, owner) = (self.inner.store.clone(), owner.clone());
        let touches = Touches::Owner(owner.clone());
        let write = async move {
            let events = store.revoke_all(&owner, &event).await?;
            Ok(Done { answer: events.iter().filter_map(|event| event.key_id).collect(), events })
        };
        self.inner.change(touches, write).await
    }

    /// Removes a key's record, and with it the key. Its audit events stay. To end a key, rather
    /// [`revoke`](ApiKeys::revoke) it: a record tells later what a leaked secret was.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound), and those of a store that fails.
    pub async fn delete<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        by: &Actor,
    ) -> Result<(), Error> {
        let key = self.get(within, id).await?;
        let event = self.event(EventKind::Deleted, &key, by)?;
        let store = self.inner.store.clone();
        let write = async move {
            match store.delete((&key.owner).into(), id, &event).await? {
                true => Ok(Done::written(Ok(()), event)),
                false => Ok(Done::nothing(Err(Error::not_found()))),
            }
        };
        self.inner.change(Touches::Key(id), write).await?
    }

    /// Reads a live key, lets `edit` change it, and writes it if nobody changed it meanwhile; else
    /// begins again.
    async fn amend(
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
            edit(&mut after, self.inner.now());
            if after == *before {
                return Ok(before);
            }
            if is_wider(&after, &before) {
                let change = match kind {
                    EventKind::Enabled => SensitiveChange::Enable,
                    _ => SensitiveChange::Widen,
                };
                let judge = |account: &Account| {
                    if !before.access.covers(&after.access) {
                        within_owner(&after, account)?;
                    }
                    if by.may_hand_out(&after) { Ok(()) } else { Err(Error::beyond_reach()) }
                };
                self.inner.sanction(&after.owner, by, change, judge).await?;
            }
            let event = self.event(kind, &after, by)?;
            let (store, key) = (self.inner.store.clone(), after.clone());
            let write = async move {
                match store.update(&key, &event).await? {
                    UpdateOutcome::Updated => Ok(Done::written(UpdateOutcome::Updated, event)),
                    refused => Ok(Done::nothing(refused)),
                }
            };
            match self.inner.change(Touches::Key(id), write).await? {
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

    /// A key that is neither revoked nor expired.
    pub(crate) async fn live(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Arc<Key>, Error> {
        let key = self.get(within, id).await?;
        if key.is_live(self.inner.now()) { Ok(key) } else { Err(Error::not_live(&key)) }
    }

    pub(crate) fn event(
        &self,
        kind: EventKind,
        key: &Key,
        by: &Actor,
    ) -> Result<AuditEvent, Error> {
        let now = self.inner.now();
        Ok(AuditEvent::of(self.inner.ids.event_id(now)?, now, kind, key, by))
    }
}

/// Whether a key can do anything that it could not do before. Narrowing one is nobody's privilege.
fn is_wider(after: &Key, before: &Key) -> bool {
    let on = before.disabled_at.is_some() && after.disabled_at.is_none();
    on || !before.access.covers(&after.access)
        || !before.limits.cover(&after.limits)
        || !before.networks.cover(&after.networks)
}

/// Each lost attempt means that another one's change was written: only a storm gets this far.
pub(crate) const MAX_ATTEMPTS: usize = 100;
