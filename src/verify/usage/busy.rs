use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::model::{KeyId, Timestamp};

/// Counts the uses of a key that is busy without the lock of those that are not: all that come in
/// the second and from the address of the last one that was noted say nothing new, and are just one
/// more.
pub(crate) struct Busy(AtomicU64);

/// Whose use it is, from where, in which second: but for the low bits, which count.
#[derive(Clone, Copy)]
pub(crate) struct Mark(u64);

impl Mark {
    /// Of the only key there is, where a place has one of its own.
    #[inline]
    pub(crate) fn new(at: Timestamp, ip: Option<&IpAddr>) -> Self {
        let address = match ip {
            None => 1,
            Some(IpAddr::V4(v4)) => u64::from(v4.to_bits()).wrapping_mul(SPREAD),
            Some(IpAddr::V6(v6)) => {
                let bits = v6.to_bits();
                let high = ((bits >> 64) as u64).wrapping_mul(SPREAD);
                (bits as u64 ^ high).wrapping_mul(SPREAD)
            }
        };
        let instant = at.as_unix_micros() as u64 / SECOND;
        // Never zero, which is what a place has where nothing was noted.
        Self((instant.wrapping_mul(SPREAD) ^ (address >> 1)) & !MOST | FIRST)
    }

    /// Of one key among others.
    #[inline]
    pub(crate) fn of(self, id: KeyId) -> Self {
        Self((self.0 ^ id.random().wrapping_mul(SPREAD)) & !MOST | FIRST)
    }
}

impl Busy {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more of what was noted last. If that was something else, nothing happens. Who `met` another
    /// thread that counted or noted something at the same time is told.
    #[inline]
    pub(crate) fn count(&self, mark: Mark, met: impl Fn()) -> bool {
        self.count_after(self.0.load(Ordering::Relaxed), mark, met)
    }

    #[inline]
    fn count_after(&self, mut seen: u64, Mark(mark): Mark, met: impl Fn()) -> bool {
        while seen ^ mark < MOST {
            let order = Ordering::Relaxed;
            match self.0.compare_exchange(seen, seen + 1, order, order) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
            met();
        }
        false
    }

    /// From now on another one is counted, or none; how many there were of the one before, the
    /// first not included, which was noted.
    pub(crate) fn replace(&self, mark: Option<Mark>) -> u64 {
        self.0.swap(mark.map_or(0, |Mark(mark)| mark), Ordering::Relaxed) & MOST
    }
}

/// In microseconds: so exactly the last use is known.
const SECOND: u64 = 1_000_000;
const FIRST: u64 = 1 << 12;
/// That many count without a note.
const MOST: u64 = FIRST - 1;
/// The golden ratio in 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn only_a_use_that_says_the_same_of_the_same_key_is_just_one_more() {
        let noon = 1_000_000_000;
        let mark =
            |random, micros, ip| Mark::new(Timestamp::from_unix_micros(micros), ip).of(id(random));
        let (ip, busy) = (IpAddr::from([192, 0, 2, 7]), Busy::new());
        let ip = Some(&ip);
        assert!(!busy.count(mark(1, noon, ip), || {}));
        assert_eq!(busy.replace(Some(mark(1, noon, ip))), 0);
        assert!(busy.count(mark(1, noon + 999_999, ip), || {}));
        assert!(!busy.count(mark(1, noon + 1_000_000, ip), || {}));
        assert!(!busy.count(mark(1, noon, None), || {}));
        assert!(!busy.count(mark(2, noon, ip), || {}));
        assert_eq!(busy.replace(Some(mark(2, noon, ip))), 1);
        assert!(!busy.count(mark(1, noon, ip), || {}));
        assert_eq!(busy.replace(None), 0);
        assert!(!busy.count(mark(2, noon, ip), || {}));
    }

    #[test]
    fn who_meets_another_thread_is_counted_and_told() {
        let (one, other) = (Mark::new(Timestamp::MIN, None), Mark::new(Timestamp::MAX, None));
        let (busy, met) = (Busy::new(), Cell::new(0));
        let meet = || met.set(met.get() + 1);
        busy.replace(Some(one));
        let seen = busy.0.load(Ordering::Relaxed);
        assert!(busy.count(one, meet));
        assert_eq!(met.get(), 0);
        assert!(busy.count_after(seen, one, meet));
        assert_eq!((met.get(), busy.replace(Some(other))), (1, 2));
        assert!(!busy.count_after(seen, one, meet));
        assert_eq!((met.get(), busy.replace(None)), (2, 0));
    }

    #[test]
    fn what_cannot_be_counted_any_more_is_noted_anew() {
        let (busy, mark) = (Busy::new(), Mark::new(Timestamp::MIN, None));
        assert_eq!(busy.replace(Some(mark)), 0);
        let counted = (0..10_000).filter(|_| busy.count(mark, || {})).count() as u64;
        assert_eq!((counted, busy.replace(None)), (MOST, MOST));
    }

    fn id(random: u64) -> KeyId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&random.to_be_bytes());
        KeyId::from_bytes(bytes)
    }
}
