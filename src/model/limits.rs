use std::{num::NonZeroU32, time::Duration};

use time::UtcDateTime;

use crate::model::{bounds::MAX_QUOTA_USES, timestamp::Timestamp};

/// The limits of an owner's plan. A limit that is not set is unlimited.
///
/// # Examples
/// ```
/// use keyward::model::{Limits, Quota, Rate};
///
/// let pro = Limits::default()
///     .max_active_keys(5)
///     .rate_per_key(Rate::per_minute(60))
///     .rate(Rate::per_minute(200))
///     .quota(Quota::per_month(50_000));
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
    /// Sets the maximum number of keys that are neither revoked nor expired. Lowering it below the current
    /// number keeps existing keys and refuses new ones.
    pub fn max_active_keys(self, keys: u32) -> Self {
        Self { max_active_keys: Some(keys), ..self }
    }

    /// Sets the maximum lifetime of a new key. If set, a new key without expiry is refused.
    pub fn max_lifetime(self, lifetime: Duration) -> Self {
        Self { max_lifetime: Some(lifetime), ..self }
    }

    /// Sets the rate that all of the owner's keys share.
    pub fn rate(self, rate: Rate) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Sets the rate of each of the owner's keys, independent of the others. If a key has its own rate, the
    /// lower rate and the smaller burst of the two apply.
    pub fn rate_per_key(self, rate: Rate) -> Self {
        Self { rate_per_key: Some(rate), ..self }
    }

    /// Sets the quota that all of the owner's keys share.
    pub fn quota(self, quota: Quota) -> Self {
        Self { quota: Some(quota), ..self }
    }

    /// Returns the maximum number of active keys.
    pub fn active_keys(&self) -> Option<u32> {
        self.max_active_keys
    }

    /// Returns the maximum lifetime of a new key.
    pub fn lifetime(&self) -> Option<Duration> {
        self.max_lifetime
    }

    /// Returns the rate that all of the owner's keys share.
    pub fn shared_rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Returns the rate of each key, which a key's own rate can only reduce.
    pub fn key_rate(&self) -> Option<Rate> {
        self.rate_per_key
    }

    /// The effective rate of a key with these limits.
    #[inline]
    pub(crate) fn rate_of(&self, key: &KeyLimits) -> Option<Rate> {
        match (self.rate_per_key, key.rate) {
            (Some(plan), Some(own)) => Some(plan.narrowed_by(own)),
            (plan, own) => own.or(plan),
        }
    }

    /// Returns the quota that all of the owner's keys share.
    pub fn shared_quota(&self) -> Option<Quota> {
        self.quota
    }
}

/// The limits of a single key, in addition to those of its owner's plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// The rate of this key.
    pub rate: Option<Rate>,
    /// The quota of this key.
    pub quota: Option<Quota>,
}

impl KeyLimits {
    /// Whether a key with the limits `other` can be used at most as often as a key with these limits.
    pub fn covers(&self, other: &Self) -> bool {
        let rate = self.rate.is_none_or(|mine| other.rate.is_some_and(|rate| mine.covers(rate)));
        let quota = |mine: Quota| other.quota.is_some_and(|quota| mine.covers(quota));
        rate && self.quota.is_none_or(quota)
    }
}

/// A rate limit: a number of uses per period, and the size of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The number of uses per period.
    pub uses: NonZeroU32,
    /// The period. Longer than 365 days is treated as 365 days.
    pub period: Duration,
    /// The number of uses that may happen at the same time.
    pub burst: NonZeroU32,
}

impl Rate {
    /// Returns a rate of `uses` per second with a burst of the same size. 0 is treated as 1.
    pub fn per_second(uses: u32) -> Self {
        Self::per(Duration::from_secs(1), uses)
    }

    /// Returns a rate of `uses` per minute with a burst of the same size. 0 is treated as 1.
    pub fn per_minute(uses: u32) -> Self {
        Self::per(Duration::from_secs(60), uses)
    }

    /// Returns a rate of `uses` per hour with a burst of the same size. 0 is treated as 1.
    pub fn per_hour(uses: u32) -> Self {
        Self::per(HOUR, uses)
    }

    /// Sets the burst. Defaults to the uses of a whole period. 0 is treated as 1.
    #[must_use]
    pub fn burst(self, uses: u32) -> Self {
        Self { burst: at_least_one(uses), ..self }
    }

    fn covers(self, other: Self) -> bool {
        other.burst <= self.burst && other.is_as_slow_as(self)
    }

    /// Combines the lower rate with the smaller burst, even if each comes from a different rate.
    fn narrowed_by(self, other: Self) -> Self {
        let slower = if other.is_as_slow_as(self) { other } else { self };
        Self { burst: self.burst.min(other.burst), ..slower }
    }

    fn is_as_slow_as(self, other: Self) -> bool {
        // Compares uses / period by cross-multiplication.
        let product = |uses: NonZeroU32, period: u128| period * u128::from(uses.get());
        product(self.uses, other.period_micros()) <= product(other.uses, self.period_micros())
    }

    /// The period in microseconds, limited to 365 days.
    pub(crate) fn period_micros(self) -> u128 {
        self.period.as_micros().clamp(1, MAX_RATE_PERIOD_MICROS)
    }

    fn per(period: Duration, uses: u32) -> Self {
        Self { uses: at_least_one(uses), period, burst: at_least_one(uses) }
    }
}

fn at_least_one(uses: u32) -> NonZeroU32 {
    NonZeroU32::new(uses).unwrap_or(NonZeroU32::MIN)
}

/// A quota: a number of uses in total, per day or per month.
///
/// Unlike a [`Rate`], a quota is counted exactly, in the store and across all nodes. The count survives
/// rotations, restarts and changes of the key. In return, each verification of a key with a quota waits
/// for one write to the store, and fails as *unavailable* if the store is unavailable.
///
/// The count is never lower than the number of accepted uses. It can be higher: if the store's response
/// is lost, or the caller drops the future during the write, a use may be counted that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub(crate) uses: u64,
    pub(crate) period: Period,
}

named! {
/// The interval after which a quota resets. Days and months are in UTC.
///
/// Exhaustive on purpose: a store keeps a counter for each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Never resets.
    Ever = "ever",
    /// Resets at midnight.
    Day = "day",
    /// Resets on the first day of each month.
    Month = "month",
}
}

impl Quota {
    /// Returns a quota of `uses` in total.
    pub fn total(uses: u64) -> Self {
        Self::per(Period::Ever, uses)
    }

    /// Returns a quota of `uses` per day.
    pub fn per_day(uses: u64) -> Self {
        Self::per(Period::Day, uses)
    }

    /// Returns a quota of `uses` per month.
    pub fn per_month(uses: u64) -> Self {
        Self::per(Period::Month, uses)
    }

    /// Returns a quota of `uses` per period, limited to 2⁵³ − 1.
    pub fn per(period: Period, uses: u64) -> Self {
        Self { uses: uses.min(MAX_QUOTA_USES), period }
    }

    /// Whether `other` allows at most as much: not more uses, and not a shorter period.
    pub(crate) fn covers(self, other: Self) -> bool {
        let rank = |period| match period {
            Period::Day => 1,
            Period::Month => 2,
            Period::Ever => 3,
        };
        other.uses <= self.uses && rank(other.period) >= rank(self.period)
    }

    /// Returns the number of uses per period.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Returns the interval after which the quota resets.
    pub fn period(&self) -> Period {
        self.period
    }
}

impl Period {
    /// Returns the start of the period that contains `now`.
    pub fn begins_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ever => Timestamp::MIN,
            Self::Day => now.rounded_down_to(DAY),
            Self::Month => {
                let day = (UtcDateTime::UNIX_EPOCH + now.since(Timestamp::MIN)).day();
                now.rounded_down_to(DAY).before(DAY * u32::from(day - 1))
            }
        }
    }

    /// Returns the start of the next period; `None` for [`Ever`](Period::Ever).
    pub fn ends_at(self, now: Timestamp) -> Option<Timestamp> {
        let begin = self.begins_at(now);
        match self {
            Self::Ever => None,
            Self::Day => Some(begin.after(DAY)),
            // The longest month has 31 days, so this instant is in the next month.
            Self::Month => match begin.after(31 * DAY) {
                Timestamp::MAX => Some(Timestamp::MAX),
                next => Some(self.begins_at(next)),
            },
        }
    }
}

/// 365 days.
pub(crate) const MAX_RATE_PERIOD_MICROS: u128 = 365 * 86_400 * 1_000_000;
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
