use std::sync::Arc;

use super::Manager;
use crate::{
    audit::{AuditQuery, EventKind},
    error::Error,
    model::{Actor, Key},
    verify::DeniedReason,
};

/// The key that a text is, or was, a secret of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identified {
    /// The key, live or not.
    pub key: Arc<Key>,
    /// Why the secret does not work now; `None` if it works.
    pub denied: Option<DeniedReason>,
    /// Whether a rotation replaced this secret and its overlap has ended. Then the leak of this secret is harmless.
    pub superseded: bool,
}

impl Manager {
    pub(crate) async fn record_leak(
        &self,
        key: &Key,
        place: &str,
        by: &Actor,
    ) -> Result<(), Error> {
        let event = self.event(EventKind::Leaked, key, by)?.reason(place);
        let known = AuditQuery::new(&key.owner).key(key.id).kind(EventKind::Leaked);
        let known = self.store.events(&known.limit(1_000)).await?;
        if known.iter().any(|known| known.reason == event.reason && known.actor == event.actor) {
            return Ok(());
        }
        self.write_event(event).await
    }
}
