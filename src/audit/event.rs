use std::{fmt, net::IpAddr};

use crate::model::{
    Actor, EventId, Key, KeyId, Owner, OwnerScope, Timestamp, bounds::MAX_REASON_CHARS, named,
    one_line, truncated,
};

/// An entry of the audit log.
///
/// `Display` writes a single line in which control characters and terminal escapes are escaped.
///
/// A store MUST keep every field. From stored values, build an event with [`new`](AuditEvent::new) and set its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The unique identifier. Identifiers sort by time.
    pub id: EventId,
    /// When the event happened.
    pub at: Timestamp,
    /// The kind of event.
    pub kind: EventKind,
    /// Whether the action succeeded.
    pub outcome: Outcome,
    /// The tenant; empty if the host has no tenants, or if the tenant is unknown.
    pub tenant: String,
    /// The account of the owner.
    pub account: Option<String>,
    /// The key.
    pub key_id: Option<KeyId>,
    /// The label of the actor.
    pub actor: String,
    /// The IP address of the actor.
    pub ip: Option<IpAddr>,
    /// The user agent of the actor.
    pub user_agent: Option<String>,
    /// The reason of a revocation or a refusal, or the name of an event that the host
    /// [recorded](crate::api::ApiKeys::record_event).
    pub reason: Option<String>,
    /// The number of occurrences. Refused attempts of the same kind are combined into one event.
    pub count: u32,
}

named! {
/// The kind of an [`AuditEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A key was issued.
    Created = "key.created",
    /// A key was imported from another system.
    Imported = "key.imported",
    /// Name, access, limits, networks or metadata of a key changed.
    Updated = "key.updated",
    /// A key got a new secret.
    Rotated = "key.rotated",
    /// A key was disabled.
    Disabled = "key.disabled",
    /// A key was enabled.
    Enabled = "key.enabled",
    /// A key was revoked.
    Revoked = "key.revoked",
    /// A key's record was deleted.
    Deleted = "key.deleted",
    /// The record of a revoked or expired key was purged after its retention.
    Purged = "key.purged",
    /// A key was used for the first time.
    FirstUsed = "key.first_used",
    /// A request was refused.
    Denied = "key.denied",
    /// A one-time code was requested.
    CodeRequested = "code.requested",
    /// A one-time code was exchanged for a key.
    CodeAccepted = "code.accepted",
    /// A one-time code was not sent or not accepted.
    CodeRefused = "code.refused",
    /// A second factor was accepted.
    SecondFactorAccepted = "second_factor.accepted",
    /// A second factor was wrong, already used, or attempted too often.
    SecondFactorRefused = "second_factor.refused",
    /// A secret of a key was found in a public place, for example by a secret scanner.
    Leaked = "key.leaked",
    /// A key will expire soon.
    Expiring = "key.expiring",
    /// A key's secret should be rotated.
    RotationDue = "key.rotation_due",
    /// A key was not used for a long time.
    Unused = "key.unused",
    /// An event of the host. Its name is in the field `reason`.
    HostEvent = "host.noted",
}
}

named! {
/// Whether an action succeeded. Exhaustive on purpose: there is no third outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The action was performed.
    Success = "success",
    /// The action was refused.
    Failure = "failure",
}
}

#[cfg(feature = "serde")]
crate::model::serde_as_text!(EventKind, Outcome);

impl AuditEvent {
    /// Returns a successful event without tenant, account, key or actor, with a count of 1.
    pub fn new(id: EventId, at: Timestamp, kind: EventKind) -> Self {
        Self {
            id,
            at,
            kind,
            outcome: Outcome::Success,
            tenant: String::new(),
            account: None,
            key_id: None,
            actor: String::new(),
            ip: None,
            user_agent: None,
            reason: None,
            count: 1,
        }
    }

    /// An action of an actor, without an owner.
    pub(crate) fn by(id: EventId, at: Timestamp, kind: EventKind, by: &Actor) -> Self {
        Self {
            actor: by.label().into(),
            ip: by.ip,
            user_agent: by.user_agent.clone(),
            ..Self::new(id, at, kind)
        }
    }

    pub(crate) fn of_owner(self, owner: &Owner) -> Self {
        let account = Some(owner.account().into());
        Self { tenant: owner.tenant().into(), account, ..self }
    }

    pub(crate) fn of_key(self, key: &Key) -> Self {
        Self { key_id: Some(key.id), ..self.of_owner(&key.owner) }
    }

    pub(crate) fn reason(mut self, reason: &str) -> Self {
        // Truncated instead of rejected: a revocation must not fail because of its reason.
        self.reason = (!reason.is_empty()).then(|| truncated(reason, MAX_REASON_CHARS));
        self
    }

    /// Returns the fields of an export as texts, all but the count.
    pub(super) fn texts(&self) -> [Option<String>; 10] {
        // Without `..`, so that a new field does not compile until it is considered.
        let Self {
            id,
            at,
            kind,
            outcome,
            tenant: _,
            account,
            key_id,
            actor,
            ip,
            user_agent,
            reason,
            count: _,
        } = self;
        [
            Some(id.to_string()),
            Some(at.to_string()),
            Some(kind.to_string()),
            Some(outcome.to_string()),
            account.clone(),
            key_id.map(|id| id.to_string()),
            Some(actor.clone()),
            ip.map(|ip| ip.to_string()),
            user_agent.clone(),
            reason.clone(),
        ]
    }

    /// Returns the `n`th event of a change of several keys: a store calls this for each key that it actually changes.
    #[must_use]
    pub fn for_key(&self, n: u32, key: &Key) -> Self {
        self.for_key_of(n, key.id, &key.owner)
    }

    /// Returns the `n`th event of a change of several keys, without the record of the key, which may be damaged.
    #[must_use]
    pub fn for_key_of(&self, n: u32, id: KeyId, owner: &Owner) -> Self {
        Self { id: self.id.nth(n), key_id: Some(id), ..self.clone().of_owner(owner) }
    }
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [.., account, key, actor, ip, user_agent, reason] = self.texts();
        let fields = [
            ("actor", actor),
            ("tenant", (!self.tenant.is_empty()).then(|| self.tenant.clone())),
            ("account", account),
            ("key", key),
            ("ip", ip),
            ("user_agent", user_agent),
            ("reason", reason),
            ("count", (self.count != 1).then(|| self.count.to_string())),
        ];
        write!(f, "{} {} {}", self.at, self.kind, self.outcome)?;
        for (name, value) in fields {
            if let Some(value) = value {
                write!(f, " {name}={}", quoted(&value))?;
            }
        }
        Ok(())
    }
}

/// The text itself if it is a single plain word, else the text in quotes and escaped.
fn quoted(text: &str) -> String {
    let line = one_line(text);
    let is_plain = |c: char| c.is_alphanumeric() || "@.:_-/+".contains(c);
    if !line.is_empty() && line.chars().all(is_plain) {
        line.into_owned()
    } else {
        format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Selects events of the audit log. They are returned newest first.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AuditQuery<'a> {
    /// The owner or tenant whose events are returned.
    pub within: OwnerScope<'a>,
    /// If set, only events of this key.
    pub key_id: Option<KeyId>,
    /// If set, only events of this kind.
    pub kind: Option<EventKind>,
    /// If set, only events at or after this instant.
    pub from: Option<Timestamp>,
    /// If set, only events before this instant.
    pub until: Option<Timestamp>,
    /// If set, only events older than this one.
    pub after: Option<EventId>,
    /// The maximum number of events.
    pub limit: u32,
}

impl<'a> AuditQuery<'a> {
    /// Selects the newest 100 events of an owner or a tenant.
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

    /// Selects only events of this key.
    pub fn key(self, id: KeyId) -> Self {
        Self { key_id: Some(id), ..self }
    }

    /// Selects only events of this kind.
    pub fn kind(self, kind: EventKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Selects only events at or after this instant.
    pub fn from(self, instant: Timestamp) -> Self {
        Self { from: Some(instant), ..self }
    }

    /// Selects only events before this instant.
    pub fn until(self, instant: Timestamp) -> Self {
        Self { until: Some(instant), ..self }
    }

    /// Selects the next page, after one that ended with the event `last`.
    pub fn after(self, last: EventId) -> Self {
        Self { after: Some(last), ..self }
    }

    /// Sets the maximum number of events, clamped to 1 to 1,000. Defaults to 100.
    pub fn limit(self, events: u32) -> Self {
        Self { limit: events.clamp(1, 1_000), ..self }
    }

    /// Whether an event matches the query, ignoring order and maximum number.
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
