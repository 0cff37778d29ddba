use std::{collections::HashMap, hash::Hash, mem::take, net::IpAddr, sync::Mutex};

use super::limits::LimitedReason;
use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{EventId, KeyId, Owner, Timestamp, bounds::MAX_USER_AGENT_CHARS, truncated},
    system::{EntropyError, IdGenerator, lock},
};

/// Counts rejected attempts in memory until they are written to the audit log: attempts with the same reason become one
/// event with a count, so that a flood writes a bounded number of rows.
///
/// An event describes the first of its attempts. Its id is set when it is drained.
#[derive(Default)]
pub(crate) struct DenialCounts {
    malformed: Mutex<Option<AuditEvent>>,
    unknown: Mutex<Option<AuditEvent>>,
    /// Not looked up, because too many attempts of the same network failed.
    throttled: Mutex<Option<AuditEvent>>,
    /// By key and reason.
    keys: Groups<KeyId>,
    /// One-time codes, by reason.
    codes: Groups<Owner>,
    /// Second factors, by owner and reason.
    second_factors: Groups<Owner>,
}

type Groups<T> = Mutex<HashMap<(Option<T>, &'static str), AuditEvent>>;

/// A rejected attempt.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) reason: &'static str,
    /// The key, if one was found.
    pub(crate) key: Option<(KeyId, &'a Owner)>,
    pub(crate) at: Timestamp,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) user_agent: Option<&'a str>,
}

impl DenialCounts {
    pub(crate) fn add(&self, attempt: Attempt<'_>) {
        if let Some((id, _)) = attempt.key {
            let describe = || attempt.event(EventKind::Denied);
            add_to_group(&self.keys, Some(id), attempt.reason, describe);
        } else if attempt.reason == LimitedReason::Network.as_str() {
            add_anonymous(&self.throttled, || attempt);
        } else {
            add_anonymous(&self.unknown, || attempt);
        }
    }

    /// Counts a text that does not have the format of a secret.
    #[inline]
    pub(crate) fn add_malformed<'a>(&self, describe: impl FnOnce() -> Attempt<'a>) {
        add_anonymous(&self.malformed, describe);
    }

    /// Counts a one-time code that was not sent, or not accepted.
    pub(crate) fn add_code(&self, attempt: Attempt<'_>) {
        let describe = || attempt.event(EventKind::CodeRefused);
        add_to_group(&self.codes, None, attempt.reason, describe);
    }

    /// Counts a second factor that was not accepted.
    #[cfg(feature = "totp")]
    pub(crate) fn add_second_factor(&self, owner: &Owner, actor: &str, attempt: Attempt<'_>) {
        let describe = || {
            let event = attempt.event(EventKind::SecondFactorRefused).of_owner(owner);
            AuditEvent { actor: actor.into(), ..event }
        };
        add_to_group(&self.second_factors, Some(owner.clone()), attempt.reason, describe);
    }

    /// Takes all counts, as events.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<AuditEvent>, EntropyError> {
        let anonymous = [&self.malformed, &self.unknown, &self.throttled];
        let anonymous = anonymous.into_iter().filter_map(|event| lock(event).take());
        let events = anonymous
            .chain(take(&mut *lock(&self.keys)).into_values())
            .chain(take(&mut *lock(&self.codes)).into_values())
            .chain(take(&mut *lock(&self.second_factors)).into_values());
        events.map(|event| Ok(AuditEvent { id: ids.event_id(event.at)?, ..event })).collect()
    }
}

/// Counts an attempt without a subject. All but the first only increase the count, because they can arrive in large
/// numbers.
#[inline]
fn add_anonymous<'a>(event: &Mutex<Option<AuditEvent>>, describe: impl FnOnce() -> Attempt<'a>) {
    let mut event = lock(event);
    let event = event.get_or_insert_with(|| describe().event(EventKind::Denied));
    event.count = event.count.saturating_add(1);
}

/// Adds an attempt to its group. If there is no room for another group, to one without a subject.
fn add_to_group<T: Eq + Hash>(
    groups: &Groups<T>,
    subject: Option<T>,
    reason: &'static str,
    describe: impl FnOnce() -> AuditEvent,
) {
    let mut groups = lock(groups);
    let wanted = (subject, reason);
    let is_full = groups.len() >= MAX_GROUPS && !groups.contains_key(&wanted);
    let slot = if is_full { (None, reason) } else { wanted };
    let event = groups.entry(slot).or_insert_with(describe);
    event.count = event.count.saturating_add(1);
    if is_full {
        (event.tenant, event.account, event.key_id) = (String::new(), None, None);
        event.actor = UNKNOWN_ACTOR.into();
    }
}

impl Attempt<'_> {
    /// Returns an event that describes this attempt, with a count of 0.
    fn event(&self, kind: EventKind) -> AuditEvent {
        let event = AuditEvent {
            outcome: Outcome::Failure,
            actor: UNKNOWN_ACTOR.into(),
            ip: self.ip,
            user_agent: self.user_agent.map(|agent| truncated(agent, MAX_USER_AGENT_CHARS)),
            reason: Some(self.reason.into()),
            count: 0,
            ..AuditEvent::new(EventId::from_bytes([0; 16]), self.at, kind)
        };
        let Some((id, owner)) = self.key else { return event };
        AuditEvent { key_id: Some(id), actor: format!("key:{id}"), ..event.of_owner(owner) }
    }
}

const UNKNOWN_ACTOR: &str = "unknown";
/// With one write per minute: at most this many rows a minute and node for keys, as many for second factors, and one
/// per reason for attempts without a subject.
const MAX_GROUPS: usize = 256;
