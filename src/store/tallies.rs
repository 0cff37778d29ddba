use crate::key::{KeyId, Timestamp};

/// How often a key was presented within an hour, and with what result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The key.
    pub key_id: KeyId,
    /// The beginning of the hour.
    pub hour: Timestamp,
    /// How often it was accepted.
    pub accepted: u64,
    /// How often it was refused.
    pub refused: u64,
}
