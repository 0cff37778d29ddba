use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::store::FeedMode;

/// How this node learns of the changes that others make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FeedState {
    /// Nobody asked yet: there is no cache, or it is empty.
    Idle,
    /// The store tells of changes within milliseconds.
    Pushed,
    /// The store is asked for changes in short intervals.
    Polled,
    /// The store does not answer. Entries are believed within the bound and no longer.
    Down,
}

/// Until when entries are believed: what is known of the change feed.
pub(crate) struct Freshness {
    /// Nanoseconds at which the last reading of the whole feed began; 0 if there was none.
    synced_at: AtomicU64,
    state: AtomicU8,
    max_staleness: u64,
    strict: bool,
}

impl Freshness {
    pub(crate) fn new(max_staleness: u64, strict: bool) -> Self {
        Self { synced_at: AtomicU64::new(0), state: AtomicU8::new(IDLE), max_staleness, strict }
    }

    /// Whether an entry that was read then may be believed now.
    #[inline]
    pub(crate) fn covers(&self, loaded_at: u64, now: u64) -> bool {
        let known_at = loaded_at.max(self.synced_at.load(Ordering::Acquire));
        (!self.strict || self.is_live()) && now.saturating_sub(known_at) <= self.max_staleness
    }

    /// Whether what the host said then of an account still counts.
    #[inline]
    pub(crate) fn covers_account(&self, asked_at: u64, now: u64) -> bool {
        now.saturating_sub(asked_at) <= self.max_staleness
    }

    /// The feed was read to its end. All that was committed before `began` has been forgotten.
    pub(crate) fn synced(&self, began: u64) {
        self.synced_at.fetch_max(began, Ordering::AcqRel);
        // Pushed or polled is told by those who wait; before that, it is as good as polled.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state == IDLE || state == DOWN).then_some(POLLED)
        });
    }

    pub(crate) fn waited(&self, feed: FeedMode) {
        let state = match feed {
            FeedMode::Pushed => PUSHED,
            FeedMode::Polled => POLLED,
        };
        self.state.store(state, Ordering::Release);
    }

    pub(crate) fn failed(&self) {
        self.state.store(DOWN, Ordering::Release);
    }

    /// Nobody follows any more.
    pub(crate) fn stopped(&self) {
        self.state.store(IDLE, Ordering::Release);
    }

    pub(crate) fn state(&self, now: u64) -> FeedState {
        match self.state.load(Ordering::Acquire) {
            IDLE => FeedState::Idle,
            DOWN => FeedState::Down,
            _ if self.staleness(now).is_none_or(|age| age > self.max_staleness) => FeedState::Down,
            PUSHED => FeedState::Pushed,
            _ => FeedState::Polled,
        }
    }

    pub(crate) fn staleness(&self, now: u64) -> Option<u64> {
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
