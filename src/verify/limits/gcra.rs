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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same rate as a token bucket of `burst` uses that regains `uses` per period, counted exactly in
    /// fractions of `1 / period` use.
    struct Exact {
        tokens: u128,
        at: u128,
    }

    impl Exact {
        fn charge(&mut self, rate: Rate, uses: u32, now: u128) -> bool {
            let period = rate.period.as_micros();
            let full = u128::from(rate.burst.get()) * period;
            let regained = (now - self.at) * u128::from(rate.uses.get());
            (self.tokens, self.at) = (full.min(self.tokens + regained), now);
            let price = u128::from(uses) * period;
            let enough = self.tokens >= price;
            if enough {
                self.tokens -= price;
            }
            enough
        }
    }

    proptest! {
        #[test]
        fn gcra_agrees_with_an_exact_token_bucket(
            uses in 1u32..2_000, burst in 1u32..50, unit in 0usize..3,
            steps in prop::collection::vec((0u64..3_000_000, 0u32..5), 1..200),
        ) {
            // Periods that divide evenly, so that rounding hides no difference.
            let period = Duration::from_micros([1_000, 1_000_000, 60_000_000][unit]) * uses;
            let rate = Rate { period, ..Rate::per_second(uses).burst(burst) };
            let (gcra, mut full_at, mut now) = (Gcra::new(rate), Timestamp::MIN, Timestamp::MIN);
            let mut exact = Exact { tokens: u128::MAX / 2, at: 0 };
            for (step, uses) in steps {
                now = now.after(Duration::from_micros(step));
                let expected = exact.charge(rate, uses, now.as_unix_micros() as u128);
                let before = gcra.state(full_at, now).remaining;
                match gcra.charge(full_at, uses, now) {
                    Ok(next) => {
                        prop_assert!(expected && before >= uses);
                        full_at = next;
                    }
                    Err(NEVER) => prop_assert!(!expected && burst < uses),
                    Err(wait) => {
                        prop_assert!(!expected && before < uses);
                        // Exactly then, and not a microsecond earlier, enough uses are regained.
                        prop_assert!(gcra.charge(full_at, uses, now.after(wait)).is_ok());
                        let early = wait - Duration::from_micros(1);
                        prop_assert!(gcra.charge(full_at, uses, now.after(early)).is_err());
                    }
                }
            }
        }

        #[test]
        fn no_rate_and_no_instant_overflows(
            uses: u32, burst: u32, period: u64, full_at: i64, earlier: (u32, u64), cost: u32,
            now in 0..Timestamp::MAX.as_unix_micros() / 2,
        ) {
            let gcra = |uses, period, burst| {
                let period = Duration::from_micros(period);
                Gcra::new(Rate { period, ..Rate::per_second(uses).burst(burst) })
            };
            let (gcra, earlier) = (gcra(uses, period, burst), gcra(earlier.0, earlier.1, burst));
            let now = Timestamp::from_unix_micros(now);
            let full_at = Timestamp::from_unix_micros(full_at);
            prop_assert!((0..=gcra.reach).contains(&gcra.ahead_of_earlier(&earlier, full_at, now)));
            let before = gcra.state(full_at, now).remaining;
            for cost in [0, 1, cost] {
                match gcra.charge(full_at, cost, now) {
                    Ok(next) => {
                        let after = gcra.state(next, now).remaining;
                        prop_assert!(after <= before && (after < before || cost == 0));
                    }
                    Err(wait) => prop_assert!(wait > Duration::ZERO && before < cost),
                }
            }
        }
    }
}
