use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use super::{EntropyError, fill_random};
use crate::model::{EventId, KeyId, Timestamp};

/// A source of time. Nothing else in the crate reads a clock of this machine.
///
/// A node compares its clock with the clock of its store, if the store [has one](crate::KeyStore::clock), and refuses to
/// decide by a clock that is wrong by more than
/// [`max_clock_offset`](crate::api::ApiKeysBuilder::max_clock_offset).
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns the current time by two clocks: the wall clock, and a monotonic clock.
    ///
    /// An implementation MUST let `monotonic` grow as time passes, also when the wall clock is set: the age of a cached
    /// key is measured by it. It SHOULD count the time for which the machine is suspended. If the two clocks move apart
    /// by more than half a second, everything that was read before counts as older than
    /// [`max_staleness`](crate::verify::CacheOptions::max_staleness).
    ///
    /// Defaults to [`now`](Clock::now) and the monotonic clock of the machine.
    fn reading(&self) -> ClockReading {
        ClockReading { monotonic: machine::monotonic(), wall: self.now() }
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

    /// Returns whether this is a clock of tests, which shows a time that the test chose. MUST be constant.
    ///
    /// Such a clock is not compared with the clock of a store, and is believed immediately when it is set forward. If it
    /// is set back, time goes on from where it was. Defaults to false.
    fn is_simulated(&self) -> bool {
        false
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
///
/// On Linux, its monotonic time is `CLOCK_BOOTTIME`, which counts the time for which the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn reading(&self) -> ClockReading {
        machine::reading()
    }

    #[inline]
    fn coarse_reading(&self) -> ClockReading {
        machine::coarse_reading()
    }

    fn coarse_lag(&self) -> Duration {
        machine::LAG
    }
}

#[cfg(target_os = "linux")]
mod machine {
    use std::{
        sync::atomic::{AtomicI64, AtomicU64, Ordering},
        time::Duration,
    };

    use rustix::time::{ClockId, clock_gettime};

    use super::ClockReading;
    use crate::model::Timestamp;

    /// Returns `CLOCK_BOOTTIME`.
    pub(super) fn monotonic() -> Duration {
        Duration::from_nanos(nanos(ClockId::Boottime))
    }

    pub(super) fn reading() -> ClockReading {
        coarse_reading();
        at(nanos(ClockId::Monotonic))
    }

    /// Returns the time of the last kernel tick. Reading a coarse clock takes 8 ns where another one takes 30, which is a
    /// fifth of a cached verification. So the others are read once per tick. A step of the wall clock, or a suspension of
    /// the machine, is noticed by the first reading of the next tick; a process that was suspended resumes after it.
    #[inline]
    pub(super) fn coarse_reading() -> ClockReading {
        let tick = nanos(ClockId::MonotonicCoarse);
        if tick != TICK.load(Ordering::Acquire) {
            read_other_clocks();
        }
        at(tick)
    }

    #[inline]
    fn at(monotonic: u64) -> ClockReading {
        let wall = WALL_OFFSET.load(Ordering::Relaxed).wrapping_add_unsigned(monotonic);
        ClockReading {
            wall: Timestamp::from_unix_micros(wall / 1_000),
            monotonic: Duration::from_nanos(monotonic + SUSPENDED.load(Ordering::Relaxed)),
        }
    }

    #[cold]
    fn read_other_clocks() {
        // Read in this order, the difference is never too large, so a coarse reading is never ahead of another one.
        let boot = nanos(ClockId::Boottime);
        let suspended = boot.saturating_sub(nanos(ClockId::Monotonic));
        SUSPENDED.fetch_max(suspended, Ordering::Relaxed);
        for tries_left in (0..10).rev() {
            let tick = nanos(ClockId::MonotonicCoarse);
            let wall = nanos(ClockId::RealtimeCoarse);
            // Within one tick the two differ by exactly the offset. A system without coarse clocks has no ticks.
            if tick == nanos(ClockId::MonotonicCoarse) || tries_left == 0 {
                WALL_OFFSET.store(wall.cast_signed() - tick.cast_signed(), Ordering::Relaxed);
                TICK.store(tick, Ordering::Release);
                return;
            }
        }
    }

    #[inline]
    fn nanos(id: ClockId) -> u64 {
        let time = clock_gettime(id);
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    }

    /// `CLOCK_MONOTONIC_COARSE` when the other clocks were last read.
    static TICK: AtomicU64 = AtomicU64::new(0);
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`.
    static WALL_OFFSET: AtomicI64 = AtomicI64::new(0);
    /// `CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC`: the time for which the machine was suspended.
    static SUSPENDED: AtomicU64 = AtomicU64::new(0);
    /// Kernels tick at least 100 times a second.
    pub(super) const LAG: Duration = Duration::from_millis(20);
}

/// Other systems may not count the time for which they are suspended. There, the jump of the wall clock ends the trust.
#[cfg(not(target_os = "linux"))]
mod machine {
    use std::{
        sync::OnceLock,
        time::{Duration, Instant, SystemTime},
    };

    use super::ClockReading;

    pub(super) fn monotonic() -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        // Never zero, which is the time of no reading at all.
        START.get_or_init(Instant::now).elapsed() + Duration::from_secs(1)
    }

    pub(super) fn reading() -> ClockReading {
        ClockReading { monotonic: monotonic(), wall: SystemTime::now().into() }
    }

    pub(super) use self::reading as coarse_reading;

    pub(super) const LAG: Duration = Duration::ZERO;
}

/// Generates UUIDv7 identifiers that strictly increase, even if the clock stands still or is set back by up to a day.
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
        let after = |last: u64| match last {
            // Of a clock that was wrong: it is not followed.
            _ if last > tick + MAX_IDS_AHEAD => tick,
            _ => tick.max(last + 1),
        };
        let last =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        let tick = after(last.unwrap_or(0));
        let mut bytes = [0; 10];
        fill_random(&mut bytes)?;
        bytes[..2].copy_from_slice(&(tick as u16 & 0x0fff).to_be_bytes());
        Ok(uuid::Builder::from_unix_timestamp_millis(tick >> 12, &bytes).into_uuid().into_bytes())
    }
}

/// A day, in the unit of [`IdGenerator::last`]: longer than any burst of ids is ahead of its clock.
const MAX_IDS_AHEAD: u64 = (86_400_000) << 12;
