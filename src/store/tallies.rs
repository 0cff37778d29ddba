use crate::model::{KeyId, Timestamp};

/// How often a key was presented within an hour, and with what result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourlyUsage {
    /// The key.
    pub key_id: KeyId,
    /// The beginning of the hour.
    pub hour: Timestamp,
    /// How often it was accepted.
    pub accepted: u64,
    /// How often it was denied: the key did not work, or not for this.
    pub denied: u64,
    /// How often it came too often, or its quota was used up.
    pub limited: u64,
}

impl HourlyUsage {
    /// Of an hour in which it was not presented.
    pub fn none(key_id: KeyId, hour: Timestamp) -> Self {
        Self { key_id, hour, accepted: 0, denied: 0, limited: 0 }
    }
}
