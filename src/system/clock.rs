use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::model::Timestamp;

/// A source of time. Nothing else in the crate reads a clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns the current time by two clocks: the wall clock, and a monotonic clock.
    ///
    /// An implementation MUST let `monotonic` grow as time passes, also when the wall clock is set: the age of a cached
    /// key is measured by it. The default combines [`now`](Clock::now) with the monotonic clock of the machine.
    fn reading(&self) -> ClockReading {
        ClockReading { wall: self.now(), monotonic: machine_monotonic() }
    }

    /// Returns a cheaper reading, which is called for every verification.
    ///
    /// It MAY lag behind [`reading`](Clock::reading) by at most [`coarse_lag`](Clock::coarse_lag), and MUST NOT be
    /// ahead of it. Defaults to `reading`.
    fn coarse_reading(&self) -> ClockReading {
        self.reading()
    }

    /// Returns the longest time by which [`coarse_reading`](Clock::coarse_reading) lags. MUST be constant.
    ///
    /// Verification adds it to a coarse reading before it compares with an expiry, and reads the precise clock
    /// before it rejects. Defaults to zero.
    fn coarse_lag(&self) -> Duration {
        Duration::ZERO
    }
}

/// The same instant by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The time of the wall clock. It may be set, also back.
    pub wall: Timestamp,
    /// The time since a fixed moment. It only grows.
    pub monotonic: Duration,
}

/// The clock of the machine: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn reading(&self) -> ClockReading {
        with_wall_time(machine_monotonic())
    }

    #[inline]
    fn coarse_reading(&self) -> ClockReading {
        with_wall_time(coarse::monotonic())
    }

    fn coarse_lag(&self) -> Duration {
        coarse::LAG
    }
}

/// The clock of a node, as verification and management use it: wall time that never goes back.
pub(crate) struct NodeClock {
    clock: Arc<dyn Clock>,
    coarse_lag: Duration,
    ratchet: Ratchet,
}

/// The current instant on this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The wall time; never earlier than an earlier reading.
    pub(crate) at: Timestamp,
    /// The latest wall time that it can be. An end that is later than this has not passed.
    pub(crate) upper_bound: Timestamp,
    /// Nanoseconds of the monotonic clock.
    pub(crate) monotonic: u64,
}

impl NodeClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { coarse_lag: clock.coarse_lag(), clock, ratchet: Ratchet::default() }
    }

    /// Returns the wall time of a change. No later reading on this node is earlier.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.ratchet.at_least(self.clock.now());
        self.ratchet.hold(now);
        now
    }

    #[inline]
    pub(crate) fn coarse_now(&self) -> Now {
        self.now_at(self.clock.coarse_reading(), self.coarse_lag)
    }

    #[cold]
    pub(crate) fn precise_now(&self) -> Now {
        self.now_at(self.clock.reading(), Duration::ZERO)
    }

    /// Keeps later readings from being earlier than `at`, because something was decided by it.
    pub(crate) fn hold(&self, at: Timestamp) {
        self.ratchet.hold(at);
    }

    /// Returns how far the machine's clock was set back.
    pub(crate) fn set_back_by(&self) -> Duration {
        self.ratchet.ahead_of(self.clock.reading().wall)
    }

    pub(crate) fn coarse_lag(&self) -> Duration {
        self.coarse_lag
    }

    #[inline]
    fn now_at(&self, ClockReading { wall, monotonic }: ClockReading, lag: Duration) -> Now {
        let at = self.ratchet.at_least(wall);
        let nanos = monotonic.as_secs() * 1_000_000_000 + u64::from(monotonic.subsec_nanos());
        Now { at, upper_bound: at.after(lag), monotonic: nanos }
    }
}

impl Now {
    /// Returns the monotonic time as a timestamp, for arithmetic on intervals. It is not a date.
    #[inline]
    pub(crate) fn monotonic_timestamp(&self) -> Timestamp {
        Timestamp::from_unix_micros((self.monotonic / 1_000) as i64)
    }
}

/// Combines a monotonic reading with the wall clock. The wall clock itself is read once a second, so that a
/// reading costs one clock instead of two; a step of the wall clock is noticed within that second.
#[inline]
fn with_wall_time(monotonic: Duration) -> ClockReading {
    let micros = as_micros(monotonic);
    if micros.saturating_sub(WALL_READ_AT.load(Ordering::Acquire)) >= WALL_INTERVAL {
        read_wall_clock();
    }
    // Cannot wrap: the offset was computed as a wall time minus a monotonic time.
    let wall = WALL_OFFSET.load(Ordering::Relaxed).wrapping_add_unsigned(micros);
    ClockReading { wall: Timestamp::from_unix_micros(wall), monotonic }
}

#[cold]
fn read_wall_clock() {
    let micros = as_micros(machine_monotonic());
    let offset = SystemClock.now().as_unix_micros().saturating_sub_unsigned(micros);
    WALL_OFFSET.store(offset, Ordering::Relaxed);
    WALL_READ_AT.store(micros, Ordering::Release);
}

fn machine_monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    // Starts at two seconds, so that the first reading finds the wall clock due.
    START.get_or_init(Instant::now).elapsed() + 2 * Duration::from_micros(WALL_INTERVAL)
}

#[inline]
fn as_micros(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000 + u64::from(duration.subsec_micros())
}

/// The wall time minus the monotonic time in microseconds, when the wall clock was last read.
static WALL_OFFSET: AtomicI64 = AtomicI64::new(0);
static WALL_READ_AT: AtomicU64 = AtomicU64::new(0);
/// Microseconds between two readings of the wall clock.
const WALL_INTERVAL: u64 = 1_000_000;

/// `CLOCK_MONOTONIC_COARSE`: the monotonic clock at the last kernel tick. Reading it takes 8 ns where
/// `CLOCK_MONOTONIC` takes 35, which is a fifth of a cached verification.
#[cfg(target_os = "linux")]
mod coarse {
    use std::{sync::OnceLock, time::Duration};

    use super::machine_monotonic;

    /// Returns the value of [`machine_monotonic`] at most [`LAG`] ago.
    #[inline]
    pub(super) fn monotonic() -> Duration {
        let now = coarsetime::Instant::now_without_cache_update();
        let (start, at_start) = *START.get_or_init(start);
        at_start + Duration::from_nanos(now.duration_since(start).as_nanos())
    }

    /// The first coarse reading may be one tick old, so the precise one is moved back by a tick: a coarse reading
    /// is never ahead.
    fn start() -> (coarsetime::Instant, Duration) {
        let start = coarsetime::Instant::now_without_cache_update();
        (start, machine_monotonic().saturating_sub(TICK))
    }

    static START: OnceLock<(coarsetime::Instant, Duration)> = OnceLock::new();
    /// Kernels tick at least 100 times a second.
    const TICK: Duration = Duration::from_millis(10);
    pub(super) const LAG: Duration = Duration::from_millis(20);
}

/// On other systems, the two clocks could drift apart.
#[cfg(not(target_os = "linux"))]
mod coarse {
    use std::time::Duration;

    pub(super) use super::machine_monotonic as monotonic;

    pub(super) const LAG: Duration = Duration::ZERO;
}

/// The latest wall time seen, in steps of a millisecond. A time that has passed stays passed when the machine's
/// clock is set back.
#[derive(Debug, Default)]
struct Ratchet(AtomicI64);

impl Ratchet {
    /// Returns the later of `at` and the times seen before.
    #[inline]
    fn at_least(&self, at: Timestamp) -> Timestamp {
        let highest = self.0.load(Ordering::Relaxed);
        let now = at.as_unix_micros();
        if now > highest + RATCHET_STEP {
            // In steps: a write for each request would make threads wait for each other.
            self.0.fetch_max(now, Ordering::Relaxed);
        }
        if now < highest { Timestamp::from_unix_micros(highest) } else { at }
    }

    /// Records `at` exactly.
    fn hold(&self, at: Timestamp) {
        self.0.fetch_max(at.as_unix_micros(), Ordering::Relaxed);
    }

    fn ahead_of(&self, now: Timestamp) -> Duration {
        Timestamp::from_unix_micros(self.0.load(Ordering::Relaxed)).since(now)
    }
}

/// One millisecond, in microseconds.
const RATCHET_STEP: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_agrees_with_the_wall_clock() {
        let (before, reading) = (SystemClock.now(), SystemClock.reading());
        assert!(before.before(Duration::from_secs(1)) <= reading.wall);
        assert!(reading.wall <= SystemClock.now().after(Duration::from_secs(1)));
        assert!(SystemClock.reading().monotonic >= reading.monotonic);
        let coarse = SystemClock.coarse_reading();
        assert!(before.before(Duration::from_secs(1)) <= coarse.wall);
        assert!(coarse.monotonic <= SystemClock.reading().monotonic);
    }

    #[test]
    fn the_coarse_clock_is_never_ahead_and_stays_within_its_lag() {
        let mut closest = Duration::MAX;
        for _ in 0..1_000 {
            let (before, coarse, after) =
                (machine_monotonic(), coarse::monotonic(), machine_monotonic());
            assert!(coarse <= after);
            closest = closest.min(before.saturating_sub(coarse));
        }
        assert!(closest <= coarse::LAG);
    }

    #[test]
    fn a_time_that_was_held_does_not_come_again() {
        let (ratchet, noon) = (Ratchet::default(), Timestamp::from_unix_micros(1_000_000_000));
        assert_eq!(ratchet.at_least(noon), noon);
        let later = noon.after(Duration::from_micros(7));
        ratchet.hold(later);
        assert_eq!(ratchet.at_least(noon), later);
        assert_eq!(ratchet.ahead_of(noon), Duration::from_micros(7));
    }
}
