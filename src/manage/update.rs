use std::{mem::replace, sync::Arc, time::Duration};

use super::{
    change::{check_within_actor, check_within_owner},
    issue::Issued,
    manager::{Manager, Target},
    repeat::{TOKEN_LIFETIME, replaced_if_unused, secret_made_at, token_hash},
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, EventKind},
    error::Error,
    model::{
        Access, Invalid, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner, RetiringSecret,
        Timestamp,
    },
    store::{PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome},
};

/// A change of a key, for [`ApiKeys::update`](crate::ApiKeys::update). What is not set stays as it is.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KeyChange {
    pub(crate) name: Option<Name>,
    pub(crate) access: Option<Access>,
    pub(crate) limits: Option<KeyLimits>,
    pub(crate) networks: Option<Networks>,
    pub(crate) metadata: Option<Metadata>,
}

impl KeyChange {
    /// Sets the name.
    ///
    /// # Errors
    /// If it is empty, longer than 100 characters, or contains a NUL.
    pub fn name(self, name: &str) -> Result<Self, Invalid> {
        Ok(Self { name: Some(Name::new(name)?), ..self })
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

/// How a key gets a new secret.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use keyward::manage::Rotation;
///
/// let leaked = Rotation::immediate();
/// let routine = Rotation::overlap(Duration::from_secs(24 * 3_600)).token("deploy-4711");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Rotation {
    overlap: Duration,
    token: Option<[u8; 32]>,
}

impl Rotation {
    /// Ends the current secret, and a retiring one, immediately.
    pub fn immediate() -> Self {
        Self::overlap(Duration::ZERO)
    }

    /// Lets the current secret work for this time. A retiring secret of an earlier rotation ends immediately: a key never
    /// has more than two secrets that work.
    pub fn overlap(overlap: Duration) -> Self {
        Self { overlap, token: None }
    }

    /// Makes a repetition safe after the answer was lost: a rotation with the token of the key's last rotation, within a
    /// day after it, replaces the secret that was not received, and leaves the overlap as it was.
    ///
    /// Concurrent rotations with one token do not end each other's secrets: in the first 10 seconds after a secret was
    /// made, a repetition is [`InProgress`](crate::ErrorKind::InProgress). The clocks of all nodes must agree to within
    /// a few seconds.
    ///
    /// A repetition is [`TokenReused`](crate::ErrorKind::TokenReused) if its overlap differs, or if the new secret was
    /// used. The node that is called considers all uses that it has accepted; verifications of the key wait until the
    /// repetition is written. It considers uses on other nodes once they are written: a node writes the first use of a
    /// secret immediately and others within 5 seconds, unless the store fails.
    ///
    /// After another rotation of the key, or after a day, the token makes another rotation. Only a hash of it is stored.
    pub fn token(self, token: &str) -> Self {
        let mut bytes = token_hash("rotate", token);
        // Half of the hash is long enough. The overlap is kept to compare it with that of a repetition.
        bytes[16..].copy_from_slice(&self.overlap.as_nanos().to_be_bytes());
        Self { token: Some(bytes), ..self }
    }

    /// Returns what happens to the existing secrets of a key if it is rotated at `now`.
    fn previous_secret(&self, key: &Key, now: Timestamp) -> Result<PreviousSecret, Error> {
        if let (Some(token), Some(last)) = (self.token, key.rotation_token)
            && token[..16] == last[..16]
            && now.since(secret_made_at(key)) <= TOKEN_LIFETIME
        {
            let is_same = token == last;
            return if is_same { replaced_if_unused(key, now) } else { Err(Error::token_reused()) };
        }
        // An immediate end lies in the past of every node, also of one whose clock is slow.
        let start = if self.overlap.is_zero() { Timestamp::MIN } else { now };
        Ok(PreviousSecret::EndsAt(start.after(self.overlap)))
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
    pub(crate) async fn edit(
        &self,
        Target { within, id, by }: Target<'_>,
        edit: Edit<'_>,
    ) -> Result<Arc<Key>, Error> {
        if let Edit::Change(KeyChange { access, networks, .. }) = edit {
            access.as_ref().map_or(Ok(()), Access::check_bound)?;
            networks.as_ref().map_or(Ok(()), Networks::check_bound)?;
        }
        for _ in self.attempts() {
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
            if after.limits != before.limits {
                self.check_counted(after.limits.quota)?;
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
            let event = self.event(kind, by).await?.of_key(&after);
            let (store, key) = (self.store.clone(), after.clone());
            let write = async move {
                let outcome = store.update(&key, &event).await?;
                Ok((outcome, (outcome == UpdateOutcome::Updated).then_some(event)))
            };
            match self.change(move |cache| cache.invalidate_key(id), write).await? {
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

    pub(crate) async fn rotate(
        &self,
        target: Target<'_>,
        rotation: Rotation,
    ) -> Result<Issued, Error> {
        let token = rotation.token;
        self.replace_secret(target, token, |key, now| rotation.previous_secret(key, now)).await
    }

    /// Gives a live key a new secret. `decide` returns what happens to its existing secrets, or refuses. If others change
    /// the key meanwhile, it starts again.
    pub(super) async fn replace_secret(
        &self,
        Target { within, id, by }: Target<'_>,
        token: Option<[u8; 32]>,
        decide: impl Fn(&Key, Timestamp) -> Result<PreviousSecret, Error> + Send + Sync,
    ) -> Result<Issued, Error> {
        for _ in self.attempts() {
            if token.is_some() {
                // A secret that was used must not be replaced, also if its use is not written yet.
                self.writer.flush_uses().await?;
            }
            let before = self.live(within, id).await?;
            let check = |_: &Account| {
                check_within_actor(&before, by)?;
                let event = self.event_after_check(EventKind::Rotated, by)?.of_key(&before);
                let previous = decide(&before, event.at)?;
                Ok((event, previous))
            };
            let authorized =
                self.authorize_change(&before.owner, by, SensitiveChange::Rotate, check);
            let (event, previous) = authorized.await?;
            let secret = self.formats.current().generate()?;
            let digest = self.hashers.digest(secret.expose().as_bytes());
            let hint = self.formats.hint(&secret);
            let after = rotated(&before, &hint, token, previous, event.at);
            let (store, writer) = (self.store.clone(), self.writer.clone());
            // From here on, verifications that read the key wait.
            let replacement =
                (previous == PreviousSecret::Replaced).then(|| writer.replacements.begin(id));
            let write = async move {
                let _until_it_is_written = replacement;
                if previous == PreviousSecret::Replaced {
                    // Uses since the first flush: this node's cache does not have the secret any more.
                    writer.flush_uses().await?;
                }
                let rotate = RotateSecret {
                    key: &before,
                    digest: &digest,
                    hint: &hint,
                    previous,
                    token,
                    event: &event,
                };
                let outcome = store.rotate(rotate).await?;
                Ok((outcome, (outcome == RotateOutcome::Rotated).then_some(event)))
            };
            match self.change(move |cache| cache.invalidate_key(id), write).await? {
                RotateOutcome::Rotated => return Ok(Issued { key: Arc::new(after), secret }),
                RotateOutcome::NotFound => return Err(Error::not_found()),
                RotateOutcome::SecretUsed => return Err(Error::token_reused()),
                RotateOutcome::Conflict | RotateOutcome::DigestTaken => {}
            }
        }
        Err(Error::conflict())
    }

    pub(crate) async fn revoke(
        &self,
        Target { within, id, by }: Target<'_>,
        reason: &str,
    ) -> Result<(), Error> {
        let key = self.get(within, id).await?;
        let event = self.ending_event(EventKind::Revoked, by).await?;
        let event = event.of_key(&key).reason(reason);
        let store = self.store.clone();
        let write = async move {
            let outcome = store.revoke((&key.owner).into(), id, &event).await?;
            Ok((outcome, (outcome == RevokeOutcome::Revoked).then_some(event)))
        };
        match self.change(move |cache| cache.invalidate_key(id), write).await? {
            RevokeOutcome::Revoked | RevokeOutcome::AlreadyRevoked => Ok(()),
            RevokeOutcome::NotFound => Err(Error::not_found()),
        }
    }

    pub(crate) async fn revoke_all(
        &self,
        owner: &Owner,
        event: AuditEvent,
    ) -> Result<Vec<KeyId>, Error> {
        let (store, of) = (self.store.clone(), owner.clone());
        let write = async move {
            let events = store.revoke_all(&of, &event).await?;
            Ok((events.iter().filter_map(|event| event.key_id).collect(), events))
        };
        let owner = owner.clone();
        self.change(move |cache| cache.invalidate_owner(&owner), write).await
    }

    pub(crate) async fn delete(&self, Target { within, id, by }: Target<'_>) -> Result<(), Error> {
        let key = self.get(within, id).await?;
        let event = self.ending_event(EventKind::Deleted, by).await?.of_key(&key);
        let store = self.store.clone();
        let write = async move {
            let is_deleted = store.delete((&key.owner).into(), id, &event).await?;
            Ok((is_deleted, is_deleted.then_some(event)))
        };
        let is_deleted = self.change(move |cache| cache.invalidate_key(id), write).await?;
        if is_deleted { Ok(()) } else { Err(Error::not_found()) }
    }

    pub(crate) async fn account_changed(&self, owner: &Owner) -> Result<(), Error> {
        let (store, at, of) = (self.store.clone(), self.clock.now(), owner.clone());
        let write = async move {
            if let Some(feed) = store.change_feed() {
                feed.announce_account_change(&of, at).await?;
            }
            Ok(((), None))
        };
        let owner = owner.clone();
        self.change(move |cache| cache.invalidate_owner(&owner), write).await
    }
}

/// Returns a key as it is after a rotation.
fn rotated(
    before: &Key,
    hint: &str,
    token: Option<[u8; 32]>,
    previous: PreviousSecret,
    at: Timestamp,
) -> Key {
    let mut after = before.clone();
    let old_hint = replace(&mut after.hint, hint.into());
    if let PreviousSecret::EndsAt(ends_at) = previous {
        after.retiring = Some(RetiringSecret { hint: old_hint, ends_at });
    }
    after.rotated_at = Some(at);
    after.rotation_token = token;
    after.secret_first_used_at = None;
    after.revision += 1;
    after
}

/// Returns whether a key can do something that it could not do before. Narrowing a key needs no authorization.
fn is_wider(after: &Key, before: &Key) -> bool {
    let is_enabled = before.disabled_at.is_some() && after.disabled_at.is_none();
    is_enabled
        || !before.access.covers(&after.access)
        || !before.limits.covers(&after.limits)
        || !before.networks.covers(&after.networks)
}
