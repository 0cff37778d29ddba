use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex},
};

#[cfg(feature = "redis")]
use super::{Charge, Charged, Levels};
use super::{
    Limits, Rate,
    meter::{Meter, SharedBucket},
};
#[cfg(feature = "redis")]
use crate::store::Payer;
use crate::{
    key::{Key, KeyId, Owner, Timestamp},
    lock::lock,
    prehashed::BuildPrehashed,
};

/// Counts uses in the memory of this node. Several nodes count for themselves: together they let
/// through up to as many times the rate as there are of them.
///
/// It is asked for the buckets of a key when the key is read; what is spent from them needs no
/// look-up and no lock. By identity, not by secret: a rotation starts no new count.
#[derive(Default)]
pub(crate) struct PerNode {
    keys: Buckets<KeyId, BuildPrehashed>,
    owners: Buckets<Owner, RandomState>,
}

impl PerNode {
    /// Where the uses of a key are counted.
    #[inline]
    pub(crate) fn meter(&self, key: &Key, plan: &Limits, now: Timestamp) -> Meter {
        Meter::new(
            key.limits.rate.map(|rate| self.keys.bucket(&key.id, rate, now)),
            plan.shared_rate().map(|rate| self.owners.bucket(&key.owner, rate, now)),
            key.limits.quota.is_some() || plan.shared_quota().is_some(),
        )
    }
}

impl PerNode {
    /// For a limiter that cannot count elsewhere.
    #[cfg(feature = "redis")]
    pub(super) fn charge(&self, charge: &Charge<'_>) -> Charged {
        let (now, mut key, mut owner) = (charge.at, None, None);
        for (payer, rate) in charge.rates {
            let bucket = Some(self.bucket(*payer, charge.owner, *rate, now));
            match payer {
                Payer::Key(_) => key = bucket,
                Payer::Owner(_) | Payer::Guest(_) | Payer::Job(_) => owner = bucket,
            }
        }
        let meter = Meter::new(key, owner, false);
        let granted = meter.spend(charge.uses, now).is_ok();
        let states = meter.states(now);
        let state = |(payer, _): &(Payer<'_>, Rate)| match payer {
            Payer::Key(_) => states.key,
            Payer::Owner(_) | Payer::Guest(_) | Payer::Job(_) => states.owner,
        };
        let resets = charge.rates.iter().map(|rate| state(rate).map(|state| state.reset));
        let full_at = resets.map(|reset| now.after(reset.unwrap_or_default())).collect();
        let levels = Levels { at: now, full_at };
        if granted { Charged::Granted(levels) } else { Charged::Refused(levels) }
    }

    /// Nothing came of what was granted here.
    #[cfg(feature = "redis")]
    pub(super) fn refund(&self, charge: &Charge<'_>, granted: &Levels) {
        for ((payer, rate), full_at) in charge.rates.iter().zip(&granted.full_at) {
            let bucket = self.bucket(*payer, charge.owner, *rate, charge.at);
            let ahead = full_at.as_unix_micros() - charge.at.as_unix_micros();
            bucket.give_back(charge.uses, ahead);
        }
    }

    #[cfg(feature = "redis")]
    fn bucket(
        &self,
        payer: Payer<'_>,
        owner: &Owner,
        rate: Rate,
        now: Timestamp,
    ) -> Arc<SharedBucket> {
        match payer {
            Payer::Key(id) => self.keys.bucket(&id, rate, now),
            Payer::Owner(_) | Payer::Guest(_) | Payer::Job(_) => {
                self.owners.bucket(owner, rate, now)
            }
        }
    }
}

struct Buckets<S, H> {
    shards: [Mutex<HashMap<S, Arc<SharedBucket>, H>>; SHARDS],
    hasher: H,
}

impl<S, H: Default> Default for Buckets<S, H> {
    fn default() -> Self {
        Self { shards: Default::default(), hasher: H::default() }
    }
}

impl<S: Clone + Eq + Hash, H: BuildHasher> Buckets<S, H> {
    fn bucket(&self, subject: &S, rate: Rate, now: Timestamp) -> Arc<SharedBucket> {
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
