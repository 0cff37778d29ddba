use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex},
};

use crate::{
    model::{Key, KeyId, Owner, Timestamp},
    system::{BuildPrehashed, lock},
};
use crate::{
    model::{Limits, Rate},
    verify::limits::meter::{Meter, SharedBucket},
};

/// Counts uses in the memory of this node. Several nodes count for themselves: together they let
/// through up to as many times the rate as there are of them.
///
/// It is asked for the buckets of a key when the key is read; what is spent from them needs no
/// look-up and no lock. By identity, not by secret: a rotation starts no new count.
#[derive(Default)]
pub(crate) struct PerNode {
    pub(crate) keys: Buckets<KeyId, BuildPrehashed>,
    pub(crate) owners: Buckets<Owner, RandomState>,
}

impl PerNode {
    /// Where the uses of a key are counted.
    #[inline]
    pub(crate) fn meter(&self, key: &Key, plan: &Limits, now: Timestamp) -> Meter {
        Meter::new(
            plan.rate_of(&key.limits).map(|rate| self.keys.bucket(&key.id, rate, now)),
            plan.shared_rate().map(|rate| self.owners.bucket(&key.owner, rate, now)),
            key.limits.quota.is_some() || plan.shared_quota().is_some(),
        )
    }
}

pub(crate) struct Buckets<S, H> {
    shards: [Mutex<HashMap<S, Arc<SharedBucket>, H>>; SHARDS],
    hasher: H,
}

impl<S, H: Default> Default for Buckets<S, H> {
    fn default() -> Self {
        Self { shards: Default::default(), hasher: H::default() }
    }
}

impl<S: Clone + Eq + Hash, H: BuildHasher> Buckets<S, H> {
    pub(crate) fn bucket(&self, subject: &S, rate: Rate, now: Timestamp) -> Arc<SharedBucket> {
        // By other bits than those by which the map of a shard picks.
        let shard = (self.hasher.hash_one(subject) >> 48) as usize % SHARDS;
        let mut buckets = lock(&self.shards[shard]);
        if let Some(bucket) = buckets.get_mut(subject) {
            if !bucket.has_rate(rate) {
                *bucket = Arc::new(SharedBucket::replacing(bucket, rate, now));
            }
            return bucket.clone();
        }
        if buckets.len() >= SWEEP_AT && buckets.len() == buckets.capacity() {
            // A bucket that is full again, and that nobody holds, is as good as none.
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        }
        let bucket = Arc::new(SharedBucket::new(rate));
        buckets.insert(subject.clone(), bucket.clone());
        bucket
    }
}

const SHARDS: usize = 32;
/// Below that it is not worth it.
const SWEEP_AT: usize = 1_024;
