use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use papaya::HashMap;

use crate::{hash::Digest, lock::lock};

/// A map from digests with a bound: when it is full, what was not hit lately makes room.
///
/// A hit takes no lock and writes nothing, but for one flag the first time. Insertions queue under
/// a lock, which is no matter: each of them has just waited for a store. The queue is walked as by
/// the hand of a clock: who was hit since the hand came by stays for another round.
pub(crate) struct Bounded<V> {
    map: HashMap<Digest, Held<V>, Keyed>,
    /// In the order of insertion or of the last round.
    queue: Mutex<VecDeque<Digest>>,
    len: AtomicUsize,
    capacity: usize,
}

struct Held<V> {
    value: V,
    hit: AtomicBool,
}

impl<V> Bounded<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            map: HashMap::with_capacity_and_hasher(capacity.min(AT_ONCE), Keyed::default()),
            queue: Mutex::default(),
            len: AtomicUsize::new(0),
            capacity,
        }
    }

    /// Looks at a value. The map finds it by `Digest`'s equality, which takes constant time.
    #[inline]
    pub(crate) fn get<T>(&self, digest: &Digest, look: impl FnOnce(&V) -> T) -> Option<T> {
        let map = self.map.pin();
        let held = map.get(digest)?;
        if !held.hit.load(Ordering::Relaxed) {
            held.hit.store(true, Ordering::Relaxed);
        }
        Some(look(&held.value))
    }

    pub(crate) fn insert(&self, digest: Digest, value: V) {
        if self.capacity == 0 {
            return;
        }
        let map = self.map.pin();
        let mut queue = lock(&self.queue);
        if map.insert(digest, Held { value, hit: AtomicBool::new(false) }).is_some() {
            return;
        }
        queue.push_back(digest);
        while queue.len() > self.capacity {
            let Some(oldest) = queue.pop_front() else { break };
            let hit = |held: &Held<V>| held.hit.swap(false, Ordering::Relaxed);
            let kept = oldest == digest || map.get(&oldest).is_some_and(hit);
            if kept {
                queue.push_back(oldest);
            } else {
                map.remove(&oldest);
            }
        }
        self.len.store(queue.len(), Ordering::Relaxed);
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

/// For up to so many there is room from the start: in a map that is never crowded, nearly all stand
/// where they are looked for first, and no processor guesses wrong how far it has to go.
const AT_ONCE: usize = 1 << 20;

/// A digest is spread already, but whoever sends garbage can choose its digest: the secret factor
/// keeps him from choosing where it lands.
pub(crate) struct Keyed {
    start: u64,
    factor: u64,
}

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self { start: random.hash_one(1), factor: random.hash_one(2) | 1 }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    #[inline]
    fn build_hasher(&self) -> Folded {
        Folded { state: self.start, factor: self.factor }
    }
}

/// Multiplies to 128 bits and folds the halves together.
pub(crate) struct Folded {
    state: u64,
    factor: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Tag;

    fn digest(n: u64) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Digest::from_parts(Tag::SHA256, bytes)
    }

    #[test]
    fn what_is_hit_stays_and_what_is_not_makes_room() {
        let map = Bounded::new(100);
        for n in 0..10_000 {
            map.insert(digest(n), n);
            for hot in 0..20.min(n) {
                assert_eq!(map.get(&digest(hot), |v| *v), Some(hot), "after {n}");
            }
            assert!(map.len() <= 100);
        }
        assert_eq!(map.map.pin().len(), 100);
    }

    #[test]
    fn when_everything_is_hit_the_new_one_still_finds_room() {
        let map = Bounded::new(3);
        for n in 0..3 {
            map.insert(digest(n), n);
            map.get(&digest(n), |_| ());
        }
        map.insert(digest(9), 9);
        assert_eq!(map.get(&digest(9), |v| *v), Some(9));
        assert_eq!(map.len(), 3);
    }
}
