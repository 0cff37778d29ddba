use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use super::ReadStamp;
use crate::store::FeedMode;

/// How this node learns of changes that other nodes make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FeedState {
    /// The change feed was not read yet: there is no cache, or it is empty.
    Idle,
    /// The store pushes changes, within milliseconds.
    Pushed,
    /// The store is polled for changes in short intervals.
    Polled,
    /// The store does not answer. Entries are trusted within `max_staleness` and no longer.
    Down,
    /// The store has no change feed. Entries are trusted within `max_staleness` and no longer.
    NotSupported,
    /// The node was shut down. Entries are trusted within `max_staleness` and no longer.
    Stopped,
}

/// How long entries are trusted: the state of the change feed. Instants are nanoseconds of the cache time.
pub(crate) struct Freshness {
    /// When the last complete reading of the feed began; 0 if there was none.
    synced_at: AtomicU64,
    state: AtomicU8,
    is_shut_down: AtomicBool,
    max_staleness: u64,
    strict: bool,
}

impl Freshness {
    pub(super) fn new(max_staleness: u64, strict: bool) -> Self {
        let (synced_at, state) = (AtomicU64::new(0), AtomicU8::new(IDLE));
        Self { synced_at, state, is_shut_down: AtomicBool::new(false), max_staleness, strict }
    }

    /// Returns whether an entry whose read began at `read_at` is trusted now.
    #[inline]
    pub(super) fn covers(&self, read_at: u64, now: u64) -> bool {
        let known_at = read_at.max(self.synced_at.load(Ordering::Acquire));
        (!self.strict || self.is_live()) && now.saturating_sub(known_at) <= self.max_staleness
    }

    /// Returns whether a caller that arrived at `arrived` may be answered now with a read, which `is_current` if nothing of
    /// it was invalidated since it began.
    ///
    /// A read that began after the caller arrived may have been invalidated meanwhile: the two overlapped. But then its
    /// own age counts, and not that of the change feed, which has just reported that the read is outdated.
    #[inline]
    pub(super) fn answers(
        &self,
        read: ReadStamp,
        arrived: ReadStamp,
        now: u64,
        is_current: impl FnOnce() -> bool,
    ) -> bool {
        let is_own = read.at >= arrived.at && read.epoch >= arrived.epoch;
        is_own && self.is_within_bound(read.at, now) || self.covers(read.at, now) && is_current()
    }

    /// Returns whether what was read at `read_at` is no older than the bound, by its own age alone. The change feed does
    /// not report changes of accounts.
    #[inline]
    pub(super) fn is_within_bound(&self, read_at: u64, now: u64) -> bool {
        now.saturating_sub(read_at) <= self.max_staleness
    }

    /// Records that the feed was read to its end: all that was committed before `began` has been invalidated.
    pub(crate) fn synced(&self, began: u64) {
        self.synced_at.fetch_max(began, Ordering::AcqRel);
        // Whether changes are pushed is known after the first wait. Until then the feed counts as polled.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state == IDLE || state == DOWN).then_some(POLLED)
        });
    }

    pub(crate) fn waited(&self, mode: FeedMode) {
        let state = match mode {
            FeedMode::Pushed => PUSHED,
            FeedMode::Polled => POLLED,
        };
        self.state.store(state, Ordering::Release);
    }

    pub(crate) fn failed(&self) {
        self.state.store(DOWN, Ordering::Release);
    }

    /// Records that the task that follows the feed has ended.
    pub(crate) fn stopped(&self) {
        self.state.store(IDLE, Ordering::Release);
    }

    /// Records that the feed is not followed any more, for good.
    pub(crate) fn shut_down(&self) {
        self.is_shut_down.store(true, Ordering::Release);
    }

    pub(super) fn state(&self, now: u64) -> FeedState {
        if self.is_shut_down.load(Ordering::Acquire) {
            return FeedState::Stopped;
        }
        match self.state.load(Ordering::Acquire) {
            IDLE => FeedState::Idle,
            DOWN => FeedState::Down,
            _ if self.staleness(now).is_none_or(|age| age > self.max_staleness) => FeedState::Down,
            PUSHED => FeedState::Pushed,
            _ => FeedState::Polled,
        }
    }

    pub(super) fn staleness(&self, now: u64) -> Option<u64> {
        match self.synced_at.load(Ordering::Acquire) {
            0 => None,
            synced_at => Some(now.saturating_sub(synced_at)),
        }
    }

    fn is_live(&self) -> bool {
        let is_followed = matches!(self.state.load(Ordering::Acquire), PUSHED | POLLED);
        is_followed && !self.is_shut_down.load(Ordering::Acquire)
    }
}

const IDLE: u8 = 0;
const PUSHED: u8 = 1;
const POLLED: u8 = 2;
const DOWN: u8 = 3;

/// Under a model checker: callers share a look-up, the whole process pauses for longer than the bound, another node
/// revokes the key, and the change feed reports it. `EPOCH_SCHEDULES` sets the number of schedules.
#[cfg(test)]
mod tests {
    use std::{env, panic::catch_unwind, sync::Arc};

    use shuttle::{
        check_pct, check_random,
        sync::{
            Mutex,
            atomic::{AtomicU64, Ordering},
        },
        thread,
    };

    use super::{super::epochs::InvalidationEpochs, *};

    struct Node {
        /// The time; only a pause advances it.
        now: AtomicU64,
        revoked: Mutex<bool>,
        /// When the revocation was acknowledged; `u64::MAX` before.
        acknowledged: AtomicU64,
        in_flight: Mutex<Option<Arc<Flight>>>,
        epochs: InvalidationEpochs,
        freshness: Freshness,
        rule: Rule,
    }

    /// A look-up. The first caller that locks it reads; the others wait for its answer.
    type Flight = Mutex<Option<Found>>;

    #[derive(Clone, Copy)]
    struct Found {
        read: ReadStamp,
        revoked: bool,
    }

    #[derive(Clone, Copy)]
    enum Rule {
        Answers,
        /// A caller believes every look-up that it joins.
        Joins,
        /// A caller believes each look-up that began after it arrived, however long that took.
        Arrival,
        /// A caller believes its look-up for as long as the change feed works.
        Feed,
    }

    impl Node {
        fn new(rule: Rule) -> Arc<Self> {
            Arc::new(Self {
                now: AtomicU64::new(100),
                revoked: Mutex::new(false),
                acknowledged: AtomicU64::new(u64::MAX),
                in_flight: Mutex::new(None),
                epochs: InvalidationEpochs::new(2),
                freshness: Freshness::new(BOUND, false),
                rule,
            })
        }

        fn stamp(&self) -> ReadStamp {
            ReadStamp { epoch: self.epochs.current(), at: self.now.load(Ordering::SeqCst) }
        }

        fn verify(&self) {
            let arrived = self.stamp();
            for _ in 0..3 {
                let Found { read, revoked } = self.look_up();
                let now = self.now.load(Ordering::SeqCst);
                if self.answers(read, arrived, now) {
                    let acknowledged = self.acknowledged.load(Ordering::SeqCst);
                    let is_late = now > acknowledged.saturating_add(BOUND);
                    assert!(revoked || !is_late, "accepted at {now}, revoked at {acknowledged}");
                    return;
                }
            }
        }

        fn look_up(&self) -> Found {
            let flight = self.in_flight.lock().unwrap().get_or_insert_default().clone();
            let mut found = flight.lock().unwrap();
            *found.get_or_insert_with(|| {
                let read = self.stamp();
                let revoked = *self.revoked.lock().unwrap();
                *self.in_flight.lock().unwrap() = None;
                Found { read, revoked }
            })
        }

        fn answers(&self, read: ReadStamp, arrived: ReadStamp, now: u64) -> bool {
            let slots = [self.epochs.slot(0), self.epochs.slot(1)];
            let is_current = || self.epochs.is_current(read.epoch, slots);
            match self.rule {
                Rule::Answers => self.freshness.answers(read, arrived, now, is_current),
                Rule::Joins => true,
                Rule::Arrival => {
                    let is_own = read.at >= arrived.at && read.epoch >= arrived.epoch;
                    is_own || self.freshness.covers(read.at, now) && is_current()
                }
                Rule::Feed => {
                    let is_own = read.epoch >= arrived.epoch;
                    self.freshness.covers(read.at, now) && (is_own || is_current())
                }
            }
        }

        fn revoke(&self) {
            *self.revoked.lock().unwrap() = true;
            self.acknowledged.store(self.now.load(Ordering::SeqCst), Ordering::SeqCst);
        }

        fn read_feed(&self) {
            let began = self.now.load(Ordering::SeqCst);
            let revoked = *self.revoked.lock().unwrap();
            if revoked {
                self.epochs.invalidate(self.epochs.slot(0));
            }
            self.freshness.synced(began);
        }
    }

    fn scenario(rule: Rule) {
        let node = Node::new(rule);
        let actions: [fn(&Node); 6] = [
            Node::verify,
            Node::verify,
            Node::verify,
            Node::revoke,
            |node| {
                node.read_feed();
                node.read_feed();
            },
            |node| {
                node.now.fetch_add(BOUND + 1, Ordering::SeqCst);
            },
        ];
        let run = |action: fn(&Node)| {
            let node = node.clone();
            thread::spawn(move || action(&node))
        };
        for thread in actions.map(run) {
            thread.join().unwrap();
        }
    }

    fn schedules() -> usize {
        env::var("EPOCH_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
    }

    #[test]
    fn no_schedule_accepts_a_key_for_longer_than_the_bound() {
        check_random(|| scenario(Rule::Answers), schedules() / 2);
        check_pct(|| scenario(Rule::Answers), schedules() / 2, 4);
    }

    #[test]
    fn the_model_catches_callers_that_believe_old_look_ups() {
        for rule in [Rule::Joins, Rule::Arrival, Rule::Feed] {
            let naive = catch_unwind(|| check_random(move || scenario(rule), 20_000));
            assert!(naive.is_err(), "{}", rule as u8);
        }
    }

    const BOUND: u64 = 10;
}
