use std::{
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    model::{HOUR, Timestamp},
    system::lock,
};

/// The uses of a cached key in the same second from the same address.
pub(crate) struct UseCounter {
    /// The tag in the high bits, the number of uses in the low bits; 0 if nothing is counted.
    packed: AtomicU64,
    /// The hour of the uses in `packed`. Locked when a second or an address begins, not for each use.
    hour: Mutex<u32>,
    pub(crate) used_before: AtomicBool,
    /// Whether the secret was not used when the key was read.
    pub(crate) was_unused: bool,
}

/// A hash of the second and the address of a use, in the high bits. The low bits are zero.
#[derive(Clone, Copy)]
pub(crate) struct UseTag(u64);

impl UseTag {
    #[inline]
    pub(crate) fn new(at: Timestamp, ip: Option<&IpAddr>) -> Self {
        let address = match ip {
            None => 1,
            Some(IpAddr::V4(v4)) => u64::from(v4.to_bits()).wrapping_mul(GOLDEN_RATIO),
            Some(IpAddr::V6(v6)) => {
                let bits = v6.to_bits();
                let high = ((bits >> 64) as u64).wrapping_mul(GOLDEN_RATIO);
                (bits as u64 ^ high).wrapping_mul(GOLDEN_RATIO)
            }
        };
        let second = at.as_unix_micros() as u64 / 1_000_000;
        // Never zero, which means that nothing is counted.
        Self((second.wrapping_mul(GOLDEN_RATIO) ^ (address >> 1)) & !MAX_COUNTED | LOWEST_TAG_BIT)
    }
}

impl UseCounter {
    pub(crate) fn new(used_before: bool) -> Self {
        let (packed, hour) = (AtomicU64::new(0), Mutex::new(0));
        Self { packed, hour, used_before: AtomicBool::new(used_before), was_unused: !used_before }
    }

    /// Returns a counter without uses for a key whose account was read again.
    pub(crate) fn continued(&self) -> Self {
        Self { was_unused: self.was_unused, ..Self::new(self.used_before()) }
    }

    /// Returns whether the first use of the secret was recorded.
    pub(crate) fn used_before(&self) -> bool {
        self.used_before.load(Ordering::Relaxed)
    }

    /// Counts a use if the last one had the same tag and there is room in the low bits.
    #[inline]
    pub(crate) fn count(&self, UseTag(tag): UseTag) -> bool {
        let mut seen = self.packed.load(Ordering::Relaxed);
        while seen ^ tag < MAX_COUNTED {
            let order = Ordering::Relaxed;
            match self.packed.compare_exchange_weak(seen, seen + 1, order, order) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        false
    }

    /// Starts to count uses with another tag, beginning with one use, or stops. Returns what was counted, and in
    /// which hour.
    pub(crate) fn restart(&self, next: Option<(UseTag, Timestamp)>) -> (Timestamp, u64) {
        let packed = next.map_or(0, |(UseTag(tag), _)| tag + 1);
        let mut hour = lock(&self.hour);
        let counted = self.packed.swap(packed, Ordering::Relaxed) & MAX_COUNTED;
        let counted_in = Timestamp::MIN.after(HOUR * *hour);
        if let Some((_, at)) = next {
            *hour = (at.since(Timestamp::MIN).as_secs() / HOUR.as_secs()) as u32;
        }
        (counted_in, counted)
    }
}

pub(crate) fn start_of_hour(at: Timestamp) -> Timestamp {
    at.rounded_down_to(HOUR)
}

/// The largest number that the low bits of a counter hold.
const MAX_COUNTED: u64 = LOWEST_TAG_BIT - 1;
const LOWEST_TAG_BIT: u64 = 1 << 12;
/// 2⁶⁴ divided by the golden ratio: spreads similar values over all bits.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn noon() -> Timestamp {
        Timestamp::MIN.after(HOUR * 12)
    }

    #[test]
    fn only_uses_in_the_same_second_from_the_same_address_share_a_counter() {
        let (ip, other) = (IpAddr::from([192, 0, 2, 7]), IpAddr::from([192, 0, 2, 8]));
        let counter = UseCounter::new(false);
        let tag = |micros, ip| UseTag::new(noon().after(Duration::from_micros(micros)), ip);
        assert!(!counter.count(tag(0, Some(&ip))));
        assert_eq!(counter.restart(Some((tag(0, Some(&ip)), noon()))).1, 0);
        assert!(counter.count(tag(999_999, Some(&ip))));
        assert!(!counter.count(tag(1_000_000, Some(&ip))));
        assert!(!counter.count(tag(0, Some(&other))));
        assert!(!counter.count(tag(0, None)));
        assert_eq!(counter.restart(None), (noon(), 2));
        assert!(!counter.count(tag(0, Some(&ip))));
    }

    #[test]
    fn a_full_counter_is_restarted() {
        let (counter, tag) = (UseCounter::new(false), UseTag::new(noon(), None));
        assert_eq!(counter.restart(Some((tag, noon()))).1, 0);
        let counted = (0..10_000).filter(|_| counter.count(tag)).count() as u64;
        assert_eq!((counted + 1, counter.restart(None).1), (MAX_COUNTED, MAX_COUNTED));
    }
}
