//! Serialization of plain values, as the texts that `Display` writes and `FromStr` reads.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{EventId, KeyId, Status, Timestamp};

/// Serializes a type as its text.
macro_rules! serde_as_text {
    ($($type:ty),*) => { $(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::model::serde_from_text(deserializer)
            }
        }
    )* };
}
pub(crate) use serde_as_text;

serde_as_text!(EventId, KeyId, Status);

/// As RFC 3339 in UTC, with milliseconds, or with microseconds if the instant has some: nothing is lost.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = self.to_string();
        let micros = self.as_unix_micros() % 1_000;
        if micros != 0 {
            text.truncate(text.len() - 1);
            text += &format!("{micros:03}Z");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

pub(crate) fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
