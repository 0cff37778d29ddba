use std::{fmt, net::IpAddr, str::FromStr};

use crate::model::{Actor, EventId, Invalid, Key, KeyId, Owner, Timestamp, one_line, truncated};

/// An entry of the audit log.
///
/// `Display` writes a single line in which control characters and terminal escapes are escaped.
///
/// A store MUST keep every field. To build an event from stored values, call
/// [`new`](AuditEvent::new) and then set the public fields.
///
/// # Examples
/// ```
/// use keyward::{AuditEvent, Timestamp, audit::{EventKind, Outcome}, model::EventId};
///
/// let mut event =
///     AuditEvent::new(EventId::from_bytes([7; 16]), Timestamp::MIN, EventKind::Denied);
/// event.outcome = Outcome::Failure;
/// event.tenant = "acme".into();
/// event.reason = Some("expired".into());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Unique; sorts by time.
    pub id: EventId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Whether it was done or refused.
    pub outcome: Outcome,
    /// In which tenant; empty where there is none, or none is known.
    pub tenant: String,
    /// Of which account.
    pub account: Option<String>,
    /// With which key.
    pub key_id: Option<KeyId>,
    /// Who did it.
    pub actor: String,
    /// From where.
    pub ip: Option<IpAddr>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Why: the words of who revoked, or the reason of a refusal; what the host has
    /// [noted](crate::api::ApiKeys::note).
    pub reason: Option<String>,
    /// How often; refused attempts are counted together.
    pub count: u32,
}

/// What an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A key was issued.
    Created,
    /// A key was imported from another system.
    Imported,
    /// Name, access, limits, networks or metadata changed.
    Updated,
    /// A key got a new secret.
    Rotated,
    /// A key was switched off.
    Disabled,
    /// A key was switched on.
    Enabled,
    /// A key was revoked.
    Revoked,
    /// A key's record was removed.
    Deleted,
    /// A dead key's record was cleaned away.
    Purged,
    /// A key was used for the first time.
    FirstUsed,
    /// A request was refused.
    Denied,
    /// A one-time code was sent for.
    CodeRequested,
    /// A one-time code was turned into a key.
    CodeAccepted,
    /// A one-time code was not sent, or not accepted.
    CodeRefused,
    /// A second factor was checked, and right.
    SecondFactorAccepted,
    /// A second factor was wrong, used up, or tried too often.
    SecondFactorRefused,
    /// A secret of a key was found where it does not belong.
    Leaked,
    /// A key will expire soon.
    Expiring,
    /// A key's secret is old.
    RotationDue,
    /// A key was not used for long.
    Unused,
    /// Something of the host's own, of which the reason has its name.
    HostEvent,
}

/// Whether a thing was done.
///
/// Exhaustive on purpose: it was, or it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done.
    Success,
    /// Refused.
    Failure,
}

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

    /// What an actor did to a key.
    pub(crate) fn of(id: EventId, at: Timestamp, kind: EventKind, key: &Key, by: &Actor) -> Self {
        Self { key_id: Some(key.id), ..Self::of_owner(id, at, kind, &key.owner, by) }
    }

    /// What an actor did to an owner's keys.
    pub(crate) fn of_owner(
        id: EventId,
        at: Timestamp,
        kind: EventKind,
        owner: &Owner,
        by: &Actor,
    ) -> Self {
        Self {
            tenant: owner.tenant().into(),
            account: Some(owner.account().into()),
            ..Self::by(id, at, kind, by)
        }
    }

    /// What an actor did, to no owner in particular.
    pub(crate) fn by(id: EventId, at: Timestamp, kind: EventKind, by: &Actor) -> Self {
        Self {
            actor: by.label().into(),
            ip: by.address(),
            user_agent: by.agent().map(Into::into),
            ..Self::new(id, at, kind)
        }
    }

    pub(crate) fn reason(mut self, reason: &str) -> Self {
        // A revocation must not fail for the words that came with it.
        self.reason = (!reason.is_empty()).then(|| truncated(reason, MAX_REASON));
        self
    }

    /// The `n`th event of a change that affects many keys: a store calls it on the event that came
    /// with the call, for each key that the change really touches.
    #[must_use]
    pub fn for_key(&self, n: u32, key: &Key) -> Self {
        Self {
            id: self.id.nth(n),
            tenant: key.owner.tenant().into(),
            account: Some(key.owner.account().into()),
            key_id: Some(key.id),
            ..self.clone()
        }
    }
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`, so that a new field does not compile until it is considered.
        let Self {
            id: _,
            at,
            kind,
            outcome,
            tenant,
            account,
            key_id,
            actor,
            ip,
            user_agent,
            reason,
            count,
        } = self;
        write!(f, "{at} {kind} {outcome} actor={}", quoted(actor))?;
        if !tenant.is_empty() {
            write!(f, " tenant={}", quoted(tenant))?;
        }
        if let Some(account) = account {
            write!(f, " account={}", quoted(account))?;
        }
        if let Some(key_id) = key_id {
            write!(f, " key={key_id}")?;
        }
        if let Some(ip) = ip {
            write!(f, " ip={ip}")?;
        }
        if let Some(agent) = user_agent {
            write!(f, " user_agent={}", quoted(agent))?;
        }
        if let Some(reason) = reason {
            write!(f, " reason={}", quoted(reason))?;
        }
        if *count != 1 {
            write!(f, " count={count}")?;
        }
        Ok(())
    }
}

/// As it is where it is one plain word, else in quotes that it cannot leave.
fn quoted(text: &str) -> String {
    let line = one_line(text);
    let plain = |c: char| c.is_alphanumeric() || "@.:_-/+".contains(c);
    if !line.is_empty() && line.chars().all(plain) {
        line.into_owned()
    } else {
        format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [Self; 21] = [
        Self::Created,
        Self::Imported,
        Self::Updated,
        Self::Rotated,
        Self::Disabled,
        Self::Enabled,
        Self::Revoked,
        Self::Deleted,
        Self::Purged,
        Self::FirstUsed,
        Self::Denied,
        Self::CodeRequested,
        Self::CodeAccepted,
        Self::CodeRefused,
        Self::SecondFactorAccepted,
        Self::SecondFactorRefused,
        Self::Leaked,
        Self::Expiring,
        Self::RotationDue,
        Self::Unused,
        Self::HostEvent,
    ];

    /// Its stable name: `key.created`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "key.created",
            Self::Imported => "key.imported",
            Self::Updated => "key.updated",
            Self::Rotated => "key.rotated",
            Self::Disabled => "key.disabled",
            Self::Enabled => "key.enabled",
            Self::Revoked => "key.revoked",
            Self::Deleted => "key.deleted",
            Self::Purged => "key.purged",
            Self::FirstUsed => "key.first_used",
            Self::Denied => "key.denied",
            Self::CodeRequested => "code.requested",
            Self::CodeAccepted => "code.accepted",
            Self::CodeRefused => "code.refused",
            Self::SecondFactorAccepted => "second_factor.accepted",
            Self::SecondFactorRefused => "second_factor.refused",
            Self::Leaked => "key.leaked",
            Self::Expiring => "key.expiring",
            Self::RotationDue => "key.rotation_due",
            Self::Unused => "key.unused",
            Self::HostEvent => "host.noted",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| Invalid::new("event kind", "there is none of this name"))
    }
}

impl Outcome {
    /// `success` or `failure`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const MAX_REASON: usize = 1_000;
