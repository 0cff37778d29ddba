use std::time::Duration;

use time::{Month, UtcDateTime};

use crate::model::timestamp::Timestamp;

/// How many uses there are: in all, or anew each day or month.
///
/// Unlike a [`Rate`](crate::model::limits::Rate), it is counted in the store, exactly and for all nodes together,
/// and a use that was counted stays counted: over a rotation, a restart, a change of the key. The
/// price is that each verification of a key with a quota waits for one write of the store, and is
/// *unavailable* when the store is.
///
/// What is spent is never less than what was let through. It may be more: if the answer of the store
/// is lost, or the caller goes away while it is under way, a use stays spent that nobody had.
///
/// # Examples
/// ```
/// use keyward::model::{KeyLimits, Limits, Quota};
///
/// let trial = KeyLimits { quota: Some(Quota::total(100)), ..KeyLimits::default() };
/// let plan = Limits::default().quota(Quota::per_month(50_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub(crate) uses: u64,
    pub(crate) period: Period,
}

/// After what time a quota begins anew. Days and months are those of UTC.
///
/// Exhaustive on purpose: a store keeps a count for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Never: what is spent is spent.
    Ever,
    /// At midnight.
    Day,
    /// At the beginning of the month.
    Month,
}

impl Quota {
    /// So many uses, and then no more.
    pub fn total(uses: u64) -> Self {
        Self::per(Period::Ever, uses)
    }

    /// So many uses each day.
    pub fn per_day(uses: u64) -> Self {
        Self::per(Period::Day, uses)
    }

    /// So many uses each month.
    pub fn per_month(uses: u64) -> Self {
        Self::per(Period::Month, uses)
    }

    /// So many uses in each period; more than 2⁵³ − 1, which no store could count, become that.
    pub fn per(period: Period, uses: u64) -> Self {
        Self { uses: uses.min(MOST), period }
    }

    /// A period that lasts longer, with no more uses in it, allows no more.
    pub(crate) fn covers(self, other: Self) -> bool {
        let lasts = |period| match period {
            Period::Day => 1,
            Period::Month => 2,
            Period::Ever => 3,
        };
        other.uses <= self.uses && lasts(other.period) >= lasts(self.period)
    }

    /// How many uses there are in a period.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// After what time it begins anew.
    pub fn period(&self) -> Period {
        self.period
    }
}

impl Period {
    /// Every period there is.
    pub const ALL: [Self; 3] = [Self::Ever, Self::Day, Self::Month];

    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ever => "ever",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The beginning of the period in which an instant lies.
    pub fn begins_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ever => Timestamp::MIN,
            Self::Day => now.rounded_down_to(DAY),
            Self::Month => {
                let (year, month) = year_and_month(now);
                first_of(year, month)
            }
        }
    }

    /// The beginning of the next period; never, if there is none.
    pub fn ends_at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Ever => None,
            Self::Day => Some(self.begins_at(now).after(DAY)),
            Self::Month => {
                let (year, month) = year_and_month(now);
                Some(match month {
                    Month::December => first_of(year + 1, Month::January),
                    month => first_of(year, month.next()),
                })
            }
        }
    }
}

fn year_and_month(at: Timestamp) -> (i32, Month) {
    let seconds = at.as_unix_micros() / 1_000_000;
    let time = UtcDateTime::from_unix_timestamp(seconds).unwrap_or(UtcDateTime::UNIX_EPOCH);
    (time.year(), time.month())
}

/// The end of time, where it would lie behind that.
fn first_of(year: i32, month: Month) -> Timestamp {
    let Ok(date) = time::Date::from_calendar_date(year, month, 1) else { return Timestamp::MAX };
    let seconds = date.midnight().as_utc().unix_timestamp();
    Timestamp::from_unix_micros(seconds * 1_000_000)
}

/// The largest number that every store counts exactly: Redis' scripts count in `f64`.
const MOST: u64 = (1 << 53) - 1;
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_and_months_are_those_of_utc() {
        let leap = at("2028-02-29T23:59:59.999Z");
        assert_eq!(Period::Day.begins_at(leap), at("2028-02-29T00:00:00Z"));
        assert_eq!(Period::Day.ends_at(leap), Some(at("2028-03-01T00:00:00Z")));
        assert_eq!(Period::Month.begins_at(leap), at("2028-02-01T00:00:00Z"));
        assert_eq!(Period::Month.ends_at(leap), Some(at("2028-03-01T00:00:00Z")));
        let eve = at("2026-12-31T12:00:00Z");
        assert_eq!(Period::Month.ends_at(eve), Some(at("2027-01-01T00:00:00Z")));
        assert_eq!(Period::Ever.begins_at(eve), Timestamp::MIN);
        assert_eq!(Period::Ever.ends_at(eve), None);
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_its_period_and_the_end_begins_the_next(
            micros in 0..=Timestamp::MAX.as_unix_micros(), month: bool,
        ) {
            let period = if month { Period::Month } else { Period::Day };
            let now = Timestamp::from_unix_micros(micros);
            let (begin, end) = (period.begins_at(now), period.ends_at(now).unwrap());
            prop_assert!(begin <= now && (now < end || end == Timestamp::MAX));
            prop_assert_eq!(period.begins_at(begin), begin);
            if end < Timestamp::MAX {
                prop_assert_eq!(period.begins_at(end), end);
                let last = Timestamp::from_unix_micros(end.as_unix_micros() - 1);
                prop_assert_eq!(period.begins_at(last), begin);
            }
        }
    }
}
