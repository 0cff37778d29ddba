use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    gcra::Gcra,
    limited::{Limited, RateState, RateStates},
    rate_limiter::RateLimiter,
};
use crate::{
    model::{KeyId, Limits, Owner, Rate, Timestamp},
    system::lock,
    verify::facts::KeyFacts,
};

/// Where rates are counted.
#[derive(Default)]
pub(crate) struct Rates {
    /// Counts for all nodes together. Without it, this node counts for itself alone.
    pub(crate) limiter: Option<Arc<dyn RateLimiter>>,
    per_node: Box<PerNodeRates>,
}

impl Rates {
    pub(crate) fn by(limiter: impl RateLimiter) -> Self {
        Self { limiter: Some(Arc::new(limiter)), ..Self::default() }
    }

    /// Returns the rates of a key. It is called when a key is read; charging them then needs no look-up.
    pub(crate) fn of_key(&self, key: &KeyFacts, plan: &Limits, now: Timestamp) -> KeyRates {
        let limits = key.limits();
        let has_quota = limits.quota.is_some() || plan.shared_quota().is_some();
        let (of_key, of_owner) = (plan.rate_of(&limits), plan.shared_rate());
        if self.limiter.is_some() {
            let has_rate = of_key.is_some() || of_owner.is_some();
            return KeyRates::new(None, None, has_quota || has_rate);
        }
        let PerNodeRates { keys, owners } = &*self.per_node;
        KeyRates::new(
            of_key.map(|rate| keys.bucket(&key.id, rate, now)),
            of_owner.map(|rate| owners.bucket(&key.owner, rate, now)),
            has_quota,
        )
    }
}

/// The buckets that the uses of one key are charged to.
#[derive(Clone, Default)]
pub(crate) struct KeyRates {
    key: Option<Arc<RateBucket>>,
    owner: Option<Arc<RateBucket>>,
    /// Whether a rate is so fast that the lag of the coarse clock would be noticed.
    pub(crate) needs_precise_clock: bool,
    /// Whether a use is also charged to a quota or by a rate limiter, which has to be awaited.
    pub(crate) is_charged_remotely: bool,
}

/// How far ahead of now the buckets are after a charge, in microseconds. Small, because every [`Verified`] has it.
///
/// [`Verified`]: crate::Verified
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RatesCharged {
    key: i64,
    owner: i64,
}

impl KeyRates {
    pub(crate) fn new(
        key: Option<Arc<RateBucket>>,
        owner: Option<Arc<RateBucket>>,
        is_charged_remotely: bool,
    ) -> Self {
        let needs_precise_clock =
            [&key, &owner].into_iter().flatten().any(|bucket| bucket.gcra.needs_precise_clock());
        Self { key, owner, needs_precise_clock, is_charged_remotely }
    }

    /// Charges uses to the key's rate and to its owner's, or to neither.
    #[inline]
    pub(crate) fn charge(&self, uses: u32, now: Timestamp) -> Result<RatesCharged, Box<Limited>> {
        let charge = |bucket: &Option<Arc<RateBucket>>| {
            bucket.as_ref().map_or(Ok(0), |bucket| bucket.charge(uses, now))
        };
        let key = charge(&self.key).map_err(|wait| self.limited(wait, uses, now))?;
        let owner = charge(&self.owner).map_err(|wait| {
            // A request rejected by this provisional charge would also be rejected by the final one, so no refund is
            // needed for it.
            if let Some(bucket) = &self.key {
                bucket.refund(uses, key);
            }
            self.limited(wait, uses, now)
        })?;
        Ok(RatesCharged { key, owner })
    }

    /// Refunds uses that were charged `ago` but did not happen.
    pub(crate) fn refund(&self, charged: RatesCharged, uses: u32, ago: Duration) {
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        for (bucket, ahead) in [(&self.key, charged.key), (&self.owner, charged.owner)] {
            if let Some(bucket) = bucket {
                bucket.refund(uses, ahead.saturating_sub(ago));
            }
        }
    }

    pub(crate) fn states(&self, now: Timestamp) -> RateStates {
        let state = |bucket: &Option<Arc<RateBucket>>| Some(bucket.as_ref()?.state(now));
        RateStates { key: state(&self.key), owner: state(&self.owner) }
    }

    /// Returns the states as they were immediately after a charge.
    pub(crate) fn states_after(&self, charged: RatesCharged) -> RateStates {
        let state =
            |bucket: &Option<Arc<RateBucket>>, ahead| Some(bucket.as_ref()?.gcra.state_at(ahead));
        RateStates { key: state(&self.key, charged.key), owner: state(&self.owner, charged.owner) }
    }

    #[cold]
    fn limited(&self, wait: Duration, uses: u32, now: Timestamp) -> Box<Limited> {
        let both = [&self.key, &self.owner].into_iter().flatten();
        let wait = both.filter_map(|bucket| bucket.wait(uses, now)).fold(wait, Duration::max);
        Limited::by_rate(wait, self.states(now))
    }
}

/// A bucket of a rate, which threads charge without a lock.
pub(crate) struct RateBucket {
    full_at: AtomicI64,
    gcra: Gcra,
}

impl RateBucket {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { gcra: Gcra::new(rate), full_at: AtomicI64::new(0) }
    }

    /// Returns a bucket for another rate. Uses that were charged to the earlier bucket stay charged.
    fn replacing(earlier: &Self, rate: Rate, now: Timestamp) -> Self {
        let gcra = Gcra::new(rate);
        let ahead = gcra.ahead_of_earlier(&earlier.gcra, earlier.full_at(), now);
        let full_at = now.as_unix_micros() + ahead;
        Self { gcra, full_at: AtomicI64::new(full_at) }
    }

    /// Charges uses. Returns how far ahead of now the bucket then is in microseconds, or how long to wait.
    #[inline]
    pub(crate) fn charge(&self, uses: u32, now: Timestamp) -> Result<i64, Duration> {
        let mut seen = self.full_at.load(Ordering::Relaxed);
        loop {
            let full_at = Timestamp::from_unix_micros(seen);
            let next = self.gcra.charge(full_at, uses, now)?.as_unix_micros();
            let order = Ordering::Relaxed;
            match self.full_at.compare_exchange_weak(seen, next, order, order) {
                Ok(_) => return Ok(next - now.as_unix_micros()),
                Err(other) => seen = other,
            }
        }
    }

    /// Returns how long to wait for uses; `None` if they are left.
    pub(crate) fn wait(&self, uses: u32, now: Timestamp) -> Option<Duration> {
        self.gcra.charge(self.full_at(), uses, now).err()
    }

    /// Refunds uses that were charged but did not happen. `ahead` is how far ahead of now the bucket would be by them:
    /// what has been regained by time already is not refunded again.
    pub(super) fn refund(&self, uses: u32, ahead: i64) {
        let still = self.gcra.cost(uses).min(ahead).max(0);
        self.full_at.fetch_sub(still, Ordering::Relaxed);
    }

    /// Charges a use that happened, also if none is left: later ones wait longer.
    pub(crate) fn overdraw(&self, now: Timestamp) {
        let now = now.as_unix_micros();
        let next = |full_at: i64| Some(full_at.max(now).saturating_add(self.gcra.interval));
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Returns one use, up to the whole burst.
    pub(crate) fn restore_one(&self, now: Timestamp) {
        if self.full_at.load(Ordering::Relaxed) > now.as_unix_micros() {
            self.full_at.fetch_sub(self.gcra.interval, Ordering::Relaxed);
        }
    }

    pub(super) fn state(&self, now: Timestamp) -> RateState {
        self.gcra.state(self.full_at(), now)
    }

    fn full_at(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.full_at.load(Ordering::Relaxed))
    }
}

/// The buckets of this node. *n* nodes together accept up to *n* times the rate.
///
/// Buckets belong to key identifiers and owners, not to secrets: a rotation does not start a new bucket.
#[derive(Default)]
pub(crate) struct PerNodeRates {
    pub(super) keys: Buckets<KeyId>,
    pub(super) owners: Buckets<Owner>,
}

/// A bucket per subject.
pub(crate) struct Buckets<S> {
    shards: [Mutex<HashMap<S, Arc<RateBucket>>>; SHARDS],
    shard_hash: RandomState,
}

impl<S> Default for Buckets<S> {
    fn default() -> Self {
        Self { shards: Default::default(), shard_hash: RandomState::new() }
    }
}

impl<S: Clone + Eq + Hash> Buckets<S> {
    /// Returns the bucket of a subject. If its rate changed, the bucket is replaced.
    pub(crate) fn bucket(&self, subject: &S, rate: Rate, now: Timestamp) -> Arc<RateBucket> {
        let shard = self.shard_hash.hash_one(subject) as usize % SHARDS;
        let mut buckets = lock(&self.shards[shard]);
        if let Some(bucket) = buckets.get_mut(subject) {
            if bucket.gcra.rate != rate {
                *bucket = Arc::new(RateBucket::replacing(bucket, rate, now));
            }
            return bucket.clone();
        }
        if buckets.len() >= MIN_SWEEP && buckets.len() == buckets.capacity() {
            // A full bucket that is not in use is the same as a new one.
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.full_at() > now);
        }
        let bucket = Arc::new(RateBucket::new(rate));
        buckets.insert(subject.clone(), bucket.clone());
        bucket
    }
}

const SHARDS: usize = 32;
/// Shards with fewer buckets are not swept.
const MIN_SWEEP: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DAY;

    #[test]
    fn a_sweep_keeps_buckets_that_are_in_use_or_not_full() {
        let (buckets, now) = (Buckets::<u32>::default(), Timestamp::MIN.after(DAY));
        let rate = Rate::per_hour(2);
        let held = buckets.bucket(&0, rate, now);
        held.charge(1, now).unwrap();
        buckets.bucket(&1, rate, now).charge(2, now).unwrap();
        for subject in 2..4 * (SHARDS * MIN_SWEEP) as u32 {
            let _ = buckets.bucket(&subject, rate, now);
        }
        assert!(Arc::ptr_eq(&held, &buckets.bucket(&0, rate, now)));
        assert!(buckets.bucket(&1, rate, now).wait(1, now).is_some(), "its uses are still charged");
        let kept: usize = buckets.shards.iter().map(|shard| lock(shard).len()).sum();
        assert!(kept < 4 * SHARDS * MIN_SWEEP / 2, "full buckets are removed: {kept}");
    }
}
