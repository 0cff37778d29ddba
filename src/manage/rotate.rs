use std::{mem::replace, sync::Arc, time::Duration};

use super::{
    change::{Affected, Written, check_within_actor},
    issue::{Issued, token_hash},
    manager::{MAX_ATTEMPTS, Manager, Target},
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::EventKind,
    error::Error,
    model::{Key, RetiringSecret, Timestamp},
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
    pub fn token(self, token: &str) -> Self {
        Self { token: Some(token_hash(token)), ..self }
    }

    /// Returns the key after this rotation at `now`, and what happens to its existing secrets.
    fn apply(&self, before: &Key, hint: String, now: Timestamp) -> (Key, PreviousSecret) {
        let mut after = before.clone();
        let old_hint = replace(&mut after.hint, hint);
        after.rotated_at = Some(now);
        after.rotation_token = self.token;
        after.revision += 1;
        let immediate = self.overlap.is_zero();
        let retiring_works = before.retiring.as_ref().is_some_and(|old| old.ends_at > now);
        let is_retry = self.token.is_some() && self.token == before.rotation_token;
        if is_retry && !(immediate && retiring_works) {
            return (after, PreviousSecret::Replaced);
        }
        // An immediate end lies in the past of every node, also of one whose clock is slow.
        let start = if immediate { Timestamp::MIN } else { now };
        let ends_at = start.after(self.overlap);
        after.retiring = Some(RetiringSecret { hint: old_hint, ends_at });
        (after, PreviousSecret::EndsAt(ends_at))
    }
}

impl Manager {
    pub(crate) async fn rotate(&self, on: Target<'_>, rotation: Rotation) -> Result<Issued, Error> {
        let Target { within, id, by } = on;
        for _ in 0..MAX_ATTEMPTS {
            let before = self.live(within, id).await?;
            let check = |_: &Account| check_within_actor(&before, by);
            self.authorize_change(&before.owner, by, SensitiveChange::Rotate, check).await?;
            let secret = self.formats.current().generate()?;
            let digest = self.hashers.digest(secret.expose().as_bytes());
            let event = self.event(EventKind::Rotated, by)?.of_key(&before);
            let hint = self.formats.hint(&secret);
            let (after, previous) = rotation.apply(&before, hint.clone(), event.at);
            let (store, token) = (self.store.clone(), rotation.token);
            let write = async move {
                let rotate = RotateSecret {
                    key: &before,
                    digest: &digest,
                    hint: &hint,
                    previous,
                    token,
                    event: &event,
                };
                let outcome = store.rotate(rotate).await?;
                Ok(Written::new(outcome, outcome == RotateOutcome::Rotated, event))
            };
            match self.change(Affected::Key(id), write).await? {
                RotateOutcome::Rotated => return Ok(Issued { key: Arc::new(after), secret }),
                RotateOutcome::NotFound => return Err(Error::not_found()),
                RotateOutcome::Conflict | RotateOutcome::DigestTaken => {}
            }
        }
        Err(Error::conflict())
    }
}
