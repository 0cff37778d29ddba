use std::{mem::take, sync::Arc};

use super::manager::Manager;
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind, ExportFormat, Outcome},
    error::Error,
    model::{Actor, Key, Owner, OwnerScope},
};

impl Manager {
    pub(crate) async fn events(&self, query: AuditQuery<'_>) -> Result<Vec<AuditEvent>, Error> {
        Ok(self.store.events(&query).await?)
    }

    pub(crate) async fn record_event(
        &self,
        of: &Owner,
        what: &str,
        outcome: Outcome,
        by: &Actor,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let id = self.ids.event_id(now)?;
        let event = AuditEvent::of_owner(id, now, EventKind::HostEvent, of, by).reason(what);
        self.write_event(AuditEvent { outcome, key_id: by.key_id, ..event }).await
    }

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

    pub(crate) fn export(
        self: &Arc<Self>,
        query: AuditQuery<'_>,
        format: ExportFormat,
    ) -> AuditExport {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = query;
        let within = OwnedScope::of(within);
        let query =
            AuditQuery { within: OwnerScope::Tenant(""), key_id, kind, from, until, after, limit };
        let (manager, head) = (self.clone(), format.header());
        AuditExport { manager, format, within, query, head, is_over: false }
    }
}

/// An export of the audit log. It is read page by page: only one page is in memory.
#[must_use]
#[derive(Clone)]
pub struct AuditExport {
    manager: Arc<Manager>,
    format: ExportFormat,
    within: OwnedScope,
    /// The next page. Its scope is replaced by `within`.
    query: AuditQuery<'static>,
    head: String,
    is_over: bool,
}

impl AuditExport {
    /// Returns the next page of whole lines; `None` after the last one. Events that are written meanwhile do not shift the
    /// pages.
    ///
    /// # Errors
    /// Errors of the store. Nothing is lost: the next call reads the same page again.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing.
    pub async fn next_page(&mut self) -> Result<Option<String>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut query: AuditQuery<'_> = self.query;
        query.within = self.within.as_scope();
        let events = self.manager.events(query).await?;
        self.is_over = events.len() < query.limit as usize || events.is_empty();
        self.query.after = events.last().map(|last| last.id);
        let mut page = take(&mut self.head);
        for event in &events {
            self.format.write(&mut page, event);
        }
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    /// Returns whether the last page was read.
    #[cfg(feature = "manage")]
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

impl std::fmt::Debug for AuditExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditExport")
            .field("format", &self.format)
            .field("within", &self.within)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

/// An owned [`OwnerScope`].
#[derive(Clone, Debug)]
enum OwnedScope {
    Owner(Owner),
    Tenant(String),
}

impl OwnedScope {
    fn of(within: OwnerScope<'_>) -> Self {
        match within {
            OwnerScope::Owner(owner) => Self::Owner(owner.clone()),
            OwnerScope::Tenant(tenant) => Self::Tenant(tenant.into()),
        }
    }

    fn as_scope(&self) -> OwnerScope<'_> {
        match self {
            Self::Owner(owner) => OwnerScope::Owner(owner),
            Self::Tenant(tenant) => OwnerScope::Tenant(tenant),
        }
    }
}
