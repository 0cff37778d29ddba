use std::{fmt, str::FromStr, time::Duration};

use time::{OffsetDateTime, UtcDateTime, format_description::well_known::Rfc3339};

use crate::model::text::Invalid;

/// An instant in UTC with microsecond precision, which every store can represent.
///
/// The range is the years 1970 to 9999. Arithmetic saturates at both ends.
///
/// # Examples
/// ```
/// use keyward::Timestamp;
///
/// let noon: Timestamp = "2026-02-09T12:00:00Z".parse()?;
/// assert_eq!(noon.to_string(), "2026-02-09T12:00:00.000Z");
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant: 1970-01-01T00:00:00Z.
    pub const MIN: Self = Self(0);
    /// The latest instant: the last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Returns the instant this many microseconds after 1970, clamped to the range.
    pub const fn from_unix_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Returns the microseconds since 1970.
    pub const fn as_unix_micros(self) -> i64 {
        self.0
    }

    /// Returns the instant `duration` later, at most [`MAX`](Timestamp::MAX).
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self::from_unix_micros(self.0.saturating_add(as_micros(duration)))
    }

    /// Returns the instant `duration` earlier, at least [`MIN`](Timestamp::MIN).
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self::from_unix_micros(self.0.saturating_sub(as_micros(duration)))
    }

    /// The latest instant up to this one that is a multiple of `length` after 1970.
    pub(crate) fn rounded_down_to(self, length: Duration) -> Self {
        Self(self.0 - self.0 % as_micros(length))
    }

    /// The time until the next instant that is a multiple of `length` after 1970.
    pub(crate) fn until_next(self, length: Duration) -> Duration {
        self.rounded_down_to(length).after(length).since(self)
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        Self::MIN.after(time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
    }
}

impl From<Timestamp> for std::time::SystemTime {
    fn from(time: Timestamp) -> Self {
        Self::UNIX_EPOCH + time.since(Timestamp::MIN)
    }
}

/// Converts an instant of the crate `time`, clamped to the range.
impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        // The range of `time` is within that of an `i64`.
        Self::from_unix_micros(micros as i64)
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(time: Timestamp) -> Self {
        Self::UNIX_EPOCH + time.since(Timestamp::MIN)
    }
}

/// RFC 3339 in UTC with milliseconds, the format of JavaScript.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UtcDateTime::UNIX_EPOCH + self.since(Self::MIN);
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second, milli) = time.as_hms_milli();
        write!(f, "{year:04}-{:02}-{day:02}T", u8::from(month))?;
        write!(f, "{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn as_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let why = "it is not an RFC 3339 date and time of the years 1970 to 9999";
        let time = OffsetDateTime::parse(text, &Rfc3339).ok();
        let micros = time.map(|time| (time.unix_timestamp_nanos() / 1_000) as i64);
        let in_range = micros.filter(|micros| (Self::MIN.0..=Self::MAX.0).contains(micros));
        in_range.map(Self).ok_or_else(|| Invalid::new("timestamp", why))
    }
}
