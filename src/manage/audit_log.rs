use std::{mem::take, sync::Arc};

use super::manager::Manager;
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind, ExportFormat},
    error::Error,
    model::{Key, Owner, OwnerScope, debug_only},
};

impl Manager {
    /// Writes the event of a leak, unless the same leak was reported by the same actor before.
    pub(crate) async fn record_leak(&self, key: &Key, event: AuditEvent) -> Result<(), Error> {
        let known = AuditQuery::new(&key.owner).key(key.id).kind(EventKind::Leaked);
        let known = self.store.events(&known.limit(1_000)).await?;
        if known.iter().any(|known| known.reason == event.reason && known.actor == event.actor) {
            return Ok(());
        }
        self.write_event(event).await
    }
}

/// An export of the audit log. It is read page by page: only one page is in memory.
#[must_use]
#[derive(Clone)]
pub struct AuditExport {
    manager: Arc<Manager>,
    format: ExportFormat,
    tenant: String,
    /// `None` if the export is of the whole tenant.
    owner: Option<Owner>,
    /// The next page, of `owner` or `tenant`.
    query: AuditQuery<'static>,
    head: String,
    pub(crate) is_over: bool,
}

impl AuditExport {
    pub(crate) fn new(manager: Arc<Manager>, query: AuditQuery<'_>, format: ExportFormat) -> Self {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = query;
        let (tenant, owner) = match within {
            OwnerScope::Owner(owner) => (String::new(), Some(owner.clone())),
            OwnerScope::Tenant(tenant) => (tenant.into(), None),
        };
        let within = OwnerScope::Tenant("");
        let query = AuditQuery { within, key_id, kind, from, until, after, limit };
        Self { manager, format, tenant, owner, query, head: format.header(), is_over: false }
    }

    /// Returns the next page of whole lines; `None` after the last. Events written meanwhile do not shift the pages.
    ///
    /// # Errors
    /// Errors of the store. Nothing is lost by that, nor if the future is dropped: the next call reads the same page.
    pub async fn next_page(&mut self) -> Result<Option<String>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut query: AuditQuery<'_> = self.query;
        let tenant = OwnerScope::Tenant(&self.tenant);
        query.within = self.owner.as_ref().map_or(tenant, OwnerScope::Owner);
        let events = self.manager.store.events(&query).await?;
        self.is_over = events.len() < query.limit as usize || events.is_empty();
        self.query.after = events.last().map(|last| last.id);
        let mut page = take(&mut self.head);
        for event in &events {
            self.format.write(&mut page, event);
        }
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}

debug_only!(AuditExport { format, tenant, owner, is_over });
