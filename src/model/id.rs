use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::model::{text::Invalid, timestamp::Timestamp};

/// The stable identifier of a key: a UUIDv7. It does not change on rotation and is not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(Uuid);

/// The identifier of an audit event: a UUIDv7, so that events sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

macro_rules! identifier {
    ($name:ident, $what:literal) => {
        impl $name {
            /// Returns the identifier with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Returns the 16 bytes. They sort in the same order as the identifiers.
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
    /// The random half of the UUIDv7, usable as a hash.
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
    /// An identifier that sorts by `instant`. The remaining bits are taken from `hash`.
    pub(crate) fn at(instant: Timestamp, hash: &[u8; 32]) -> Self {
        let millis = instant.as_unix_micros().unsigned_abs() / 1_000;
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&hash[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// The identifier of the `n`th event that one change writes.
    pub(crate) fn nth(self, n: u32) -> Self {
        let all = self.0.as_u128();
        let low = (all as u32).wrapping_add(n);
        Self(Uuid::from_u128(all & !u128::from(u32::MAX) | u128::from(low)))
    }
}
