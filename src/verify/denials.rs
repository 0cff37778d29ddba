use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Mutex};

use super::limits::LimitedReason;
use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{KeyId, MAX_USER_AGENT_LEN, Owner, Timestamp, truncated},
    system::{EntropyError, IdGenerator, lock},
};

/// Counts rejected attempts in memory until they are written to the audit log: attempts with the same reason become one
/// event with a count, so that a flood writes a bounded number of rows.
#[derive(Default)]
pub(crate) struct DenialCounts {
    malformed: AnonymousAttempts,
    unknown: AnonymousAttempts,
    /// Not looked up, because too many attempts of the same network failed.
    throttled: AnonymousAttempts,
    /// By key and reason.
    keys: Groups<KeyId>,
    /// One-time codes, by reason.
    codes: Mutex<HashMap<&'static str, Group>>,
    /// Second factors, by owner and reason.
    second_factors: Groups<Owner>,
}

type Groups<T> = Mutex<HashMap<(Option<T>, &'static str), Group>>;

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

/// Attempts that were counted together, described by one of them.
#[derive(Clone)]
struct Group {
    count: u32,
    owner: Option<Owner>,
    /// The actor, if it is known otherwise than by the key.
    actor: Option<String>,
    at: Timestamp,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

/// Attempts without a subject. All but the first only increase the count, because they can arrive in large numbers.
#[derive(Default)]
struct AnonymousAttempts(Mutex<Option<Group>>);

impl DenialCounts {
    pub(crate) fn add(&self, attempt: Attempt<'_>) {
        let Some((id, _)) = attempt.key else {
            let throttled = attempt.reason == LimitedReason::Network.as_str();
            let attempts = if throttled { &self.throttled } else { &self.unknown };
            return attempts.add(|| attempt);
        };
        add_to_group(&self.keys, id, attempt.reason, || Group::of(&attempt));
    }

    /// Counts a text that does not have the format of a secret.
    #[inline]
    pub(crate) fn add_malformed<'a>(&self, describe: impl FnOnce() -> Attempt<'a>) {
        self.malformed.add(describe);
    }

    /// Counts a one-time code that was not sent, or not accepted.
    pub(crate) fn add_code(&self, attempt: Attempt<'_>) {
        let mut codes = lock(&self.codes);
        let group = codes.entry(attempt.reason).or_insert_with(|| Group::of(&attempt));
        group.count = group.count.saturating_add(1);
    }

    /// Counts a second factor that was not accepted.
    #[cfg(feature = "totp")]
    pub(crate) fn add_second_factor(&self, owner: &Owner, actor: &str, attempt: Attempt<'_>) {
        add_to_group(&self.second_factors, owner.clone(), attempt.reason, || Group {
            owner: Some(owner.clone()),
            actor: Some(actor.to_owned()),
            ..Group::of(&attempt)
        });
    }

    /// Takes all counts, as events.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<AuditEvent>, EntropyError> {
        let anonymous = [
            (&self.malformed, "malformed"),
            (&self.unknown, "unknown"),
            (&self.throttled, LimitedReason::Network.as_str()),
        ];
        let anonymous = anonymous
            .into_iter()
            .filter_map(|(attempts, reason)| Some(((None, reason), attempts.drain()?)));
        let keys = std::mem::take(&mut *lock(&self.keys));
        let keys = anonymous.chain(keys).map(|((id, reason), group)| event(ids, id, reason, group));
        let codes = std::mem::take(&mut *lock(&self.codes)).into_iter().map(|(reason, group)| {
            let kind = EventKind::CodeRefused;
            Ok(AuditEvent { kind, ..event(ids, None, reason, group)? })
        });
        let factors = std::mem::take(&mut *lock(&self.second_factors));
        let factors = factors.into_iter().map(|((_, reason), group)| {
            let kind = EventKind::SecondFactorRefused;
            Ok(AuditEvent { kind, ..event(ids, None, reason, group)? })
        });
        keys.chain(codes).chain(factors).collect()
    }
}

/// Adds an attempt to its group. If there is no room for another group, to one without a subject.
fn add_to_group<T: Eq + Hash>(
    groups: &Groups<T>,
    subject: T,
    reason: &'static str,
    describe: impl FnOnce() -> Group,
) {
    let mut groups = lock(groups);
    let wanted = (Some(subject), reason);
    let is_full = groups.len() >= MAX_GROUPS && !groups.contains_key(&wanted);
    let slot = if is_full { (None, reason) } else { wanted };
    let group = groups.entry(slot).or_insert_with(describe);
    group.count = group.count.saturating_add(1);
    if is_full {
        (group.owner, group.actor) = (None, None);
    }
}

impl AnonymousAttempts {
    #[inline]
    fn add<'a>(&self, describe: impl FnOnce() -> Attempt<'a>) {
        let mut group = lock(&self.0);
        let group = group.get_or_insert_with(|| Group::of(&describe()));
        group.count = group.count.saturating_add(1);
    }

    fn drain(&self) -> Option<Group> {
        lock(&self.0).take()
    }
}

impl Group {
    fn of(attempt: &Attempt<'_>) -> Self {
        Self {
            count: 0,
            owner: attempt.key.map(|(_, owner)| owner.clone()),
            actor: None,
            at: attempt.at,
            ip: attempt.ip,
            user_agent: attempt.user_agent.map(|agent| truncated(agent, MAX_USER_AGENT_LEN)),
        }
    }
}

fn event(
    ids: &IdGenerator,
    key_id: Option<KeyId>,
    reason: &str,
    group: Group,
) -> Result<AuditEvent, EntropyError> {
    Ok(AuditEvent {
        id: ids.event_id(group.at)?,
        at: group.at,
        kind: EventKind::Denied,
        outcome: Outcome::Failure,
        tenant: group.owner.as_ref().map_or("", Owner::tenant).into(),
        account: group.owner.as_ref().map(|owner| owner.account().into()),
        key_id,
        actor: key_id.map(|id| format!("key:{id}")).or(group.actor).unwrap_or("unknown".into()),
        ip: group.ip,
        user_agent: group.user_agent,
        reason: Some(reason.into()),
        count: group.count,
    })
}

/// With one write per minute: at most this many rows a minute and node for keys, as many for second factors, and one
/// per reason for attempts without a subject.
const MAX_GROUPS: usize = 256;
