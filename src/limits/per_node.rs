use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex},
};

use super::{
    Rate,
    meter::{Meter, SharedBucket},
};
use crate::{
    key::{Key, KeyId, Owner, Timestamp},
    lock::lock,
};

/// Counts uses in the memory of this node. Several nodes count for themselves: together they let
/// through up to as many times the rate as there are of them.
///
/// It is asked for the buckets of a key when the key is read; what is spent from them needs no
/// look-up and no lock. By identity, not by secret: a rotation starts no new count.
#[derive(Default)]
pub(crate) struct PerNode {
    keys: Buckets<KeyId>,
    owners: Buckets<Owner>,
}

impl PerNode {
    /// Where the uses of a key are counted.
    pub(crate) fn meter(&self, key: &Key, owners: Option<Rate>, now: Timestamp) -> Meter {
        Meter {
            key: key.limits.rate.map(|rate| self.keys.bucket(&key.id, rate, now)),
            owner: owners.map(|rate| self.owners.bucket(&key.owner, rate, now)),
        }
    }
}

struct Buckets<S> {
    shards: [Mutex<HashMap<S, Arc<SharedBucket>>>; SHARDS],
    hasher: RandomState,
}

impl<S> Default for Buckets<S> {
    fn default() -> Self {
        Self { shards: Default::default(), hasher: RandomState::new() }
    }
}

impl<S: Clone + Eq + Hash> Buckets<S> {
    fn bucket(&self, subject: &S, rate: Rate, now: Timestamp) -> Arc<SharedBucket> {
        let shard = self.hasher.hash_one(subject) as usize % SHARDS;
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
