use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Mutex,
    time::Duration,
};

use super::{
    Rate, RateState,
    gcra::{Bucket, Gcra},
};
use crate::{
    key::{Key, KeyId, Owner, Timestamp},
    lock::lock,
};

/// Counts uses in the memory of this node. Several nodes count for themselves: together they let
/// through up to as many times the rate as there are of them.
#[derive(Default)]
pub(crate) struct PerNode {
    /// By owner, so that a key's rate and its owner's lie under one lock.
    shards: [Mutex<HashMap<Subject, Bucket>>; SHARDS],
    hasher: RandomState,
}

/// What a rate is counted for. By identity, not by secret: a rotation starts no new count.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    Key(KeyId),
    Owner(Owner),
}

/// A use that would exceed a rate. It was counted against none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: try again in {} s", .retry_after.as_millis().div_ceil(1_000))]
#[non_exhaustive]
pub struct Limited {
    /// After how long the next use will be let through.
    pub retry_after: Duration,
    /// What all of the rates say.
    pub rates: RateStates,
}

/// The rates that a use counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateStates {
    /// The key's own rate, if it has one.
    pub key: Option<RateState>,
    /// The rate that all of the owner's keys share, if the plan has one.
    pub owner: Option<RateState>,
}

impl PerNode {
    /// Counts one use against the key's own rate and against its owner's, or against neither.
    pub(crate) fn spend(
        &self,
        key: &Key,
        owners: Option<Rate>,
        now: Timestamp,
    ) -> Result<RateStates, Limited> {
        if key.limits.rate.is_none() && owners.is_none() {
            return Ok(RateStates::default());
        }
        let shard = self.hasher.hash_one(&key.owner) as usize % SHARDS;
        let mut buckets = lock(&self.shards[shard]);
        let read = |subject, rate: Option<Rate>| {
            let gcra = Gcra::new(rate?);
            let bucket = buckets.get(&subject).copied().unwrap_or_default();
            Some(Attempt { subject, gcra, bucket, next: gcra.spend(bucket, now) })
        };
        let own = read(Subject::Key(key.id), key.limits.rate);
        let shared = read(Subject::Owner(key.owner.clone()), owners);
        let attempts = || [&own, &shared].into_iter().flatten();
        let retry_after = attempts().filter_map(|attempt| attempt.next.err()).max();
        if retry_after.is_none() {
            if buckets.len() >= SWEEP_AT && buckets.len() == buckets.capacity() {
                // A bucket that is full again is as good as none.
                buckets.retain(|_, bucket| !bucket.is_full(now));
            }
            for attempt in attempts() {
                if let Ok(next) = attempt.next {
                    buckets.insert(attempt.subject.clone(), next);
                }
            }
        }
        drop(buckets);
        let state = |attempt: &Option<Attempt>| {
            let Attempt { gcra, bucket, next, .. } = attempt.as_ref()?;
            let spent = next.as_ref().ok().filter(|_| retry_after.is_none());
            Some(gcra.state(*spent.unwrap_or(bucket), now))
        };
        let rates = RateStates { key: state(&own), owner: state(&shared) };
        retry_after.map_or(Ok(rates), |retry_after| Err(Limited { retry_after, rates }))
    }
}

/// One rate, as it is and as it would be after one more use.
struct Attempt {
    subject: Subject,
    gcra: Gcra,
    bucket: Bucket,
    next: Result<Bucket, Duration>,
}

const SHARDS: usize = 32;
/// Below that it is not worth it.
const SWEEP_AT: usize = 1_024;
