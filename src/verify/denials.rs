use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    verify::flood::Flood,
};
use crate::{
    model::{KeyId, MAX_USER_AGENT_LEN, Owner, Timestamp, truncated},
    system::{EntropyError, IdGenerator, lock},
    verify::limits::limited::LimitedReason,
};

/// Refused attempts, counted together until they are written: however many there are, only so many
/// rows come of them.
#[derive(Default)]
pub(crate) struct Denials {
    malformed: Anonymous,
    unknown: Anonymous,
    /// Not looked at, because too many others from the same network had failed.
    throttled: Anonymous,
    /// Per key and reason.
    keyed: Tallies<KeyId>,
    /// Of one-time codes, per reason.
    codes: Mutex<HashMap<&'static str, HourlyUsage>>,
    /// Of second factors, per owner and reason.
    factors: Tallies<Owner>,
}

type Tallies<T> = Mutex<HashMap<(Option<T>, &'static str), HourlyUsage>>;

/// A refused attempt.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) reason: &'static str,
    /// The key, where one was found.
    pub(crate) key: Option<(KeyId, &'a Owner)>,
    pub(crate) at: Timestamp,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) user_agent: Option<&'a str>,
}

/// Attempts that led to no key, and so come cheap: all but the first cost one addition, for which no
/// thread waits.
#[derive(Default)]
struct Anonymous {
    flood: Flood,
    /// One has been described since they were told last.
    described: AtomicBool,
    told: Mutex<Told>,
}

/// What was told of a flood so far.
#[derive(Default)]
struct Told {
    attempts: u64,
    /// Who stands for those that come next: the last one that was described.
    next: Option<HourlyUsage>,
}

#[derive(Clone)]
struct HourlyUsage {
    count: u32,
    owner: Option<Owner>,
    /// Who it was, where that is known otherwise than by the key.
    actor: Option<String>,
    at: Timestamp,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

impl Denials {
    pub(crate) fn note(&self, attempt: Attempt<'_>) {
        let Some((id, _)) = attempt.key else {
            let throttled = attempt.reason == LimitedReason::Network.as_str();
            let attempts = if throttled { &self.throttled } else { &self.unknown };
            return attempts.note(|| attempt);
        };
        count(&self.keyed, id, attempt.reason, || HourlyUsage::of(&attempt));
    }

    /// Counts one more text that cannot be a key.
    #[inline]
    pub(crate) fn note_malformed<'a>(&self, describe: impl FnOnce() -> Attempt<'a>) {
        self.malformed.note(describe);
    }

    /// Counts one more code that was not sent, or not accepted.
    pub(crate) fn note_code(&self, attempt: Attempt<'_>) {
        let mut codes = lock(&self.codes);
        let tally = codes.entry(attempt.reason).or_insert_with(|| HourlyUsage::of(&attempt));
        tally.count = tally.count.saturating_add(1);
    }

    /// Counts one more second factor that was not accepted.
    #[cfg(feature = "totp")]
    pub(crate) fn note_factor(&self, owner: &Owner, actor: &str, attempt: Attempt<'_>) {
        count(&self.factors, owner.clone(), attempt.reason, || HourlyUsage {
            owner: Some(owner.clone()),
            actor: Some(actor.to_owned()),
            ..HourlyUsage::of(&attempt)
        });
    }

    /// Takes all that is counted, as events.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<AuditEvent>, EntropyError> {
        let anonymous = [
            (&self.malformed, "malformed"),
            (&self.unknown, "unknown"),
            (&self.throttled, LimitedReason::Network.as_str()),
        ];
        let anonymous = anonymous
            .into_iter()
            .filter_map(|(attempts, reason)| Some(((None, reason), attempts.take()?)));
        let keyed = std::mem::take(&mut *lock(&self.keyed));
        let event = |((id, reason), tally): ((_, &str), _)| event(ids, id, reason, tally);
        let codes = std::mem::take(&mut *lock(&self.codes)).into_iter().map(|(reason, tally)| {
            let kind = EventKind::CodeRefused;
            Ok(AuditEvent { kind, ..crate::verify::denials::event(ids, None, reason, tally)? })
        });
        let factors = std::mem::take(&mut *lock(&self.factors));
        let factors = factors.into_iter().map(|((_, reason), tally)| {
            let kind = EventKind::SecondFactorRefused;
            Ok(AuditEvent { kind, ..crate::verify::denials::event(ids, None, reason, tally)? })
        });
        anonymous.chain(keyed).map(event).chain(codes).chain(factors).collect()
    }
}

/// What finds no room is counted as nobody's.
fn count<T: Eq + Hash>(
    tallies: &Tallies<T>,
    within: T,
    reason: &'static str,
    described: impl FnOnce() -> HourlyUsage,
) {
    let mut tallies = lock(tallies);
    let wanted = (Some(within), reason);
    let full = tallies.len() >= MAX_KEYED && !tallies.contains_key(&wanted);
    let slot = if full { (None, reason) } else { wanted };
    let tally = tallies.entry(slot).or_insert_with(described);
    tally.count = tally.count.saturating_add(1);
    if full {
        (tally.owner, tally.actor) = (None, None);
    }
}

impl Anonymous {
    #[inline]
    fn note<'a>(&self, describe: impl FnOnce() -> Attempt<'a>) {
        // First, so that whatever is counted stands there with a description: its own, or that of
        // one that came a moment before.
        if !self.described.load(Ordering::Relaxed) {
            self.begin(&describe());
        }
        self.flood.add(1);
    }

    #[cold]
    fn begin(&self, attempt: &Attempt<'_>) {
        let mut told = lock(&self.told);
        if !self.described.swap(true, Ordering::Relaxed) {
            told.next = Some(HourlyUsage::of(attempt));
        }
    }

    fn take(&self) -> Option<HourlyUsage> {
        let mut told = lock(&self.told);
        self.described.store(false, Ordering::Relaxed);
        let attempts = self.flood.total() - told.attempts;
        let tally = told.next.as_ref().filter(|_| attempts > 0)?;
        // What is more than fits is told the next time.
        let count = u32::try_from(attempts).unwrap_or(u32::MAX);
        let tally = HourlyUsage { count, ..tally.clone() };
        told.attempts += u64::from(count);
        Some(tally)
    }
}

impl HourlyUsage {
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
    tally: HourlyUsage,
) -> Result<AuditEvent, EntropyError> {
    Ok(AuditEvent {
        id: ids.event_id(tally.at)?,
        at: tally.at,
        kind: EventKind::Denied,
        outcome: Outcome::Failure,
        tenant: tally.owner.as_ref().map_or("", Owner::tenant).into(),
        account: tally.owner.as_ref().map(|owner| owner.account().into()),
        key_id,
        actor: key_id.map(|id| format!("key:{id}")).or(tally.actor).unwrap_or("unknown".into()),
        ip: tally.ip,
        user_agent: tally.user_agent,
        reason: Some(reason.into()),
        count: tally.count,
    })
}

/// With one writing a minute, at most this many rows a minute and node for keys, as many for second
/// factors, and one for each reason without a key or an owner.
const MAX_KEYED: usize = 256;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn whatever_is_told_meanwhile_each_attempt_is_told_once() {
        let (anonymous, left) = (Anonymous::default(), AtomicBool::new(true));
        let told = thread::scope(|scope| {
            let teller = scope.spawn(|| {
                let mut told = 0;
                while left.load(Ordering::Relaxed) {
                    told += anonymous.take().map_or(0, |tally| tally.count);
                }
                told
            });
            let note = || (0..EACH).for_each(|_| anonymous.note(|| by("curl")));
            // The second ones get the numbers of the first.
            for _ in 0..2 {
                let floods = [0; THREADS].map(|_| scope.spawn(note));
                floods.into_iter().for_each(|flood| flood.join().unwrap());
            }
            left.store(false, Ordering::Relaxed);
            teller.join().unwrap()
        });
        let rest = anonymous.take().map_or(0, |tally| tally.count);
        assert_eq!(told + rest, 2 * EACH * THREADS as u32);
        assert!(anonymous.take().is_none());
    }

    #[test]
    fn whatever_is_counted_is_told_with_a_description() {
        let anonymous = Anonymous::default();
        let told = || anonymous.take().map(|tally| (tally.count, tally.user_agent.unwrap()));
        // A thread that has described, and is about to count.
        anonymous.begin(&by("curl"));
        assert_eq!(told(), None);
        anonymous.flood.add(1);
        assert_eq!(told(), Some((1, "curl".into())));
        // One that was told that another was described, a moment before that one was told.
        anonymous.flood.add(1);
        assert_eq!(told(), Some((1, "curl".into())));
        assert_eq!(told(), None);
        ["wget", "curl"].into_iter().for_each(|agent| anonymous.note(|| by(agent)));
        assert_eq!(told(), Some((2, "wget".into())));
    }

    #[test]
    fn what_is_more_than_fits_is_told_the_next_time() {
        let anonymous = Anonymous::default();
        anonymous.note(|| by("curl"));
        anonymous.flood.add(u64::from(u32::MAX) + 6);
        let told = || anonymous.take().map(|tally| tally.count);
        assert_eq!([told(), told(), told()], [Some(u32::MAX), Some(7), None]);
    }

    fn by(agent: &str) -> Attempt<'_> {
        let (at, user_agent) = (Timestamp::MIN, Some(agent));
        Attempt { reason: "malformed", key: None, at, ip: None, user_agent }
    }

    const EACH: u32 = 200_000;
    const THREADS: usize = 4;
}
