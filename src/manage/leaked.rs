use std::sync::Arc;

use crate::{api::ApiKeys, error::Error};
use crate::{
    audit::{AuditQuery, EventKind},
    model::{Actor, Key},
};

/// The key that a secret is one of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identified {
    /// The key, live or not.
    pub key: Arc<Key>,
    /// A rotation has replaced this secret, and its overlap is over: it opens nothing any more.
    pub superseded: bool,
}

impl ApiKeys {
    /// Whose secret this is, for who has found one: a report of a leak, support. It proves nothing,
    /// counts as no use, and tells also of keys that are revoked, expired or disabled.
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
    /// # let keys = &test.keys;
    /// # let issued = test.issue(["a"]).await;
    /// # let pasted = issued.secret.expose();
    /// if let Some(found) = keys.identify(pasted).await? {
    ///     let actor = Actor::system("support");
    ///     keys.revoke(&found.key.owner, found.key.id, "pasted into a ticket", &actor).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn identify<T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &T,
    ) -> Result<Option<Identified>, Error> {
        let (inner, text) = (&self.inner, presented.as_ref());
        if inner.formats.check(text).is_err() {
            return Ok(None);
        }
        let now = inner.now();
        let found = inner.find(&inner.hashers.candidates(text)).await?;
        Ok(found.map(|found| Identified {
            superseded: found.ends_at.is_some_and(|end| end <= now),
            key: found.key,
        }))
    }

    /// Notes in the audit log that a secret of this key was found where it does not belong, unless
    /// the same is noted there already.
    ///
    /// # Errors
    /// Only those of a store that fails.
    pub async fn record_leak(&self, key: &Key, place: &str, by: &Actor) -> Result<(), Error> {
        let event = self.event(EventKind::Leaked, key, by)?.reason(place);
        let known = AuditQuery::new(&key.owner).key(key.id).kind(EventKind::Leaked);
        let known = self.inner.store.events(&known.limit(1_000)).await?;
        if known.iter().any(|known| known.reason == event.reason && known.actor == event.actor) {
            return Ok(());
        }
        self.inner.log(event).await
    }
}
