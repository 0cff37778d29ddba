//! Judges a history by what the crate promises.

use std::{collections::HashMap, fmt, time::Duration};

use keyward::system::{Clock, SystemClock};

use super::history::{Answer, Change, ChangeKind, Fault, History, Outcome, Plan, StoredKey, Use};

/// A promise that a history may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// What ended is accepted on no node for longer than the bound, and not at all on the node that ended it.
    Ended,
    /// A live key is never denied, and a change of it never refused.
    Live,
    /// A verification is unavailable only during a fault, and for a while after it. That of a key with a quota writes to
    /// the store, and may have to wait for too long behind other writes.
    Available,
    /// An acknowledged change is in the store, and one that was not made is not.
    Stored,
    /// Live keys do not exceed the limit of their owner's plan.
    Limit,
    /// Accepted uses do not exceed a quota.
    Quota,
    /// Each change of a key has one event in the audit log.
    Events,
}

/// A broken promise, with the operations that show it.
pub struct Violation {
    pub rule: Rule,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Judges a history of nodes with this `max_staleness`.
pub fn check(history: &History, bound: Duration) -> Vec<Violation> {
    let mut checker = Checker::new(history, bound);
    for verification in &history.uses {
        match &verification.answer {
            Answer::Accepted => checker.accepted(verification),
            Answer::Denied(_) => checker.denied(verification),
            Answer::Limited => checker.limited(verification),
            Answer::Unavailable => checker.unavailable(verification),
        }
    }
    checker.refusals();
    checker.quotas();
    checker.limits();
    checker.stored();
    checker.events();
    checker.violations
}

struct Checker<'a> {
    history: &'a History,
    /// By key, in the order of their invocation; those of the owner included.
    changes: Vec<Vec<&'a Change>>,
    by_owner: HashMap<&'a str, Vec<u32>>,
    stored: HashMap<u32, &'a StoredKey>,
    bound: u64,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History, bound: Duration) -> Self {
        let mut checker = Self {
            history,
            changes: Vec::new(),
            by_owner: HashMap::new(),
            stored: history.stored.iter().map(|stored| (stored.key, stored)).collect(),
            // A cached verification reads a clock that lags behind by this much.
            bound: micros(bound + SystemClock.coarse_lag()),
            violations: Vec::new(),
        };
        for change in &history.changes {
            if let (ChangeKind::Issue { .. }, Some(key)) = (change.kind, change.key)
                && change.may_have_happened()
            {
                checker.by_owner.entry(&change.owner).or_default().push(key);
            }
            let keys = match &change.key {
                Some(key) => std::slice::from_ref(key),
                None => checker.by_owner.get(&*change.owner).map_or(&[][..], |keys| keys),
            };
            for key in keys {
                let key = *key as usize;
                if checker.changes.len() <= key {
                    checker.changes.resize(key + 1, Vec::new());
                }
                checker.changes[key].push(change);
            }
        }
        checker
    }

    fn changes(&self, key: u32) -> &[&'a Change] {
        self.changes.get(key as usize).map_or(&[], |changes| changes)
    }

    fn issue(&self, key: u32) -> Option<&'a Change> {
        let is_issue = |change: &&&Change| matches!(change.kind, ChangeKind::Issue { .. });
        self.changes(key).iter().find(is_issue).copied()
    }

    /// The earliest and the latest time at which the key expires.
    fn expiry(&self, key: u32) -> Option<(u64, u64)> {
        let issue = self.issue(key)?;
        let ChangeKind::Issue { lifetime, .. } = issue.kind else { return None };
        let lifetime = lifetime?;
        Some((issue.invoked + lifetime, issue.responded.unwrap_or(u64::MAX / 2) + lifetime))
    }

    fn quota(&self, key: u32) -> Option<u64> {
        match self.issue(key)?.kind {
            ChangeKind::Issue { quota, .. } => quota,
            _ => None,
        }
    }

    fn violation(&mut self, rule: Rule, text: String) {
        self.violations.push(Violation { rule, text });
    }

    fn accepted(&mut self, accepted: &Use) {
        let Use { key, generation, .. } = *accepted;
        let is_late = |end: &&&Change| {
            let Some(acknowledged) = end.acknowledged() else { return false };
            end.kind.ends(generation)
                && (accepted.decided > acknowledged + self.bound
                    || accepted.process == end.process && accepted.invoked > acknowledged)
        };
        if let Some(end) = self.changes(key).iter().find(is_late) {
            let late = accepted.decided.saturating_sub(end.acknowledged().unwrap());
            let text = format!("accepted {late} µs after it ended: {accepted:?} {end:?}");
            self.violation(Rule::Ended, text);
        }
        let lag = micros(SystemClock.coarse_lag());
        if let Some((_, latest)) = self.expiry(key)
            && accepted.decided > latest + lag
        {
            let late = accepted.decided - latest;
            let text = format!("accepted {late} µs after it expired: {accepted:?}");
            self.violation(Rule::Ended, text);
        }
    }

    fn denied(&mut self, denied: &Use) {
        let Use { key, generation, responded, .. } = *denied;
        let may_have_ended = |change: &&Change| {
            change.kind.ends(generation)
                && change.may_have_happened()
                && change.invoked <= responded
        };
        let has_expired = self.expiry(key).is_some_and(|(earliest, _)| earliest <= responded);
        if !has_expired && !self.changes(key).iter().any(may_have_ended) {
            self.violation(Rule::Live, format!("a live key is denied: {denied:?}"));
        }
    }

    fn is_counted(&self, key: u32) -> bool {
        let of_owner = |issue: &Change| Plan::of(&issue.owner).quota.is_some();
        self.quota(key).is_some() || self.issue(key).is_some_and(of_owner)
    }

    fn limited(&mut self, limited: &Use) {
        if !self.is_counted(limited.key) {
            self.violation(Rule::Live, format!("a key without limits is limited: {limited:?}"));
        }
    }

    fn unavailable(&mut self, unavailable: &Use) {
        let Use { process, invoked, responded, .. } = *unavailable;
        let excuses = |fault: &Fault| {
            fault.process.is_none_or(|only| only == process)
                && fault.from <= responded
                && invoked <= fault.until.saturating_add(micros(RECOVERY))
        };
        if !self.is_counted(unavailable.key) && !self.history.faults.iter().any(excuses) {
            self.violation(
                Rule::Available,
                format!("unavailable without a fault: {unavailable:?}"),
            );
        }
    }

    /// A change may be refused only for a reason that another change gave.
    fn refusals(&mut self) {
        for change in &self.history.changes {
            let Outcome::Refused(reason) = &change.outcome else { continue };
            let (Some(key), Some(responded)) = (change.key, change.responded) else { continue };
            let is_earlier = |other: &&Change| {
                other.number != change.number
                    && other.may_have_happened()
                    && other.invoked <= responded
            };
            let expired = self.expiry(key).is_some_and(|(earliest, _)| earliest <= responded);
            let earlier = || self.changes(key).iter().copied().filter(is_earlier);
            let is_right = match &**reason {
                "Conflict" => true,
                "NotFound" => earlier().any(|other| other.kind == ChangeKind::Delete),
                "NotLive" => expired || earlier().any(|other| other.kind.frees()),
                "LimitReached" => Plan::of(&change.owner)
                    .max_keys
                    .is_some_and(|max| self.possibly_live(change) >= max as usize),
                _ => false,
            };
            if !is_right {
                self.violation(Rule::Live, format!("refused without a reason: {change:?}"));
            }
        }
    }

    /// The number of other keys of the owner that may have been live during an issue that was refused.
    fn possibly_live(&self, refused: &Change) -> usize {
        let (from, until) = (refused.invoked, refused.responded.unwrap_or(u64::MAX));
        let keys = self.by_owner.get(&*refused.owner).into_iter().flatten();
        let may_be_live = |key: &&u32| {
            let Some(issue) = self.issue(**key).filter(|issue| issue.number != refused.number)
            else {
                return false;
            };
            let ended = |change: &&Change| {
                change.kind.frees() && change.acknowledged().is_some_and(|at| at < from)
            };
            let has_expired = self.expiry(**key).is_some_and(|(_, latest)| latest < from);
            issue.may_have_happened()
                && issue.invoked <= until
                && !has_expired
                && !self.changes(**key).iter().any(ended)
        };
        keys.filter(may_be_live).count()
    }

    fn quotas(&mut self) {
        let (mut by_key, mut by_owner) = (HashMap::new(), HashMap::new());
        for used in self.history.uses.iter().filter(|used| used.answer == Answer::Accepted) {
            let Some(issue) = self.issue(used.key) else { continue };
            if let Some(quota) = self.quota(used.key) {
                by_key.entry(used.key).or_insert((0, quota)).0 += 1;
            }
            if let Some(quota) = Plan::of(&issue.owner).quota {
                by_owner.entry(&*issue.owner).or_insert((0, quota)).0 += 1;
            }
        }
        let by_key = by_key.into_iter().map(|(key, count)| (format!("key {key}"), count));
        let by_owner = by_owner.into_iter().map(|(owner, count)| (owner.to_owned(), count));
        for (of, (accepted, quota)) in by_key.chain(by_owner) {
            if accepted > quota {
                self.violation(Rule::Quota, format!("{of}: {accepted} uses of {quota}"));
            }
        }
    }

    /// A key is certainly live from when its issue was acknowledged until the first call that may end it.
    fn limits(&mut self) {
        let mut violations = Vec::new();
        for (owner, keys) in &self.by_owner {
            let Some(max) = Plan::of(owner).max_keys else { continue };
            let mut steps = Vec::new();
            for key in keys {
                let Some(issued) = self.issue(*key).and_then(Change::acknowledged) else {
                    continue;
                };
                let frees = |change: &&&Change| change.kind.frees() && change.may_have_happened();
                let ended = self.changes(*key).iter().find(frees).map(|change| change.invoked);
                let expired = self.expiry(*key).map(|(earliest, _)| earliest);
                let ended = ended.into_iter().chain(expired).min().unwrap_or(u64::MAX);
                if issued < ended {
                    steps.extend([(issued, 1, *key), (ended, -1, *key)]);
                }
            }
            steps.sort_unstable();
            let mut live = 0;
            for (at, step, key) in steps {
                live += step;
                if live > i64::from(max) {
                    let text = format!("{owner} has {live} of {max} keys at {at}: key {key}");
                    violations.push(Violation { rule: Rule::Limit, text });
                    break;
                }
            }
        }
        self.violations.extend(violations);
    }

    fn stored(&mut self) {
        for stranger in &self.history.strangers {
            self.violation(Rule::Stored, format!("asked for by no call: {stranger}"));
        }
        for key in 0..self.changes.len() as u32 {
            let Some(issue) = self.issue(key) else { continue };
            let changes = self.changes(key);
            let done = |is: &dyn Fn(&Change) -> bool| {
                changes.iter().any(|change| is(change) && was_made(change, issue))
            };
            let possible = |is: &dyn Fn(&Change) -> bool| {
                changes.iter().any(|change| is(change) && change.may_have_happened())
            };
            let is_deletion = |change: &Change| change.kind == ChangeKind::Delete;
            let Some(stored) = self.stored.get(&key).copied() else {
                if issue.acknowledged().is_some() && !possible(&is_deletion) {
                    self.violation(Rule::Stored, format!("an issued key is lost: {issue:?}"));
                }
                continue;
            };
            let is = |kind| move |change: &Change| change.kind == kind;
            let is_revocation =
                |change: &Change| matches!(change.kind, ChangeKind::Revoke | ChangeKind::RevokeAll);
            let mut wrong = Vec::new();
            let mut compare = |what, is: &dyn Fn(&Change) -> bool, has: bool| {
                if done(is) && !has || has && !possible(is) {
                    wrong.push(what);
                }
            };
            compare("issued", &|change| matches!(change.kind, ChangeKind::Issue { .. }), true);
            compare("deleted", &is_deletion, false);
            compare("revoked", &is_revocation, stored.revoked);
            compare("disabled", &is(ChangeKind::Disable), stored.disabled);
            compare("renamed", &is(ChangeKind::Rename), stored.renamed);
            if !wrong.is_empty() {
                let text = format!("{wrong:?} disagrees: {stored:?} {changes:?}");
                self.violation(Rule::Stored, text);
            }
        }
    }

    fn events(&mut self) {
        for key in 0..self.changes.len() as u32 {
            let Some(issue) = self.issue(key) else { continue };
            let changes = self.changes(key);
            let events = self.history.events.get(&key);
            let count =
                |kind: &str| events.and_then(|events| events.get(kind)).copied().unwrap_or(0);
            let mut wrong = Vec::new();
            for (event, is_cause) in EVENTS {
                let causes = || changes.iter().filter(|change| is_cause(change.kind));
                let made = causes().filter(|change| was_made(change, issue)).count();
                let possible = causes().filter(|change| change.may_have_happened()).count();
                // What happens once is acknowledged again if it is repeated, and then changes nothing.
                let is_once = !matches!(*event, "key.updated" | "key.rotated");
                let (least, most) = match is_once {
                    true => (made.min(1), possible.min(1)),
                    false => (made, possible),
                };
                if !(least..=most).contains(&(count(event) as usize)) {
                    wrong.push(format!("{event}: {} instead of {least} to {most}", count(event)));
                }
            }
            if count("key.first_used") > 1 {
                wrong.push(format!("key.first_used: {}", count("key.first_used")));
            }
            if let Some(stored) = self.stored.get(&key) {
                let changes: u32 = EVENTS[1..].iter().map(|(event, _)| count(event)).sum();
                if stored.revision != u64::from(changes) {
                    wrong.push(format!("{changes} changes in the log: {stored:?}"));
                }
            }
            if !wrong.is_empty() {
                let text = format!("{wrong:?}: {events:?} {:?}", self.changes(key));
                self.violation(Rule::Events, text);
            }
        }
    }
}

/// Whether a change was certainly made to a key with this issue. One of all keys of the owner does not reach a key that
/// was not issued.
fn was_made(change: &Change, issue: &Change) -> bool {
    change.acknowledged().is_some() && (change.key.is_some() || issue.acknowledged().is_some())
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

type IsCause = fn(ChangeKind) -> bool;

/// The events of changes, and what causes them.
const EVENTS: &[(&str, IsCause)] = &[
    ("key.created", |kind| matches!(kind, ChangeKind::Issue { .. })),
    ("key.updated", |kind| kind == ChangeKind::Rename),
    ("key.rotated", |kind| matches!(kind, ChangeKind::Rotate { .. })),
    ("key.disabled", |kind| kind == ChangeKind::Disable),
    ("key.revoked", |kind| matches!(kind, ChangeKind::Revoke | ChangeKind::RevokeAll)),
    ("key.deleted", |kind| kind == ChangeKind::Delete),
];

/// How long after a fault verifications may be unavailable: calls that wait for a server that is gone end within the
/// timeout of a store, 2 seconds, and a connection is made anew.
const RECOVERY: Duration = Duration::from_secs(4);
