use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::key::{KeyId, Timestamp};

/// What was marked in this millisecond, as far as the places last: a use that says the same has
/// nothing to add, and need not wait for the lock of its shard to say it. A key that is busy takes
/// the lock once in a millisecond.
pub(super) struct Recent([AtomicU64; PLACES]);

impl Default for Recent {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }
}

impl Recent {
    /// Whether it was marked just now; from now on it was.
    #[inline]
    pub(super) fn has(&self, id: KeyId, at: Timestamp, ip: Option<IpAddr>) -> bool {
        let random = id.random();
        let mark = fingerprint(at, ip) ^ random;
        let place = &self.0[random as usize % PLACES];
        let known = place.load(Ordering::Relaxed) == mark;
        if !known {
            place.store(mark, Ordering::Relaxed);
        }
        known
    }
}

/// Millisecond and address of a use. Never zero, which is what a new place has.
#[inline]
pub(super) fn fingerprint(at: Timestamp, ip: Option<IpAddr>) -> u64 {
    let address = match ip {
        None => 1,
        Some(IpAddr::V4(v4)) => u64::from(v4.to_bits()).wrapping_mul(SPREAD),
        Some(IpAddr::V6(v6)) => {
            let bits = v6.to_bits();
            (bits as u64 ^ (bits >> 64) as u64).wrapping_mul(SPREAD)
        }
    };
    let millis = at.as_unix_micros() as u64 / 1_000;
    millis.wrapping_mul(SPREAD) ^ (address >> 1) | 1
}

/// The golden ratio in 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const PLACES: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_use_that_says_the_same_of_the_same_key_adds_nothing() {
        let (recent, noon) = (Recent::default(), Timestamp::from_unix_micros(1_000_000_000));
        let (key, ip) = (id(1), "192.0.2.7".parse().ok());
        // Of the same place.
        let other = id(1 + PLACES as u64);
        assert!(!recent.has(key, noon, ip));
        assert!(recent.has(key, noon, ip));
        assert!(recent.has(key, Timestamp::from_unix_micros(1_000_000_999), ip));
        assert!(!recent.has(key, Timestamp::from_unix_micros(1_000_001_000), ip));
        assert!(!recent.has(key, noon, None));
        assert!(!recent.has(other, noon, None));
        assert!(!recent.has(key, noon, None), "the other one took its place");
    }

    fn id(random: u64) -> KeyId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&random.to_be_bytes());
        KeyId::from_bytes(bytes)
    }
}
