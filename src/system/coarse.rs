//! A clock that costs a fifth of the exact one, because the kernel tells it from memory.

pub(crate) use self::system::{LAG, elapsed};

/// The exact clock is `CLOCK_MONOTONIC`, and this is its value at the last tick.
#[cfg(target_os = "linux")]
mod system {
    use std::{sync::OnceLock, time::Duration};

    use super::super::clock::monotonic;

    /// As [`monotonic`], but behind it: never by more than [`LAG`], and never ahead.
    #[inline]
    pub(crate) fn elapsed() -> Duration {
        let now = coarsetime::Instant::now_without_cache_update();
        let (start, at_start) = *START.get_or_init(begin);
        at_start + Duration::from_nanos(now.duration_since(start).as_nanos())
    }

    /// What is read first may be a tick old: so much it could be ahead of the exact clock.
    fn begin() -> (coarsetime::Instant, Duration) {
        let start = coarsetime::Instant::now_without_cache_update();
        (start, monotonic().saturating_sub(TICK))
    }

    static START: OnceLock<(coarsetime::Instant, Duration)> = OnceLock::new();
    /// No kernel ticks less than a hundred times a second.
    const TICK: Duration = Duration::from_millis(10);
    pub(crate) const LAG: Duration = Duration::from_millis(20);
}

/// Elsewhere the two are not known to be one clock, and could drift apart.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Duration;

    pub(crate) use super::super::clock::monotonic as elapsed;

    pub(crate) const LAG: Duration = Duration::ZERO;
}

#[cfg(test)]
mod tests {
    use super::{super::clock::monotonic, *};

    #[test]
    fn it_is_never_ahead_of_the_exact_clock_and_stays_close_behind() {
        let mut closest = std::time::Duration::MAX;
        for _ in 0..1_000 {
            let (before, coarse, after) = (monotonic(), elapsed(), monotonic());
            assert!(coarse <= after);
            closest = closest.min(before.saturating_sub(coarse));
        }
        assert!(closest <= LAG);
    }
}
