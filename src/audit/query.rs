use super::{AuditEvent, EventKind};
use crate::model::{EventId, KeyId, OwnerScope, Timestamp};

/// Which events to read, newest first. Every query names the tenant.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AuditQuery<'a> {
    /// Whose events.
    pub within: OwnerScope<'a>,
    /// Of this key only.
    pub key_id: Option<KeyId>,
    /// Of this kind only.
    pub kind: Option<EventKind>,
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Until before this instant.
    pub until: Option<Timestamp>,
    /// Only what comes behind this event in the order of reading: older ones.
    pub after: Option<EventId>,
    /// How many at most.
    pub limit: u32,
}

impl<'a> AuditQuery<'a> {
    /// The newest 100 events of an owner or a tenant.
    pub fn new(within: impl Into<OwnerScope<'a>>) -> Self {
        Self {
            within: within.into(),
            key_id: None,
            kind: None,
            from: None,
            until: None,
            after: None,
            limit: 100,
        }
    }

    /// Of this key only.
    pub fn key(mut self, id: KeyId) -> Self {
        self.key_id = Some(id);
        self
    }

    /// Of this kind only.
    pub fn kind(mut self, kind: EventKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// From this instant on.
    pub fn from(mut self, instant: Timestamp) -> Self {
        self.from = Some(instant);
        self
    }

    /// Until before this instant.
    pub fn until(mut self, instant: Timestamp) -> Self {
        self.until = Some(instant);
        self
    }

    /// The page behind the one that ended with this event.
    pub fn after(mut self, last: EventId) -> Self {
        self.after = Some(last);
        self
    }

    /// How many at most; 1 to 1,000.
    pub fn limit(mut self, events: u32) -> Self {
        self.limit = events.clamp(1, 1_000);
        self
    }

    /// Whether an event is asked for, order and number aside.
    pub fn matches(&self, event: &AuditEvent) -> bool {
        self.within.tenant() == event.tenant
            && self.within.account().is_none_or(|account| event.account.as_deref() == Some(account))
            && self.key_id.is_none_or(|id| event.key_id == Some(id))
            && self.kind.is_none_or(|kind| event.kind == kind)
            && self.from.is_none_or(|from| event.at >= from)
            && self.until.is_none_or(|until| event.at < until)
            && self.after.is_none_or(|after| event.id < after)
    }
}
