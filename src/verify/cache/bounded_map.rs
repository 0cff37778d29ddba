use std::{
    array,
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use crate::{secret::SecretDigest, system::lock};

/// A concurrent map with a bound, from digests to what is known of them. When it is full, an entry that was not hit
/// lately is evicted (CLOCK).
///
/// A hit takes no lock and reads one line of the map. At 100,000 keys, where each line that is read costs about as much
/// as the digest, this makes a cached verification a sixth to a quarter faster than a hash table with a node per entry
/// (papaya), which reads three. Insertions take a lock, which costs little beside the look-up in the store that each of
/// them follows.
///
/// An entry stands in one of two sets of five places. It is replaced where it stands, and stands in both while it is
/// moved, so that it is always found.
///
/// Sets are made in segments, when an entry is first inserted into one: a cache of few keys is small, and dropping one
/// is fast (dropping an `ArcSwapOption` waits for its readers, which takes a microsecond without optimizations).
pub(crate) struct BoundedMap<V> {
    segments: Box<[OnceLock<Box<Segment<V>>>]>,
    sets: usize,
    hash: KeyedHash,
    /// The places of all entries, in the order of insertion or of the last round of the clock.
    queue: Mutex<VecDeque<Place>>,
    len: AtomicUsize,
    capacity: usize,
}

/// As large as a line of the processor's cache.
#[repr(align(64))]
struct Set<V> {
    entries: [ArcSwapOption<V>; WAYS],
    /// A part of the hash of each entry; 0 where there is none.
    tags: [AtomicU32; WAYS],
    /// One bit per entry: whether it was hit since the clock came by.
    hits: AtomicU8,
}

type Segment<V> = [Set<V>; SEGMENT];

/// Where an entry can stand: the number of its set times [`WAYS`], plus the place in the set.
type Place = u32;

impl<V: AsRef<SecretDigest>> BoundedMap<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(MAX_CAPACITY);
        // Two thirds of the places are taken when the map is full.
        let sets = if capacity == 0 { 0 } else { capacity * 3 / 10 + MIN_SETS };
        Self {
            segments: (0..sets.div_ceil(SEGMENT)).map(|_| OnceLock::new()).collect(),
            sets,
            hash: KeyedHash::default(),
            queue: Mutex::default(),
            len: AtomicUsize::new(0),
            capacity,
        }
    }

    /// Returns the entry of a digest. Digests are compared in constant time.
    #[inline]
    pub(crate) fn get(&self, digest: &SecretDigest) -> Option<Arc<V>> {
        let (tag, sets) = self.tag_and_sets(digest);
        sets.into_iter().find_map(|set| self.set(set)?.get(tag, digest))
    }

    #[inline]
    fn set(&self, n: usize) -> Option<&Set<V>> {
        Some(&self.segments.get(n / SEGMENT)?.get()?[n % SEGMENT])
    }

    /// Inserts an entry, or replaces the one that has its digest.
    pub(crate) fn insert(&self, entry: Arc<V>) {
        if self.capacity == 0 {
            return;
        }
        let digest = (*entry).as_ref();
        let (tag, sets) = self.tag_and_sets(digest);
        let mut queue = lock(&self.queue);
        for (set, n) in places(sets).map(|place| self.at(place)) {
            if set.get_at(n, tag, digest).is_some() {
                return set.entries[n].store(Some(entry));
            }
        }
        let free = self.free_place(sets).inspect(|place| queue.push_back(*place));
        let place = free.unwrap_or_else(|| self.make_room(sets, &mut queue));
        let (set, n) = self.at(place);
        set.put(n, tag, Some(entry));
        while queue.len() > self.capacity {
            let Some(oldest) = queue.pop_front() else { break };
            let (set, n) = self.at(oldest);
            if oldest == place || set.take_hit(n) {
                queue.push_back(oldest);
            } else {
                set.put(n, 0, None);
            }
        }
        self.len.store(queue.len(), Ordering::Relaxed);
    }

    /// Returns a place in one of two full sets for another entry. The one that stands there moves to its other set, where
    /// there is room with near certainty, and is the youngest again.
    fn make_room(&self, sets: [usize; 2], queue: &mut VecDeque<Place>) -> Place {
        let movable = places(sets).find_map(|place| {
            let (set, n) = self.at(place);
            let entry = set.entries[n].load_full()?;
            let (tag, [first, second]) = self.tag_and_sets((*entry).as_ref());
            // Only forward in the order in which sets are searched, so that a search does not miss it.
            let is_in_first = place as usize / WAYS == first;
            let free = self.free_place([second]).filter(|_| is_in_first)?;
            Some((place, free, tag, entry))
        });
        let Some((place, free, tag, entry)) = movable else { return (sets[0] * WAYS) as Place };
        let (set, n) = self.at(free);
        set.put(n, tag, Some(entry));
        queue.push_back(free);
        place
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn free_place<const N: usize>(&self, sets: [usize; N]) -> Option<Place> {
        places(sets).find(|place| {
            let (set, n) = self.at(*place);
            set.tags[n].load(Ordering::Relaxed) == 0
        })
    }

    fn at(&self, place: Place) -> (&Set<V>, usize) {
        let (set, n) = (place as usize / WAYS, place as usize % WAYS);
        let segment =
            self.segments[set / SEGMENT].get_or_init(|| Box::new(array::from_fn(|_| Set::new())));
        (&segment[set % SEGMENT], n)
    }

    #[inline]
    fn tag_and_sets(&self, digest: &SecretDigest) -> (u32, [usize; 2]) {
        let hash = self.hash.hash_one(digest.first_lane());
        let set = |hash: u64| ((u128::from(hash) * self.sets as u128) >> 64) as usize;
        (hash as u32 | 1, [set(hash), set(hash.wrapping_mul(self.hash.factor))])
    }
}

fn places<const N: usize>(sets: [usize; N]) -> impl Iterator<Item = Place> {
    sets.into_iter().flat_map(|set| (0..WAYS).map(move |n| (set * WAYS + n) as Place))
}

impl<V: AsRef<SecretDigest>> Set<V> {
    fn new() -> Self {
        Self { entries: Default::default(), tags: Default::default(), hits: AtomicU8::new(0) }
    }

    #[inline]
    fn get(&self, tag: u32, digest: &SecretDigest) -> Option<Arc<V>> {
        (0..WAYS).find_map(|n| {
            let found = self.get_at(n, tag, digest)?;
            let hit = 1 << n;
            if self.hits.load(Ordering::Relaxed) & hit == 0 {
                self.hits.fetch_or(hit, Ordering::Relaxed);
            }
            Some(found)
        })
    }

    #[inline]
    fn get_at(&self, n: usize, tag: u32, digest: &SecretDigest) -> Option<Arc<V>> {
        if self.tags[n].load(Ordering::Relaxed) != tag {
            return None;
        }
        self.entries[n].load_full().filter(|entry| (**entry).as_ref() == digest)
    }

    fn put(&self, n: usize, tag: u32, entry: Option<Arc<V>>) {
        self.take_hit(n);
        self.tags[n].store(tag, Ordering::Relaxed);
        self.entries[n].store(entry);
    }

    /// Returns whether an entry was hit since it was last asked.
    fn take_hit(&self, n: usize) -> bool {
        self.hits.fetch_and(!(1 << n), Ordering::Relaxed) & 1 << n != 0
    }
}

const WAYS: usize = 5;
/// 1 KiB.
const SEGMENT: usize = 16;
/// So that a small map is never crowded.
const MIN_SETS: usize = 64;
/// With 20 bytes of places per entry, a third of a gigabyte.
const MAX_CAPACITY: usize = 1 << 24;

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

impl KeyedHash {
    #[inline]
    pub(crate) fn hash_one(&self, word: u64) -> u64 {
        let product = u128::from(self.start ^ word) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::secret::{Hasher, Sha256Hasher};

    struct Entry(SecretDigest, u64);

    impl AsRef<SecretDigest> for Entry {
        fn as_ref(&self) -> &SecretDigest {
            &self.0
        }
    }

    fn digest(n: u64) -> SecretDigest {
        Sha256Hasher.digest(&n.to_be_bytes())
    }

    #[test]
    fn a_key_that_is_replaced_while_others_are_evicted_is_always_found() {
        let map = BoundedMap::new(1_000);
        let insert = |n, version| map.insert(Arc::new(Entry(digest(n), version)));
        let done = AtomicBool::new(false);
        insert(0, 0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let found = map.get(&digest(0)).expect("it is hit all the time").1;
                    assert!(found >= last);
                    last = found;
                }
            });
            for n in 1..100_000 {
                insert(n, n);
                if n % 10 == 0 {
                    insert(0, n);
                }
                // The reader may not have hit it since the clock came by.
                map.get(&digest(0));
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
