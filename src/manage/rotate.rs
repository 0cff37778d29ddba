use std::{sync::Arc, time::Duration};

use super::{
    change::{Affected, Written, check_within_actor},
    issue::{Issued, token_hash},
    manager::{MAX_ATTEMPTS, Manager, Target},
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::EventKind,
    error::Error,
    model::{Actor, Key, RetiringSecret, Timestamp},
    store::{PreviousSecret, RotateOutcome, RotateSecret},
};

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

    /// Makes a retry safe after the answer was lost: a rotation with the token of the key's last rotation replaces the
    /// secret that was not received, and leaves the overlap as it was.
    ///
    /// Use a token for one rotation only: a later rotation with the same token is taken for a retry, and ends the current
    /// secret without an overlap. Retry only after the first attempt has ended: of two concurrent attempts, only the secret
    /// of the last one works. Only a hash of the token is stored.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token_hash(token));
        self
    }
}

impl Manager {
    pub(crate) async fn rotate(&self, on: Target<'_>, rotation: Rotation) -> Result<Issued, Error> {
        let by = on.by;
        for _ in 0..MAX_ATTEMPTS {
            let before = self.live(on.within, on.id).await?;
            let check = |_: &Account| check_within_actor(&before, by);
            self.authorize_change(&before.owner, by, SensitiveChange::Rotate, check).await?;
            match self.replace_secret(&before, &rotation, by).await? {
                (RotateOutcome::Rotated, issued) => return Ok(issued),
                (RotateOutcome::NotFound, _) => return Err(Error::not_found()),
                (RotateOutcome::Conflict | RotateOutcome::DigestTaken, _) => {}
            }
        }
        Err(Error::conflict())
    }

    async fn replace_secret(
        &self,
        before: &Key,
        rotation: &Rotation,
        by: &Actor,
    ) -> Result<(RotateOutcome, Issued), Error> {
        let secret = self.formats.current().generate()?;
        let digest = self.hashers.digest(secret.expose().as_bytes());
        let event = self.event(EventKind::Rotated, by)?.of_key(before);
        let immediate = rotation.overlap.is_zero();
        let retiring_works = before.retiring.as_ref().is_some_and(|old| old.ends_at > event.at);
        let is_retry = rotation.token.is_some() && rotation.token == before.rotation_token;
        let mut after = before.clone();
        let previous = if is_retry && !(immediate && retiring_works) {
            PreviousSecret::Replaced
        } else {
            // An immediate end lies in the past of every node, also of one whose clock is slow.
            let start = if immediate { Timestamp::MIN } else { event.at };
            let ends_at = start.after(rotation.overlap);
            after.retiring = Some(RetiringSecret { hint: before.hint.clone(), ends_at });
            PreviousSecret::EndsAt(ends_at)
        };
        after.hint = self.formats.hint(&secret);
        after.rotated_at = Some(event.at);
        after.rotation_token = rotation.token;
        after.revision += 1;
        let (store, key, after) = (self.store.clone(), before.clone(), Arc::new(after));
        let rotated = after.clone();
        let write = async move {
            let rotate = RotateSecret {
                key: &key,
                digest: &digest,
                hint: &rotated.hint,
                previous,
                token: rotated.rotation_token,
                event: &event,
            };
            let outcome = store.rotate(rotate).await?;
            Ok(Written::new(outcome, outcome == RotateOutcome::Rotated, event))
        };
        let outcome = self.change(Affected::Key(before.id), write).await?;
        Ok((outcome, Issued { key: after, secret }))
    }
}
