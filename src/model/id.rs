use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use uuid::Uuid;

use crate::model::{text::Invalid, timestamp::Timestamp};
use crate::secret::EntropyError;

/// The stable identity of a key: a UUIDv7. It survives rotation and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(Uuid);

/// The identity of an audit event: a UUIDv7, so that events sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

macro_rules! identifier {
    ($name:ident, $what:literal) => {
        impl $name {
            /// From its sixteen bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Its sixteen bytes, which sort as the identifiers do.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                text.parse().map(Self).map_err(|_| Invalid::new($what, "it is not a UUID"))
            }
        }
    };
}

identifier!(KeyId, "key id");
identifier!(EventId, "event id");

impl KeyId {
    /// The half of a UUIDv7 that is as random as a hash.
    #[inline]
    pub(crate) fn random(self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl std::hash::Hash for KeyId {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.random());
    }
}

impl EventId {
    /// One that sorts as of an instant, and whose rest is taken from a hash of what it stands for.
    pub(crate) fn at(instant: Timestamp, hash: &[u8; 32]) -> Self {
        let millis = instant.as_unix_micros().unsigned_abs() / 1_000;
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&hash[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// The `n`th of a group of events that one change writes.
    pub(crate) fn nth(self, n: u32) -> Self {
        let all = self.0.as_u128();
        let low = (all as u32).wrapping_add(n);
        Self(Uuid::from_u128(all & !u128::from(u32::MAX) | u128::from(low)))
    }
}

/// Makes identifiers that never go back, also when the clock does or stands still.
#[derive(Debug, Default)]
pub(crate) struct IdGenerator {
    /// Milliseconds and twelve bits of fraction or count: the sortable half of the last identifier.
    last: AtomicU64,
}

impl IdGenerator {
    pub(crate) fn key_id(&self, now: Timestamp) -> Result<KeyId, EntropyError> {
        self.uuid(now).map(KeyId)
    }

    pub(crate) fn event_id(&self, now: Timestamp) -> Result<EventId, EntropyError> {
        self.uuid(now).map(EventId)
    }

    fn uuid(&self, now: Timestamp) -> Result<Uuid, EntropyError> {
        let micros = now.as_unix_micros().unsigned_abs();
        let tick = (micros / 1_000) << 12 | (micros % 1_000) << 2;
        let next = |last: u64| Some(tick.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let tick = tick.max(last.unwrap_or(0) + 1);
        let mut bytes = [0; 10];
        getrandom::fill(&mut bytes).map_err(EntropyError::new)?;
        bytes[..2].copy_from_slice(&(tick as u16 & 0x0fff).to_be_bytes());
        Ok(uuid::Builder::from_unix_timestamp_millis(tick >> 12, &bytes).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_forward_while_the_clock_stands_or_goes_back() {
        let ids = IdGenerator::default();
        let noon = Timestamp::from_unix_micros(1_770_638_400_000_000);
        let mut last = ids.key_id(noon).unwrap();
        for i in 0..20_000u32 {
            let back = noon.before(std::time::Duration::from_micros(u64::from(i % 3)));
            let next = ids.key_id(back).unwrap();
            assert!(next > last);
            assert_eq!(next.0.get_version_num(), 7);
            last = next;
        }
    }

    #[test]
    fn events_of_a_group_are_distinct() {
        let first = IdGenerator::default().event_id(Timestamp::MIN).unwrap();
        let group: std::collections::BTreeSet<_> = (0..1_000).map(|n| first.nth(n)).collect();
        assert_eq!(group.len(), 1_000);
        assert_eq!(first.nth(0), first);
    }
}
