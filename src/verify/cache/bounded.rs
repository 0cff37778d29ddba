use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use papaya::{HashMap, HashMapRef, LocalGuard};

use crate::{secret::SecretDigest, system::lock};

/// A map from digests with a bound: when it is full, what was not hit lately makes room.
///
/// A hit takes no lock and writes nothing, but for one flag the first time. Insertions queue under
/// a lock, which is no matter: each of them has just waited for a store. The queue is walked as by
/// the hand of a clock: who was hit since the hand came by stays for another round.
///
/// The map is papaya's, which finds a key also while it is renewed. The index of scc, which holds its
/// values in place and is a fifth faster among a hundred thousand keys, does not: a key that works
/// would look unknown for a moment.
pub(crate) struct Bounded<V> {
    map: HashMap<SecretDigest, Held<V>, Keyed>,
    /// In the order of insertion or of the last round.
    queue: Mutex<VecDeque<SecretDigest>>,
    len: AtomicUsize,
    capacity: usize,
}

struct Held<V> {
    value: V,
    hit: AtomicBool,
}

/// The map as one thread looks at it: what is found stays as long as this does. Not to be kept, or
/// nothing that was removed meanwhile is freed.
pub(crate) struct Pinned<'a, V>(HashMapRef<'a, SecretDigest, Held<V>, Keyed, LocalGuard<'a>>);

impl<V> Bounded<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            map: HashMap::with_capacity_and_hasher(capacity.min(AT_ONCE), Keyed::default()),
            queue: Mutex::default(),
            len: AtomicUsize::new(0),
            capacity,
        }
    }

    #[inline]
    pub(crate) fn pin(&self) -> Pinned<'_, V> {
        Pinned(self.map.pin())
    }

    pub(crate) fn insert(&self, digest: SecretDigest, value: V) {
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

    /// Puts something else in place of what is there, if anything is.
    pub(crate) fn update(&self, digest: &SecretDigest, new: impl Fn(&V) -> V) {
        let new = |held: &Held<V>| Held { value: new(&held.value), hit: AtomicBool::new(true) };
        self.map.pin().update(*digest, new);
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

impl<V> Pinned<'_, V> {
    /// The map finds a value by `SecretDigest`'s equality, which takes constant time.
    #[inline]
    pub(crate) fn get(&self, digest: &SecretDigest) -> Option<&V> {
        let held = self.0.get(digest)?;
        if !held.hit.load(Ordering::Relaxed) {
            held.hit.store(true, Ordering::Relaxed);
        }
        Some(&held.value)
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
    use crate::secret::HasherTag;

    fn digest(n: u64) -> SecretDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        SecretDigest::from_parts(HasherTag::SHA256, bytes)
    }

    #[test]
    fn what_is_hit_stays_and_what_is_not_makes_room() {
        let map = Bounded::new(100);
        for n in 0..10_000 {
            map.insert(digest(n), n);
            for hot in 0..20.min(n) {
                assert_eq!(map.pin().get(&digest(hot)), Some(&hot), "after {n}");
            }
            assert!(map.len() <= 100);
        }
        assert_eq!(map.map.pin().len(), 100);
    }

    #[test]
    fn what_is_put_again_takes_the_place_of_what_was_there() {
        let map = Bounded::new(2);
        for n in 0..10_000 {
            map.insert(digest(n % 2), n);
            assert_eq!(map.pin().get(&digest(n % 2)), Some(&n));
        }
        assert_eq!((map.len(), map.map.pin().len()), (2, 2));
    }

    #[test]
    fn while_others_come_and_go_and_it_is_renewed_a_key_is_always_found() {
        let map = Bounded::new(1_000);
        let done = AtomicBool::new(false);
        map.insert(digest(0), 0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let found = *map.pin().get(&digest(0)).expect("it is hit all the time");
                    assert!(found >= last);
                    last = found;
                }
            });
            for n in 1..100_000 {
                map.insert(digest(n), n);
                if n % 10 == 0 {
                    map.insert(digest(0), n);
                }
                // The reader may be late when the hand comes by.
                map.pin().get(&digest(0));
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }

    #[test]
    fn when_everything_is_hit_the_new_one_still_finds_room() {
        let map = Bounded::new(3);
        for n in 0..3 {
            map.insert(digest(n), n);
            map.pin().get(&digest(n));
        }
        map.insert(digest(9), 9);
        assert_eq!(map.pin().get(&digest(9)), Some(&9));
        assert_eq!(map.len(), 3);
    }
}
