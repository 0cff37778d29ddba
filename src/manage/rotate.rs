use std::{sync::Arc, time::Duration};

use sha2::Digest as _;

use crate::{
    accounts::{Account, SensitiveChange},
    audit::EventKind,
    model::{Actor, Key, KeyId, OwnerScope, RetiringSecret, Timestamp},
    store::{PreviousSecret, RotateOutcome, RotateSecret},
};
use crate::{
    api::ApiKeys,
    error::Error,
    manage::{
        change::{Done, Touches},
        issue::Issued,
        manage::MAX_ATTEMPTS,
    },
};

/// How a key gets its new secret.
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
    /// The secrets there are stop working at once.
    pub fn immediate() -> Self {
        Self::overlap(Duration::ZERO)
    }

    /// The current secret keeps working for so long. An earlier one that was still working in an
    /// overlap of its own stops at once: a key never has more than two.
    pub fn overlap(overlap: Duration) -> Self {
        Self { overlap, token: None }
    }

    /// Makes trying again safe when the answer was lost: a rotation with the same token as the
    /// key's last one replaces the secret that nobody received, and leaves the overlap as it was.
    /// Use a token for one rotation only, and try again only when the first try is over: of two at
    /// once, only the secret of the one that ends last works. Only a hash of it is stored.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(hashed(token));
        self
    }
}

pub(crate) fn hashed(token: &str) -> [u8; 32] {
    sha2::Sha256::digest(token).into()
}

impl ApiKeys {
    /// Gives a live key a new secret. Whatever else the key is, it stays: identity, name, access,
    /// limits, being disabled, and the instant at which it expires.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound); [`NotLive`](crate::error::ErrorKind::NotLive) if it is
    /// revoked or expired: rotation revives nothing; [`Forbidden`](crate::error::ErrorKind::Forbidden) if
    /// the actor may not hand out such a key; [`Suspended`](crate::error::ErrorKind::Suspended);
    /// [`SecondFactorRequired`](crate::error::ErrorKind::SecondFactorRequired); and what stores, accounts and
    /// policy have to say when they fail.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, VerifyRequest, manage::Rotation, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::account("ada"));
    /// # let old = test.issue(["builds:read"]).await;
    /// let day = std::time::Duration::from_secs(24 * 3_600);
    /// let new = keys.rotate(ada, old.key.id, Rotation::overlap(day), &actor).await?;
    /// assert_eq!(new.key.id, old.key.id);
    /// for issued in [&old, &new] {
    ///     assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn rotate<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        rotation: Rotation,
        by: &Actor,
    ) -> Result<Issued, Error> {
        let within = within.into();
        for _ in 0..MAX_ATTEMPTS {
            let before = self.live(within, id).await?;
            let judge = |_: &Account| match by.can_grant(&before) {
                true => Ok(()),
                false => Err(Error::beyond_reach()),
            };
            self.inner.sanction(&before.owner, by, SensitiveChange::Rotate, judge).await?;
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
        let secret = self.inner.formats.current().generate()?;
        let digest = self.inner.hashers.digest(secret.expose().as_bytes());
        let event = self.event(EventKind::Rotated, before, by)?;
        let at_once = rotation.overlap.is_zero();
        let former_works = before.retiring.as_ref().is_some_and(|former| former.ends_at > event.at);
        let retried = rotation.token.is_some() && rotation.token == before.rotation_token;
        let mut after = before.clone();
        let previous = if retried && !(at_once && former_works) {
            PreviousSecret::Replaced
        } else {
            // An instant that has passed by every clock: that of another node may be slow.
            let now = if at_once { Timestamp::MIN } else { event.at };
            let ends_at = now.after(rotation.overlap);
            after.retiring = Some(RetiringSecret { hint: before.hint.clone(), ends_at });
            PreviousSecret::EndsAt(ends_at)
        };
        after.hint = self.inner.formats.hint(&secret);
        after.rotated_at = Some(event.at);
        after.rotation_token = rotation.token;
        after.revision += 1;
        let (store, key, hint) = (self.inner.store.clone(), before.clone(), after.hint.clone());
        let token = rotation.token;
        let write = async move {
            let row = RotateSecret {
                key: &key,
                digest: &digest,
                hint: &hint,
                previous,
                token,
                event: &event,
            };
            match store.rotate(row).await? {
                RotateOutcome::Rotated => Ok(Done::written(RotateOutcome::Rotated, event)),
                refused => Ok(Done::nothing(refused)),
            }
        };
        let rotated = self.inner.change(Touches::Key(before.id), write).await?;
        Ok((rotated, Issued { key: Arc::new(after), secret }))
    }
}
