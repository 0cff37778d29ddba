//! The checker accepts a good history, and detects each promise that is broken in it.

use std::collections::BTreeMap;

use keyward::system::{Clock, SystemClock};

use super::{
    checker::{Rule, check},
    history::{Answer, Change, ChangeKind, Fault, History, Outcome, StoredKey, Use},
    node::BOUND,
};

/// Microseconds: the longest time for which an ended key is accepted.
fn bound() -> u64 {
    (BOUND + SystemClock.coarse_lag()).as_micros() as u64
}

impl History {
    /// Adds a change by process 1. It begins at `at` and takes 10.
    fn change(&mut self, at: u64, kind: ChangeKind, owner: &str, key: Option<u32>) -> &mut Change {
        self.changes.push(Change {
            process: 1,
            number: self.changes.len() as u64,
            kind,
            owner: owner.into(),
            key,
            invoked: at,
            responded: Some(at + 10),
            outcome: Outcome::Done,
        });
        self.changes.last_mut().unwrap()
    }

    fn issue(&mut self, key: u32, owner: &str, lifetime: Option<u64>, quota: Option<u64>) {
        self.change(0, ChangeKind::Issue { lifetime, quota }, owner, Some(key));
    }

    /// Adds a verification that begins at `at` and takes no time.
    fn used(&mut self, process: u32, key: u32, generation: u32, at: u64, answer: Answer) {
        let (invoked, decided, responded) = (at, at, at);
        self.uses.push(Use { process, key, generation, invoked, decided, responded, answer });
    }

    fn stored(&mut self, key: u32) -> &mut StoredKey {
        self.stored.iter_mut().find(|stored| stored.key == key).unwrap()
    }

    fn count(&mut self, key: u32, event: &str) -> &mut u32 {
        self.events.entry(key).or_default().entry(event.into()).or_default()
    }

    fn change_of(&mut self, key: u32, kind: ChangeKind) -> &mut Change {
        let is_it = |change: &&mut Change| change.key == Some(key) && change.kind == kind;
        self.changes.iter_mut().find(is_it).unwrap()
    }
}

/// A history without violations. Every end begins at `END`.
fn good() -> History {
    let mut history = History::default();
    let one = |history: &mut History, key, kind: ChangeKind, event: &str| {
        history.issue(key, "plain-1", None, None);
        history.change(END, kind, "plain-1", Some(key));
        *history.count(key, event) = 1;
    };
    one(&mut history, REVOKED, ChangeKind::Revoke, "key.revoked");
    one(&mut history, DISABLED, ChangeKind::Disable, "key.disabled");
    one(&mut history, DELETED, ChangeKind::Delete, "key.deleted");
    one(&mut history, ROTATED, ChangeKind::Rotate { generation: 1 }, "key.rotated");
    history.issue(EXPIRED, "plain-1", Some(END), None);
    history.issue(COUNTED, "plain-1", None, Some(3));
    for (key, end) in [(SUSPENDED, ChangeKind::Suspend), (GROUPED, ChangeKind::RevokeAll)] {
        let owner = format!("group-{key}");
        history.issue(key, &owner, None, None);
        history.change(END, end, &owner, None);
    }
    *history.count(GROUPED, "key.revoked") = 1;
    history.issue(LIVE, "plain-1", None, None);
    history.change(END, ChangeKind::Rename, "plain-1", Some(LIVE)).outcome = Outcome::Unavailable;
    // Made, or not: both are right.
    history.issue(UNKNOWN, "plain-1", None, None);
    let revocation = history.change(END, ChangeKind::Revoke, "plain-1", Some(UNKNOWN));
    (revocation.outcome, revocation.responded) = (Outcome::Unknown, None);
    for key in LIMITED..LIMITED + 5 {
        history.issue(key, "limited-1", None, None);
    }
    let kind = ChangeKind::Issue { lifetime: None, quota: None };
    let refused = history.change(50, kind, "limited-1", Some(LIMITED + 5));
    refused.outcome = Outcome::Refused("LimitReached".into());
    // Not issued, or not certainly, before all keys of the owner are revoked.
    for (key, outcome) in [(20, Outcome::Unavailable), (21, Outcome::Unknown)] {
        history.issue(key, &format!("group-{GROUPED}"), None, None);
        history.changes.last_mut().unwrap().outcome = outcome;
    }
    history.changes.sort_by_key(|change| change.invoked);

    for process in [1, 2] {
        for key in 0..LIMITED + 5 {
            history.used(process, key, 0, 20, Answer::Accepted);
        }
        for key in ENDED {
            let last = if process == 1 { END + 10 } else { END + 10 + bound() };
            if key != EXPIRED {
                history.used(process, key, 0, last, Answer::Accepted);
            }
            history.used(process, key, 0, END + 11 + bound(), Answer::Denied("ended".into()));
        }
        history.used(process, ROTATED, 1, END + 10, Answer::Accepted);
        history.used(process, UNKNOWN, 0, END + 2 * bound(), Answer::Accepted);
        history.used(process, UNKNOWN, 0, END + 3 * bound(), Answer::Denied("revoked".into()));
    }
    history.used(1, COUNTED, 0, 30, Answer::Accepted);
    history.used(2, COUNTED, 0, 40, Answer::Limited);
    let (name, process) = ("stop".into(), Some(2));
    history.faults.push(Fault { name, process, from: END * 10, until: END * 10 });
    history.used(2, LIVE, 0, END * 10, Answer::Unavailable);

    for key in 0..LIMITED + 5 {
        *history.count(key, "key.created") = 1;
        *history.count(key, "key.first_used") = 1;
        let owner = if key < LIMITED { "plain-1" } else { "limited-1" }.to_owned();
        let (disabled, revoked) = (key == DISABLED, [REVOKED, GROUPED].contains(&key));
        let revision = u64::from(disabled || revoked || key == ROTATED);
        let stored = StoredKey { key, owner, revoked, disabled, renamed: false, revision };
        history.stored.extend((key != DELETED).then_some(stored));
    }
    history
}

#[test]
fn a_good_history_has_no_violations() {
    let violations = check(&good(), BOUND);
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn each_broken_promise_is_detected() {
    type Fault = fn(&mut History);
    let seeded: &[(Rule, &str, Fault)] = &[
        (Rule::Ended, "an acceptance beyond the bound", |history| {
            for used in history.uses.iter_mut().filter(|used| used.decided == END + 10 + bound()) {
                used.decided += u64::from(used.key == REVOKED);
            }
        }),
        (Rule::Ended, "a disabled key", |history| late(history, DISABLED)),
        (Rule::Ended, "a deleted key", |history| late(history, DELETED)),
        (Rule::Ended, "a secret that was rotated", |history| late(history, ROTATED)),
        (Rule::Ended, "a suspended owner", |history| late(history, SUSPENDED)),
        (Rule::Ended, "a key that ended with all of its owner", |history| late(history, GROUPED)),
        (Rule::Ended, "an expired key", |history| {
            let lag = SystemClock.coarse_lag().as_micros() as u64;
            history.used(2, EXPIRED, 0, END + 10 + lag + 1, Answer::Accepted);
        }),
        (Rule::Ended, "an acceptance on the node that revoked it", |history| {
            history.used(1, REVOKED, 0, END + 11, Answer::Accepted);
        }),
        (Rule::Ended, "a decision after the bound about a request from before", |history| {
            history.used(2, REVOKED, 0, 30, Answer::Accepted);
            history.uses.last_mut().unwrap().decided = END + 11 + bound();
        }),
        (Rule::Live, "a live key", |history| deny(history, LIVE, 0, END * 20)),
        (Rule::Live, "a new secret", |history| deny(history, ROTATED, 1, END * 20)),
        (Rule::Live, "a key before it ends", |history| deny(history, REVOKED, 0, END - 1)),
        (Rule::Live, "a key before it expires", |history| deny(history, EXPIRED, 0, END - 1)),
        (Rule::Live, "a key without a quota is limited", |history| {
            history.used(2, LIVE, 0, 30, Answer::Limited);
        }),
        (Rule::Live, "an issue below the limit is refused", |history| {
            history.change_of(LIMITED, ISSUE).outcome = Outcome::Unavailable;
        }),
        (Rule::Live, "a change of a live key is refused", |history| {
            let rename = history.change_of(LIVE, ChangeKind::Rename);
            rename.outcome = Outcome::Refused("NotLive".into());
        }),
        (Rule::Live, "a damaged record", |history| {
            let rename = history.change_of(LIVE, ChangeKind::Rename);
            rename.outcome = Outcome::Refused("Corrupt".into());
        }),
        (Rule::Available, "unavailable on another node", |history| {
            history.used(1, LIVE, 0, END * 10, Answer::Unavailable);
        }),
        (Rule::Available, "unavailable before the fault", |history| {
            history.used(2, LIVE, 0, END * 10 - 1, Answer::Unavailable);
        }),
        (Rule::Available, "unavailable long after the fault", |history| {
            history.used(2, LIVE, 0, END * 20, Answer::Unavailable);
        }),
        (Rule::Stored, "a lost key", |history| history.stored.retain(|key| key.key != LIVE)),
        (Rule::Stored, "a lost revocation", |history| history.stored(REVOKED).revoked = false),
        (Rule::Stored, "a lost revocation of all", |history| {
            history.stored(GROUPED).revoked = false;
        }),
        (Rule::Stored, "a lost disabling", |history| history.stored(DISABLED).disabled = false),
        (Rule::Stored, "a deleted key", |history| {
            let stored = StoredKey { key: DELETED, revision: 1, ..history.stored(LIVE).clone() };
            history.stored.push(stored);
        }),
        (Rule::Stored, "an unavailable change", |history| history.stored(LIVE).renamed = true),
        (Rule::Stored, "an unavailable issue", |history| {
            history.change_of(LIVE, ISSUE).outcome = Outcome::Unavailable;
        }),
        (Rule::Stored, "a revocation that was not asked for", |history| {
            history.stored(LIVE).revoked = true;
        }),
        (Rule::Stored, "a key that was not asked for", |history| {
            history.strangers.push("key-4711".into());
        }),
        (Rule::Limit, "a key beyond the limit", |history| {
            history.change_of(LIMITED + 5, ISSUE).outcome = Outcome::Done;
        }),
        (Rule::Quota, "a use beyond the quota", |history| {
            let used = history.uses.iter().find(|used| used.key == COUNTED).unwrap().clone();
            history.uses.push(used);
        }),
        (Rule::Quota, "a use beyond the quota of an owner", |history| {
            history.issue(100, "shared-1", None, None);
            for _ in 0..41 {
                history.used(1, 100, 0, 30, Answer::Accepted);
            }
        }),
        (Rule::Events, "a dropped event", |history| *history.count(REVOKED, "key.revoked") = 0),
        (Rule::Events, "a dropped event of a deleted key", |history| {
            *history.count(DELETED, "key.deleted") = 0;
        }),
        (Rule::Events, "no event at all", |history| _ = history.events.remove(&LIVE)),
        (Rule::Events, "an event twice", |history| *history.count(ROTATED, "key.rotated") = 2),
        (Rule::Events, "a first use twice", |history| *history.count(LIVE, "key.first_used") = 2),
        (Rule::Events, "an event of a change that was not made", |history| {
            *history.count(LIVE, "key.updated") = 1;
        }),
        (Rule::Events, "a change without an event", |history| history.stored(LIVE).revision = 1),
    ];
    for (rule, what, seed) in seeded {
        let mut history = good();
        seed(&mut history);
        let found = check(&history, BOUND);
        let names_it = found.iter().any(|violation| violation.rule == *rule);
        assert!(names_it, "{what}: {rule:?} is not in {found:#?}");
    }
}

fn late(history: &mut History, key: u32) {
    history.used(2, key, 0, END + 11 + bound(), Answer::Accepted);
}

fn deny(history: &mut History, key: u32, generation: u32, at: u64) {
    history.used(2, key, generation, at, Answer::Denied("unknown".into()));
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = super::history::Recorder::new(folder.path(), 1);
    let mut written = good();
    written.strangers.push("key-4711".into());
    use super::history::Record;
    for change in &written.changes {
        let (responded, outcome) = (None, Outcome::Unknown);
        let begun = Change { responded, outcome, ..change.clone() };
        recorder.write(&Record::Change(begun));
        recorder.write(&Record::Change(change.clone()));
    }
    written.uses.iter().for_each(|used| recorder.write(&Record::Use(used.clone())));
    written.faults.iter().for_each(|fault| recorder.write(&Record::Fault(fault.clone())));
    written.stored.iter().for_each(|key| recorder.write(&Record::Stored(key.clone())));
    for (key, events) in &written.events {
        recorder.write(&Record::Events(*key, events.clone()));
    }
    recorder.write(&Record::Stranger("key-4711".into()));
    let mut read = History::read(folder.path());
    read.changes.sort_by_key(|change| change.number);
    written.changes.sort_by_key(|change| change.number);
    let sorted = |events: std::collections::HashMap<u32, BTreeMap<String, u32>>| {
        events.into_iter().collect::<BTreeMap<_, _>>()
    };
    let text = |history: History| {
        let History { changes, uses, faults, stored, events, strangers } = history;
        format!("{changes:?} {uses:?} {faults:?} {stored:?} {:?} {strangers:?}", sorted(events))
    };
    assert_eq!(text(read), text(written));
}

const ISSUE: ChangeKind = ChangeKind::Issue { lifetime: None, quota: None };
const END: u64 = 1_000_000;
const REVOKED: u32 = 0;
const DISABLED: u32 = 1;
const DELETED: u32 = 2;
const ROTATED: u32 = 3;
const EXPIRED: u32 = 4;
const SUSPENDED: u32 = 5;
const GROUPED: u32 = 6;
const COUNTED: u32 = 7;
const LIVE: u32 = 8;
const UNKNOWN: u32 = 9;
/// Five keys of an owner that may have five.
const LIMITED: u32 = 10;
const ENDED: [u32; 7] = [REVOKED, DISABLED, DELETED, ROTATED, EXPIRED, SUSPENDED, GROUPED];
