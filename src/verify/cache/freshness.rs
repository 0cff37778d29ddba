use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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
}

/// How long entries are trusted: the state of the change feed. Instants are nanoseconds of the monotonic clock.
pub(crate) struct Freshness {
    /// When the last complete reading of the feed began; 0 if there was none.
    synced_at: AtomicU64,
    state: AtomicU8,
    max_staleness: u64,
    strict: bool,
}

impl Freshness {
    pub(super) fn new(max_staleness: u64, strict: bool) -> Self {
        Self { synced_at: AtomicU64::new(0), state: AtomicU8::new(IDLE), max_staleness, strict }
    }

    /// Returns whether an entry whose read began at `read_at` is trusted now.
    #[inline]
    pub(super) fn covers(&self, read_at: u64, now: u64) -> bool {
        let known_at = read_at.max(self.synced_at.load(Ordering::Acquire));
        (!self.strict || self.is_live()) && now.saturating_sub(known_at) <= self.max_staleness
    }

    /// Returns whether an account that was read at `read_at` is trusted now.
    #[inline]
    pub(super) fn covers_account(&self, read_at: u64, now: u64) -> bool {
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

    pub(super) fn state(&self, now: u64) -> FeedState {
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
        matches!(self.state.load(Ordering::Acquire), PUSHED | POLLED)
    }
}

const IDLE: u8 = 0;
const PUSHED: u8 = 1;
const POLLED: u8 = 2;
const DOWN: u8 = 3;
