use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{EntropyError, fill_random};
use crate::model::{EventId, KeyId, Timestamp};

/// A source of time. Nothing else in the crate reads a clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns the current time by two clocks: the wall clock, and a monotonic clock.
    ///
    /// An implementation MUST let `monotonic` grow as time passes, also when the wall clock is set: the age of a cached
    /// key is measured by it. Defaults to [`now`](Clock::now) and the monotonic clock of the machine.
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

/// The clock of the machine, and the default of [`ApiKeysBuilder`](crate::api::ApiKeysBuilder).
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
    pub(crate) coarse_lag: Duration,
    /// The latest wall time seen in microseconds, accurate to a millisecond. No reading is earlier.
    latest: AtomicI64,
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
        Self { coarse_lag: clock.coarse_lag(), clock, latest: AtomicI64::default() }
    }

    /// Returns the wall time of a change. No later reading on this node is earlier.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.at_least_latest(self.clock.now());
        self.hold(now);
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
        self.latest.fetch_max(at.as_unix_micros(), Ordering::Relaxed);
    }

    /// Returns how far the machine's clock was set back.
    pub(crate) fn set_back_by(&self) -> Duration {
        let latest = Timestamp::from_unix_micros(self.latest.load(Ordering::Relaxed));
        latest.since(self.clock.reading().wall)
    }

    #[inline]
    fn now_at(&self, ClockReading { wall, monotonic }: ClockReading, lag: Duration) -> Now {
        let at = self.at_least_latest(wall);
        Now { at, upper_bound: at.after(lag), monotonic: monotonic.as_nanos() as u64 }
    }

    /// Returns the later of `at` and the latest time seen before.
    #[inline]
    fn at_least_latest(&self, at: Timestamp) -> Timestamp {
        let latest = self.latest.load(Ordering::Relaxed);
        if at.as_unix_micros() > latest + 1_000 {
            // In steps of a millisecond: a write for each request would make threads wait for each other.
            self.hold(at);
        }
        if at.as_unix_micros() < latest { Timestamp::from_unix_micros(latest) } else { at }
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
    let micros = monotonic.as_micros() as u64;
    if micros.saturating_sub(WALL_READ_AT.load(Ordering::Acquire)) >= WALL_INTERVAL {
        read_wall_clock();
    }
    // Cannot wrap: the offset was computed as a wall time minus a monotonic time.
    let wall = WALL_OFFSET.load(Ordering::Relaxed).wrapping_add_unsigned(micros);
    ClockReading { wall: Timestamp::from_unix_micros(wall), monotonic }
}

#[cold]
fn read_wall_clock() {
    let micros = machine_monotonic().as_micros() as u64;
    let offset = SystemClock.now().as_unix_micros().saturating_sub_unsigned(micros);
    WALL_OFFSET.store(offset, Ordering::Relaxed);
    WALL_READ_AT.store(micros, Ordering::Release);
}

fn machine_monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    // Starts at two seconds, so that the first reading finds the wall clock due.
    START.get_or_init(Instant::now).elapsed() + 2 * Duration::from_micros(WALL_INTERVAL)
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
        static START: OnceLock<(coarsetime::Instant, Duration)> = OnceLock::new();
        let now = coarsetime::Instant::now_without_cache_update();
        // The first coarse reading may be one tick old. Without that tick, a coarse reading is never ahead.
        let (start, at_start) = *START.get_or_init(|| {
            let start = coarsetime::Instant::now_without_cache_update();
            (start, machine_monotonic().saturating_sub(TICK))
        });
        at_start + Duration::from_nanos(now.duration_since(start).as_nanos())
    }

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

/// Generates UUIDv7 identifiers that strictly increase, even if the clock stands still or is set back.
#[derive(Debug, Default)]
pub(crate) struct IdGenerator {
    /// The sortable half of the last identifier: milliseconds, then twelve bits of sub-millisecond fraction or counter.
    last: AtomicU64,
}

impl IdGenerator {
    pub(crate) fn key_id(&self, now: Timestamp) -> Result<KeyId, EntropyError> {
        self.uuid(now).map(KeyId::from_bytes)
    }

    pub(crate) fn event_id(&self, now: Timestamp) -> Result<EventId, EntropyError> {
        self.uuid(now).map(EventId::from_bytes)
    }

    fn uuid(&self, now: Timestamp) -> Result<[u8; 16], EntropyError> {
        let micros = now.as_unix_micros().unsigned_abs();
        let tick = (micros / 1_000) << 12 | (micros % 1_000) << 2;
        let next = |last: u64| Some(tick.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let tick = tick.max(last.unwrap_or(0) + 1);
        let mut bytes = [0; 10];
        fill_random(&mut bytes)?;
        bytes[..2].copy_from_slice(&(tick as u16 & 0x0fff).to_be_bytes());
        Ok(uuid::Builder::from_unix_timestamp_millis(tick >> 12, &bytes).into_uuid().into_bytes())
    }
}
