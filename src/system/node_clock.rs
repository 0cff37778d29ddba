use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    clock::{Clock, ClockReading},
    lock,
};
use crate::model::Timestamp;

/// The clock of a node, as verification and management use it: wall time that never goes back, and that is compared with
/// a reference, which is the clock of the store. A store without a clock serves one machine: there, the reference is the
/// time at which this node started, continued by the monotonic clock.
///
/// A reading that is close to the last one that was compared costs two comparisons. All others are compared with the
/// reference.
pub(crate) struct NodeClock {
    clock: Arc<dyn Clock>,
    pub(crate) coarse_lag: Duration,
    /// The latest wall time that was used in microseconds, accurate to a millisecond. No trusted reading is earlier.
    latest: AtomicI64,
    /// The wall time minus the monotonic time in microseconds, as of the last comparison; [`REFUSED`] if it was refused.
    offset: AtomicI64,
    /// No trusted reading is earlier than the monotonic time plus this, in microseconds.
    floor: AtomicI64,
    /// The cache time minus the monotonic time in nanoseconds.
    skipped: AtomicU64,
    /// By how many nanoseconds a jump of the wall clock advances the cache time: by more than the bound.
    skip: u64,
    /// How far the wall clock may be from the reference, in microseconds.
    max_offset: i64,
    comparison: Mutex<Comparison>,
}

/// The current instant on this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The wall time; never earlier than an earlier reading. Never further from the reference than the bound, even if
    /// the clock is not trusted.
    pub(crate) at: Timestamp,
    /// The latest wall time that it can be. An end that is later than this has not passed.
    pub(crate) upper_bound: Timestamp,
    /// The time in nanoseconds from which the age of cached data is computed. It is the monotonic time, but each jump of
    /// the wall clock or of the store's clock advances it by more than the bound: data read before the jump, and reads
    /// under way, are then too old.
    pub(crate) cache_time: u64,
    /// Whether the clock is close enough to the reference that something may be decided by it.
    pub(crate) is_trusted: bool,
    /// Nanoseconds of the monotonic clock.
    monotonic: u64,
}

/// What the wall clock is compared with.
struct Comparison {
    /// Whether the reference is the clock of the store.
    with_store: bool,
    /// Whether time passes when a test sets the clock, so that a clock that is set forward is right.
    is_simulated: bool,
    /// The time of the reference minus the monotonic time, in microseconds.
    reference: i64,
    /// How far the reference may be from the store's clock: half of the round trip, in microseconds.
    uncertainty: i64,
    /// When the reference was last read, by the monotonic clock. Without a store's clock, at the first comparison.
    measured_at: Option<Duration>,
    /// The wall time minus the monotonic time at the last comparison, in microseconds.
    offset: i64,
    /// Whether the wall clock has jumped since the last measurement.
    has_jumped: bool,
    /// Since when the wall clock has been ahead of the reference, by the monotonic clock. Only without a store's clock.
    ahead_since: Option<Duration>,
}

/// How a wall clock compares with its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockOffset {
    /// How far the wall clock is ahead in microseconds; negative if it is behind. `None` if it was never compared.
    pub(crate) micros: Option<i64>,
    /// Whether the reference is the clock of the store.
    pub(crate) from_store: bool,
    /// Whether nothing is decided by the wall clock, because it is too far from the reference.
    pub(crate) is_refused: bool,
}

impl NodeClock {
    /// Creates the clock of a node whose cache trusts nothing for longer than `bound`, and whose wall clock may be up to
    /// `max_offset` from the reference.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        bound: Duration,
        max_offset: Duration,
        store_has_clock: bool,
    ) -> Self {
        let longer = bound.saturating_add(Duration::from_secs(1));
        let (offset, is_simulated) = (clock.reading().offset(), clock.is_simulated());
        let with_store = store_has_clock && !is_simulated;
        Self {
            coarse_lag: clock.coarse_lag(),
            clock,
            latest: AtomicI64::default(),
            offset: REFUSED.into(),
            floor: NO_FLOOR.into(),
            skipped: AtomicU64::default(),
            skip: u64::try_from(longer.as_nanos()).unwrap_or(u64::MAX),
            max_offset: i64::try_from(max_offset.as_micros()).unwrap_or(i64::MAX),
            comparison: Mutex::new(Comparison {
                with_store,
                is_simulated,
                reference: offset,
                uncertainty: 0,
                measured_at: None,
                offset,
                has_jumped: false,
                ahead_since: None,
            }),
        }
    }

    /// Returns the wall time of a change. No later reading on this node is earlier.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.precise_now();
        if now.is_trusted {
            self.hold(now.at);
        }
        now.at
    }

    #[inline]
    pub(crate) fn coarse_now(&self) -> Now {
        self.now_at(self.clock.coarse_reading(), self.coarse_lag)
    }

    #[cold]
    pub(crate) fn precise_now(&self) -> Now {
        self.now_at(self.clock.reading(), Duration::ZERO)
    }

    /// Returns the monotonic time.
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.reading().monotonic
    }

    /// Keeps later readings from being earlier than `at`, because something was decided by it.
    pub(crate) fn hold(&self, at: Timestamp) {
        self.latest.fetch_max(at.as_unix_micros(), Ordering::Relaxed);
    }

    /// Returns how far the machine's clock was set back: how far it is behind the time of this node.
    pub(crate) fn set_back_by(&self) -> Duration {
        let reading = self.clock.reading();
        let now = self.no_earlier(reading).max(self.latest.load(Ordering::Relaxed));
        Timestamp::from_unix_micros(now).since(reading.wall)
    }

    /// Returns whether the store's clock has to be read before the wall clock can be trusted, or because it was read long
    /// ago.
    pub(crate) fn needs_measurement(&self) -> bool {
        let monotonic = self.monotonic();
        let comparison = lock(&self.comparison);
        let is_refused = self.offset.load(Ordering::Acquire) == REFUSED;
        let interval = if is_refused { RETRY_INTERVAL } else { INTERVAL };
        let is_old = |at: Duration| monotonic.saturating_sub(at) >= interval;
        comparison.with_store
            && (comparison.has_jumped || comparison.measured_at.is_none_or(is_old))
    }

    /// Records the store's time, which was asked for at `began` of the monotonic clock and has just arrived. Of a slow
    /// answer, nothing is learned.
    pub(crate) fn measured(&self, began: Duration, time: Timestamp) {
        let reading = self.clock.reading();
        let round_trip = reading.monotonic.saturating_sub(began);
        if round_trip > MAX_ROUND_TRIP {
            return;
        }
        let mut comparison = lock(&self.comparison);
        let uncertainty = micros(round_trip) / 2;
        let reference = time.as_unix_micros() - micros(began) - uncertainty;
        let accurate_to = (uncertainty + comparison.uncertainty).unsigned_abs();
        let change = reference.abs_diff(comparison.reference);
        if comparison.measured_at.is_some() && change > MAX_STEP + accurate_to {
            self.skip_ahead();
        }
        comparison.reference = reference;
        comparison.uncertainty = uncertainty;
        comparison.measured_at = Some(reading.monotonic);
        comparison.has_jumped = false;
        self.compare(&mut comparison, reading);
    }

    /// Returns how the wall clock compares with its reference now.
    pub(crate) fn offset(&self) -> ClockOffset {
        let is_trusted = self.precise_now().is_trusted;
        let offset = self.clock.reading().offset();
        let comparison = lock(&self.comparison);
        let ahead = |_| offset.saturating_sub(comparison.reference);
        let micros = comparison.measured_at.map(ahead);
        let (from_store, is_refused) = (comparison.with_store, micros.is_some() && !is_trusted);
        ClockOffset { micros, from_store, is_refused }
    }

    #[inline]
    fn now_at(&self, reading: ClockReading, lag: Duration) -> Now {
        let is_as_before =
            reading.offset().abs_diff(self.offset.load(Ordering::Acquire)) <= MAX_STEP;
        let distrusted = if is_as_before { None } else { self.distrusted(reading) };
        let at = match distrusted {
            None => self.at_least_latest(self.no_earlier(reading)),
            Some(at) => at,
        };
        let monotonic = reading.monotonic.as_nanos() as u64;
        let cache_time = monotonic.saturating_add(self.skipped.load(Ordering::Acquire));
        let (upper_bound, is_trusted) = (at.after(lag), distrusted.is_none());
        Now { at, upper_bound, cache_time, is_trusted, monotonic }
    }

    /// Compares a reading with the reference. If it is not trusted, returns the time nearest to it that is within the
    /// bound.
    #[cold]
    fn distrusted(&self, reading: ClockReading) -> Option<Timestamp> {
        let mut comparison = lock(&self.comparison);
        let offset = reading.offset();
        if self.compare(&mut comparison, reading) {
            return None;
        }
        if comparison.measured_at.is_none() {
            return Some(reading.wall);
        }
        let Comparison { reference, .. } = *comparison;
        let (earliest, latest) =
            (reference.saturating_sub(self.max_offset), reference.saturating_add(self.max_offset));
        let nearest = micros(reading.monotonic).saturating_add(offset.clamp(earliest, latest));
        Some(Timestamp::from_unix_micros(nearest))
    }

    /// Decides whether a reading is trusted, and lets similar ones be used without another comparison.
    fn compare(&self, comparison: &mut Comparison, reading: ClockReading) -> bool {
        let offset = reading.offset();
        if offset.abs_diff(comparison.offset) > MAX_STEP {
            // The machine may have been paused for a time that no other clock shows, so the reference may be wrong, too.
            self.skip_ahead();
            comparison.has_jumped = true;
        }
        comparison.offset = offset;
        let (is_trusted, floor) = comparison.decide(offset, reading.monotonic, self.max_offset);
        if is_trusted {
            // A wrong clock, of this machine or of the store, is not held for longer than the bound.
            let latest = comparison.reference.saturating_add(comparison.uncertainty);
            let latest =
                latest.saturating_add(self.max_offset).saturating_add(micros(reading.monotonic));
            self.latest.fetch_min(latest, Ordering::Relaxed);
        }
        self.floor.store(floor.unwrap_or(NO_FLOOR), Ordering::Release);
        self.offset.store(if is_trusted { offset } else { REFUSED }, Ordering::Release);
        is_trusted
    }

    /// Ends the trust in everything that was read before.
    fn skip_ahead(&self) {
        let skip = |skipped: u64| Some(skipped.saturating_add(self.skip));
        let _ = self.skipped.fetch_update(Ordering::AcqRel, Ordering::Relaxed, skip);
    }

    /// Returns the wall time of a reading, no earlier than the floor.
    #[inline]
    fn no_earlier(&self, reading: ClockReading) -> i64 {
        let floor = self.floor.load(Ordering::Acquire);
        reading.wall.as_unix_micros().max(micros(reading.monotonic).wrapping_add(floor))
    }

    /// Returns the later of `at` and the latest time seen before.
    #[inline]
    fn at_least_latest(&self, at: i64) -> Timestamp {
        let latest = self.latest.load(Ordering::Relaxed);
        if at > latest + 1_000 {
            // In steps of a millisecond: a write for each request would make threads wait for each other.
            self.latest.fetch_max(at, Ordering::Relaxed);
        }
        Timestamp::from_unix_micros(at.max(latest))
    }
}

impl Comparison {
    /// Returns whether a wall clock with this offset is trusted, and from which offset on this node's time continues
    /// although the wall clock was set back.
    fn decide(&mut self, offset: i64, monotonic: Duration, max_offset: i64) -> (bool, Option<i64>) {
        let ahead = offset.saturating_sub(self.reference);
        if self.with_store {
            // The reference itself may be wrong by the uncertainty.
            let is_close = ahead.saturating_abs().saturating_add(self.uncertainty) <= max_offset;
            return (self.measured_at.is_some() && is_close, None);
        }
        if self.measured_at.is_none() {
            self.measured_at = Some(monotonic);
            self.reference = offset;
            return (true, None);
        }
        if ahead > max_offset && !self.is_simulated {
            let since = *self.ahead_since.get_or_insert(monotonic);
            if monotonic.saturating_sub(since) < SETTLING_TIME {
                return (false, None);
            }
        }
        self.ahead_since = None;
        if ahead < max_offset.saturating_neg() {
            return (true, Some(self.reference));
        }
        self.reference = offset;
        (true, None)
    }
}

impl Now {
    /// Returns the monotonic time as a timestamp, for arithmetic on intervals. It is not a date.
    #[inline]
    pub(crate) fn monotonic_timestamp(&self) -> Timestamp {
        Timestamp::from_unix_micros((self.monotonic / 1_000) as i64)
    }
}

impl ClockReading {
    /// Returns the wall time minus the monotonic time in microseconds.
    #[inline]
    fn offset(&self) -> i64 {
        self.wall.as_unix_micros().wrapping_sub(micros(self.monotonic))
    }
}

#[inline]
fn micros(duration: Duration) -> i64 {
    duration.as_micros() as i64
}

/// Microseconds. Larger steps of the wall clock count as jumps. Daemons that discipline a clock make smaller ones.
const MAX_STEP: u64 = 500_000;
/// An offset that no clock has.
const REFUSED: i64 = i64::MIN;
/// So low that the monotonic time plus this is earlier than every wall time.
const NO_FLOOR: i64 = i64::MIN / 2;
/// How often the clock of the store is read.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often the clock of the store is read while this node's clock is refused.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that took longer says too little about the time.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(4);
/// For how long a clock that jumped ahead is refused if nothing says whether it is right.
pub(crate) const SETTLING_TIME: Duration = Duration::from_secs(60);
