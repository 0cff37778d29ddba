use std::time::Duration;

use super::limited::{NEVER, RateState};
use crate::model::{MAX_RATE_PERIOD_MICROS, Rate, Timestamp};

/// The generic cell rate algorithm: the one definition of a rate.
///
/// The state is one instant: when the bucket will be full again. A use moves it forward by one interval, and is rejected
/// if it would then be further ahead than the burst allows. A rejected use changes nothing, so a client that keeps
/// trying is not locked out. Intervals are whole microseconds, rounded up, so that a rate is never exceeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gcra {
    pub(super) rate: Rate,
    /// How far one use moves a bucket forward.
    pub(super) interval: i64,
    /// How far ahead of now a bucket is without uses left.
    pub(super) reach: i64,
}

impl Gcra {
    pub(crate) fn new(rate: Rate) -> Self {
        let period = rate.period_micros();
        let interval = period.div_ceil(u128::from(rate.uses.get())) as i64;
        let reach = interval.saturating_mul(i64::from(rate.burst.get())).min(MAX_REACH);
        Self { rate, interval, reach }
    }

    /// Returns when a bucket will be full after more uses, or how long to wait for them; [`NEVER`] for more than a burst.
    #[inline]
    pub(crate) fn charge(
        &self,
        full_at: Timestamp,
        uses: u32,
        now: Timestamp,
    ) -> Result<Timestamp, Duration> {
        let ahead = self.ahead(full_at, now).saturating_add(self.cost(uses));
        if ahead > self.reach {
            return Err(self.wait(ahead, uses));
        }
        Ok(Timestamp::from_unix_micros(now.as_unix_micros().saturating_add(ahead)))
    }

    #[inline]
    pub(crate) fn state(&self, full_at: Timestamp, now: Timestamp) -> RateState {
        self.state_at(self.ahead(full_at, now))
    }

    /// Returns how long to wait until a bucket may be this far ahead.
    #[cold]
    fn wait(&self, ahead: i64, uses: u32) -> Duration {
        if self.cost(uses) > self.reach { NEVER } else { from_micros(ahead - self.reach) }
    }

    /// Returns the state of a bucket that is this far ahead of now.
    pub(crate) fn state_at(&self, ahead: i64) -> RateState {
        let remaining = (self.reach - ahead) / self.interval;
        RateState { rate: self.rate, remaining: remaining as u32, reset: from_micros(ahead) }
    }

    /// Returns how far ahead of now the bucket will be full: at most one burst, also if the clock was set back.
    #[inline]
    pub(crate) fn ahead(&self, full_at: Timestamp, now: Timestamp) -> i64 {
        (full_at.as_unix_micros() - now.as_unix_micros()).clamp(0, self.reach)
    }

    /// Returns how far ahead a bucket of an earlier rate is under this one, so that the same number of uses stays charged.
    pub(crate) fn ahead_of_earlier(
        &self,
        earlier: &Self,
        full_at: Timestamp,
        now: Timestamp,
    ) -> i64 {
        if earlier.interval == self.interval {
            return self.ahead(full_at, now);
        }
        let ahead = (full_at.as_unix_micros() - now.as_unix_micros()).max(0);
        // In floating point, as in Lua, so that both compute the same.
        let rescaled = ahead as f64 * self.interval as f64 / earlier.interval as f64;
        (rescaled as i64).min(self.reach)
    }

    /// Returns whether a use is regained in less than a tenth of a second.
    #[inline]
    pub(crate) fn needs_precise_clock(&self) -> bool {
        self.interval < 100_000
    }

    /// Returns how far uses move a bucket forward.
    #[inline]
    pub(crate) fn cost(&self, uses: u32) -> i64 {
        self.interval.saturating_mul(i64::from(uses))
    }
}

fn from_micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

/// One hundred years: an instant this far ahead is still in range, and exact in Lua.
const MAX_REACH: i64 = 100 * MAX_RATE_PERIOD_MICROS as i64;
