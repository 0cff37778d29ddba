use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use papaya::HashMap;

use crate::system::lock;

/// A concurrent map with a bound. When it is full, an entry that was not hit lately is evicted (CLOCK).
///
/// A hit takes no lock and writes nothing, except one flag the first time. Insertions take a lock, which costs little
/// beside the look-up in the store that each of them follows.
///
/// Keys are the first 64 bits of a digest. The caller compares the whole digest: two that share these bits replace
/// each other.
///
/// papaya finds an entry also while it is replaced. `scc::HashIndex` stores its values in place and was a fifth
/// faster at 100,000 keys, but can miss an entry that is being replaced: a good key would be unknown for a moment.
pub(crate) struct BoundedMap<V> {
    map: HashMap<u64, Slot<V>, KeyedHash>,
    /// In the order of insertion, or of the last round of the clock.
    queue: Mutex<VecDeque<u64>>,
    len: AtomicUsize,
    capacity: usize,
}

struct Slot<V> {
    value: V,
    hit: AtomicBool,
}

impl<V> BoundedMap<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let reserved = capacity.min(MAX_RESERVED);
        Self {
            map: HashMap::with_capacity_and_hasher(reserved, KeyedHash::default()),
            queue: Mutex::default(),
            len: AtomicUsize::new(0),
            capacity,
        }
    }

    /// Calls `read` with the value, where it is.
    #[inline]
    pub(crate) fn get<T>(&self, key: u64, read: impl FnOnce(&V) -> T) -> Option<T> {
        let map = self.map.pin();
        let slot = map.get(&key)?;
        if !slot.hit.load(Ordering::Relaxed) {
            slot.hit.store(true, Ordering::Relaxed);
        }
        Some(read(&slot.value))
    }

    /// Inserts a value, or replaces the one that is there.
    pub(crate) fn insert(&self, key: u64, value: V) {
        if self.capacity == 0 {
            return;
        }
        let map = self.map.pin();
        let mut queue = lock(&self.queue);
        if map.insert(key, Slot { value, hit: AtomicBool::new(false) }).is_some() {
            return;
        }
        queue.push_back(key);
        while queue.len() > self.capacity {
            let Some(oldest) = queue.pop_front() else { break };
            let was_hit = |slot: &Slot<V>| slot.hit.swap(false, Ordering::Relaxed);
            if oldest == key || map.get(&oldest).is_some_and(was_hit) {
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

/// Space for this many entries is reserved when the map is created: in a table that is never crowded, nearly all
/// entries are in the first place that is tried.
const MAX_RESERVED: usize = 1 << 20;

/// Hashes by multiplication with a secret factor. Digests are random already, but an attacker who sends garbage can
/// choose its digests; the factor hides where they land.
pub(crate) struct KeyedHash {
    start: u64,
    factor: u64,
}

impl Default for KeyedHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self { start: random.hash_one(1), factor: random.hash_one(2) | 1 }
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.start, factor: self.factor }
    }
}

pub(crate) struct KeyedHasher {
    state: u64,
    factor: u64,
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
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

    #[test]
    fn a_key_that_is_replaced_while_others_are_evicted_is_always_found() {
        let map = BoundedMap::new(1_000);
        let done = AtomicBool::new(false);
        map.insert(0, 0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let found = map.get(0, |value| *value).expect("it is hit all the time");
                    assert!(found >= last);
                    last = found;
                }
            });
            for n in 1..100_000 {
                map.insert(n, n);
                if n % 10 == 0 {
                    map.insert(0, n);
                }
                // The reader may not have hit it since the clock came by.
                map.get(0, |_| ());
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
