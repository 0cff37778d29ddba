use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::model::Timestamp;
use crate::system::coarse;

/// Tells the time. Nothing else in the crate reads a clock.
pub trait Clock: Send + Sync + 'static {
    /// This instant.
    fn now(&self) -> Timestamp;

    /// This instant, and how long it is after some fixed moment: by a clock that nobody sets.
    ///
    /// An implementation MUST let `elapsed` grow as time passes, whatever becomes of the other: how
    /// long a cached key may still be believed is measured by it.
    fn moment(&self) -> Moment {
        Moment { at: self.now(), elapsed: monotonic() }
    }

    /// The same for less, for every verification: at most [`lag`](Clock::lag) behind
    /// [`moment`](Clock::moment), never ahead of it, and counted from the same fixed moment.
    fn glance(&self) -> Moment {
        self.moment()
    }

    /// How far [`glance`](Clock::glance) may be behind. Whatever ends, ends that much earlier for
    /// who only glanced, and he looks again before he calls it over. It MUST NOT change.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }
}

/// One instant by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// As a calendar tells it. It may be set, also back.
    pub at: Timestamp,
    /// Since some fixed moment. It only ever grows.
    pub elapsed: Duration,
}

/// The clock of the machine: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn moment(&self) -> Moment {
        of_calendar(monotonic())
    }

    #[inline]
    fn glance(&self) -> Moment {
        of_calendar(coarse::elapsed())
    }

    fn lag(&self) -> Duration {
        coarse::LAG
    }
}

/// Reads one clock and not two: the calendar is asked anew only every second, so a step of it is
/// noticed that late.
#[inline]
fn of_calendar(elapsed: Duration) -> Moment {
    let micros = micros(elapsed);
    if micros.saturating_sub(ASKED.load(Ordering::Acquire)) >= ASK_AGAIN {
        ask_calendar();
    }
    // It cannot wrap: of the two, the one was a calendar's instant less the other.
    let at = AHEAD.load(Ordering::Relaxed).wrapping_add_unsigned(micros);
    Moment { at: Timestamp::from_unix_micros(at), elapsed }
}

#[cold]
fn ask_calendar() {
    let micros = micros(monotonic());
    let ahead = SystemClock.now().as_unix_micros().saturating_sub_unsigned(micros);
    AHEAD.store(ahead, Ordering::Relaxed);
    ASKED.store(micros, Ordering::Release);
}

pub(crate) fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    // It begins with two seconds, so that the first one to ask finds that it is time to.
    START.get_or_init(Instant::now).elapsed() + 2 * Duration::from_micros(ASK_AGAIN)
}

#[inline]
fn micros(elapsed: Duration) -> u64 {
    elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros())
}

/// How far the calendar was ahead of the monotonic clock, when it was last asked.
static AHEAD: AtomicI64 = AtomicI64::new(0);
static ASKED: AtomicU64 = AtomicU64::new(0);
const ASK_AGAIN: u64 = 1_000_000;

/// Never goes back further than a millisecond, and not at all behind an instant that was
/// [held](Ratchet::hold): whatever was over stays over when the machine's clock is set back.
#[derive(Debug, Default)]
pub(crate) struct Ratchet(AtomicI64);

impl Ratchet {
    /// The later one of this instant and those before.
    #[inline]
    pub(crate) fn at_least(&self, at: Timestamp) -> Timestamp {
        let highest = self.0.load(Ordering::Relaxed);
        let now = at.as_unix_micros();
        if now > highest + STEP {
            // In steps, because a write for every request would have all threads wait for it.
            self.0.fetch_max(now, Ordering::Relaxed);
        }
        if now < highest { Timestamp::from_unix_micros(highest) } else { at }
    }

    /// Something was decided by this instant: it shall not come again.
    pub(crate) fn hold(&self, now: Timestamp) {
        self.0.fetch_max(now.as_unix_micros(), Ordering::Relaxed);
    }

    /// By how much a clock that shows `now` was set back.
    pub(crate) fn ahead_of(&self, now: Timestamp) -> Duration {
        Timestamp::from_unix_micros(self.0.load(Ordering::Relaxed)).since(now)
    }
}

/// A millisecond.
const STEP: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_machine_tells_what_its_calendar_tells() {
        let (before, moment) = (SystemClock.now(), SystemClock.moment());
        assert!(before.before(Duration::from_secs(1)) <= moment.at);
        assert!(moment.at <= SystemClock.now().after(Duration::from_secs(1)));
        assert!(SystemClock.moment().elapsed >= moment.elapsed);
        let glance = SystemClock.glance();
        assert!(before.before(Duration::from_secs(1)) <= glance.at);
        assert!(glance.elapsed <= SystemClock.moment().elapsed);
    }

    #[test]
    fn an_instant_that_was_held_does_not_come_again() {
        let (ratchet, noon) = (Ratchet::default(), Timestamp::from_unix_micros(1_000_000_000));
        assert_eq!(ratchet.at_least(noon), noon);
        let later = noon.after(Duration::from_micros(7));
        ratchet.hold(later);
        assert_eq!(ratchet.at_least(noon), later);
        assert_eq!(ratchet.ahead_of(noon), Duration::from_micros(7));
    }
}
