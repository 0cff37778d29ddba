use std::{num::NonZeroU32, time::Duration};

use crate::model::quota::Quota;

/// What an owner's plan allows. Whatever is not set is not limited.
///
/// # Examples
/// ```
/// use keyward::model::{Limits, Rate};
///
/// let pro = Limits::default().max_active_keys(5).rate(Rate::per_minute(600));
/// assert_eq!(pro.active_keys(), Some(5));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    max_active_keys: Option<u32>,
    max_lifetime: Option<Duration>,
    rate: Option<Rate>,
    rate_per_key: Option<Rate>,
    quota: Option<Quota>,
}

impl Limits {
    /// How many keys the owner may have that are neither revoked nor expired. Lowering it below
    /// the present number keeps those keys and refuses new ones.
    pub fn max_active_keys(mut self, keys: u32) -> Self {
        self.max_active_keys = Some(keys);
        self
    }

    /// How long a new key may live; with it set, a key that never expires is refused.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }

    /// How often the owner's keys may be used, all together.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// How often each of the owner's keys may be used, whatever the others do. A key may have a lower
    /// rate of its own, or a smaller burst: of both, the lower counts.
    ///
    /// # Examples
    /// ```
    /// use keyward::model::{Limits, Rate};
    ///
    /// let pro = Limits::default().rate_per_key(Rate::per_minute(60)).rate(Rate::per_minute(200));
    /// ```
    pub fn rate_per_key(mut self, rate: Rate) -> Self {
        self.rate_per_key = Some(rate);
        self
    }

    /// How many uses the owner's keys have, all together.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// The limit of active keys, if there is one.
    pub fn active_keys(&self) -> Option<u32> {
        self.max_active_keys
    }

    /// The longest lifetime, if there is one.
    pub fn lifetime(&self) -> Option<Duration> {
        self.max_lifetime
    }

    /// The rate that all of the owner's keys share, if there is one.
    pub fn shared_rate(&self) -> Option<Rate> {
        self.rate
    }

    /// The rate that each of the owner's keys has, unless its own is lower; if there is one.
    pub fn each_rate(&self) -> Option<Rate> {
        self.rate_per_key
    }

    /// The rate of a key that has these limits.
    #[inline]
    pub(crate) fn rate_of(&self, key: &KeyLimits) -> Option<Rate> {
        match (self.rate_per_key, key.rate) {
            (Some(plan), Some(own)) => Some(plan.narrowed_by(own)),
            (plan, own) => own.or(plan),
        }
    }

    /// The quota that all of the owner's keys share, if there is one.
    pub fn shared_quota(&self) -> Option<Quota> {
        self.quota
    }
}

/// What narrows one key within its owner's plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// How often this key may be used.
    pub rate: Option<Rate>,
    /// How many uses it has.
    pub quota: Option<Quota>,
}

impl KeyLimits {
    /// Whether a key with `other` can be used at most as often as one with these.
    pub fn cover(&self, other: &Self) -> bool {
        let rate = self.rate.is_none_or(|mine| other.rate.is_some_and(|rate| mine.covers(rate)));
        let quota = |mine: Quota| other.quota.is_some_and(|quota| mine.covers(quota));
        rate && self.quota.is_none_or(quota)
    }
}

/// So many uses in a period, of which so many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many uses the period allows.
    pub uses: NonZeroU32,
    /// The period; more than a year counts as a year.
    pub period: Duration,
    /// How many uses may come at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many uses a second, all of which may come at once. None at all becomes one.
    pub fn per_second(uses: u32) -> Self {
        Self::per(Duration::from_secs(1), uses)
    }

    /// So many uses a minute, all of which may come at once. None at all becomes one.
    pub fn per_minute(uses: u32) -> Self {
        Self::per(Duration::from_secs(60), uses)
    }

    /// So many uses an hour, all of which may come at once. None at all becomes one.
    pub fn per_hour(uses: u32) -> Self {
        Self::per(Duration::from_secs(3_600), uses)
    }

    /// How many uses may come at once, if not all of the period's.
    #[must_use]
    pub fn burst(mut self, uses: u32) -> Self {
        self.burst = at_least_one(uses);
        self
    }

    fn covers(self, other: Self) -> bool {
        other.burst <= self.burst && other.is_as_slow_as(self)
    }

    /// What neither refuses, also where one has the lower rate and the other the smaller burst.
    fn narrowed_by(self, other: Self) -> Self {
        let slower = if other.is_as_slow_as(self) { other } else { self };
        Self { burst: self.burst.min(other.burst), ..slower }
    }

    fn is_as_slow_as(self, other: Self) -> bool {
        let uses_in = |uses: NonZeroU32, period: u128| period * u128::from(uses.get());
        uses_in(self.uses, other.counted_period()) <= uses_in(other.uses, self.counted_period())
    }

    /// The period as it is counted, in microseconds: no longer than a year.
    pub(crate) fn counted_period(self) -> u128 {
        self.period.as_micros().clamp(1, LONGEST_PERIOD)
    }

    fn per(period: Duration, uses: u32) -> Self {
        Self { uses: at_least_one(uses), period, burst: at_least_one(uses) }
    }
}

fn at_least_one(uses: u32) -> NonZeroU32 {
    NonZeroU32::new(uses).unwrap_or(NonZeroU32::MIN)
}

/// A year.
pub(crate) const LONGEST_PERIOD: u128 = 365 * 86_400 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_year_counts_as_a_year_also_where_rates_are_compared() {
        let per = |years: u64, uses| KeyLimits {
            rate: Some(Rate::per(Duration::from_secs(years * 365 * 86_400), uses)),
            quota: None,
        };
        assert!(per(1, 1_000).cover(&per(1_000, 1_000)));
        assert!(per(1_000, 1_000).cover(&per(1, 1_000)));
        assert!(!per(1, 999).cover(&per(1_000, 1_000)), "as many, and all of them in one year");
    }
}
