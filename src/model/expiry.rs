use std::time::Duration;

use crate::model::timestamp::Timestamp;

/// When a key stops by itself. It is invalid from that very instant on.
///
/// Exhaustive on purpose: there is no fourth answer.
///
/// # Examples
/// ```
/// use keyward::Expiry;
///
/// let choices = [Expiry::WEEK, Expiry::DAYS_30, Expiry::DAYS_90, Expiry::YEAR, Expiry::Never];
/// assert_eq!(choices[1], Expiry::days(30));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Not by itself.
    #[default]
    Never,
    /// At an instant, which must lie in the future when the key is issued.
    At(Timestamp),
    /// So long after it is issued.
    After(Duration),
}

impl Expiry {
    /// 7 days after it is issued.
    pub const WEEK: Self = Self::days(7);
    /// 30 days after it is issued.
    pub const DAYS_30: Self = Self::days(30);
    /// 90 days after it is issued.
    pub const DAYS_90: Self = Self::days(90);
    /// 365 days after it is issued.
    pub const YEAR: Self = Self::days(365);

    /// So many days after it is issued.
    pub const fn days(days: u32) -> Self {
        Self::After(Duration::from_secs(days as u64 * 86_400))
    }

    /// The instant itself, for a key that is issued now.
    pub fn resolve(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(instant) => Some(instant),
            Self::After(duration) => Some(now.after(duration)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_as_long_as_they_say() {
        let noon = Timestamp::from_unix_micros(1_000_000_000);
        for (preset, days) in
            [(Expiry::WEEK, 7), (Expiry::DAYS_30, 30), (Expiry::DAYS_90, 90), (Expiry::YEAR, 365)]
        {
            assert_eq!(preset.resolve(noon), Some(noon.after(Duration::from_secs(days * 86_400))));
        }
    }
}
