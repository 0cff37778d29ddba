use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::model::Timestamp;
use crate::{
    model::Rate,
    verify::limits::{
        gcra::{Bucket, Gcra, NEVER, RateState},
        limited::{Limited, LimitedReason},
        quotas::QuotaStates,
    },
};

/// The rates that a use counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateStates {
    /// The key's own rate, or what the plan gives to each key, if there is one.
    pub key: Option<RateState>,
    /// The rate that all of the owner's keys share, if the plan has one.
    pub owner: Option<RateState>,
}

/// How far ahead of now the buckets are after a use, in microseconds; what it means depends on the
/// rates. Small, because every verification carries it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    key: i64,
    owner: i64,
}

impl Spent {
    /// What is left of these rates, from which it was spent.
    pub(crate) fn states(self, key: Option<Rate>, owner: Option<Rate>) -> RateStates {
        RateStates {
            key: key.map(|rate| Gcra::new(rate).state_at(self.key)),
            owner: owner.map(|rate| Gcra::new(rate).state_at(self.owner)),
        }
    }
}

/// The buckets that the uses of one key are spent from.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    pub(crate) key: Option<Arc<SharedBucket>>,
    pub(crate) owner: Option<Arc<SharedBucket>>,
    fine: bool,
    waits: bool,
}

impl Meter {
    #[inline]
    pub(crate) fn new(
        key: Option<Arc<SharedBucket>>,
        owner: Option<Arc<SharedBucket>>,
        waits: bool,
    ) -> Self {
        let fine = [&key, &owner].into_iter().flatten().any(|bucket| bucket.gcra.is_fine());
        Self { key, owner, fine, waits }
    }

    /// Nothing is counted here.
    pub(crate) fn elsewhere(waits: bool) -> Self {
        Self { waits, ..Self::default() }
    }

    /// Whether a use is counted elsewhere as well, which has to be waited for.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Whether one of the rates is so fast that a clock that is a little late would tell.
    #[inline]
    pub(crate) fn is_fine(&self) -> bool {
        self.fine
    }

    /// Counts so many uses against the key's own rate and against its owner's, or against neither.
    // In any case: handed on through memory, the answer costs as much as the counting.
    #[inline(always)]
    pub(crate) fn charge(&self, uses: u32, now: Timestamp) -> Result<Spent, Box<Limited>> {
        let key = match &self.key {
            None => 0,
            Some(bucket) => {
                bucket.charge(uses, now).map_err(|wait| self.limited(wait, uses, now))?
            }
        };
        let owner = match &self.owner {
            None => 0,
            Some(bucket) => bucket.charge(uses, now).map_err(|wait| {
                // For a moment it counted. Who was refused for that would have been for this.
                if let Some(bucket) = &self.key {
                    bucket.give_back(uses, key);
                }
                self.limited(wait, uses, now)
            })?,
        };
        Ok(Spent { key, owner })
    }

    /// The uses were none after all; they were spent so long ago.
    pub(crate) fn give_back(&self, spent: Spent, uses: u32, ago: Duration) {
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        for (bucket, ahead) in [(&self.key, spent.key), (&self.owner, spent.owner)] {
            if let Some(bucket) = bucket {
                bucket.give_back(uses, ahead.saturating_sub(ago));
            }
        }
    }

    /// What the rates say now.
    pub(crate) fn states(&self, now: Timestamp) -> RateStates {
        let state = |bucket: &Option<Arc<SharedBucket>>| Some(bucket.as_ref()?.state(now));
        RateStates { key: state(&self.key), owner: state(&self.owner) }
    }

    #[cold]
    fn limited(&self, wait: Duration, uses: u32, now: Timestamp) -> Box<Limited> {
        let both = [&self.key, &self.owner].into_iter().flatten();
        let waits = both.filter_map(|bucket| bucket.wait_for(uses, now));
        let wait = waits.fold(wait, Duration::max);
        Box::new(Limited {
            reason: LimitedReason::Rate,
            retry_after: (wait < NEVER).then_some(wait),
            rates: self.states(now),
            quotas: QuotaStates::default(),
        })
    }
}

/// A bucket that all threads spend from without a lock.
pub(crate) struct SharedBucket {
    gcra: Gcra,
    full_at: AtomicI64,
}

impl SharedBucket {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { gcra: Gcra::new(rate), full_at: AtomicI64::new(0) }
    }

    /// Another plan: what was used under the earlier one stays used.
    pub(crate) fn replacing(earlier: &Self, rate: Rate, now: Timestamp) -> Self {
        let gcra = Gcra::new(rate);
        let full_at = now.as_unix_micros() + gcra.ahead(earlier.bucket(), now);
        Self { gcra, full_at: AtomicI64::new(full_at) }
    }

    /// Takes so many uses, and tells how far ahead of now the bucket is by them; or how long to
    /// wait.
    #[inline]
    pub(crate) fn charge(&self, uses: u32, now: Timestamp) -> Result<i64, Duration> {
        let mut seen = self.full_at.load(Ordering::Relaxed);
        loop {
            let spent = self.gcra.charge(self.at(seen), uses, now)?;
            let next = spent.full_at().as_unix_micros();
            let order = Ordering::Relaxed;
            match self.full_at.compare_exchange_weak(seen, next, order, order) {
                Ok(_) => return Ok(next - now.as_unix_micros()),
                Err(other) => seen = other,
            }
        }
    }

    /// How long to wait for a use; `None` if there is one.
    pub(crate) fn wait(&self, now: Timestamp) -> Option<Duration> {
        self.wait_for(1, now)
    }

    fn wait_for(&self, uses: u32, now: Timestamp) -> Option<Duration> {
        self.gcra.charge(self.bucket(), uses, now).err()
    }

    /// Uses that were taken were none. What of them the time has given back already is not given
    /// back twice: no more than the bucket they left would be ahead of now.
    pub(crate) fn give_back(&self, uses: u32, ahead: i64) {
        let still = self.gcra.cost(uses).min(ahead).max(0);
        self.full_at.fetch_sub(still, Ordering::Relaxed);
    }

    /// Counts a use that happened, also if there was none left: later ones wait for it.
    pub(crate) fn overdraw(&self, now: Timestamp) {
        let now = now.as_unix_micros();
        let next = |full_at: i64| Some(full_at.max(now).saturating_add(self.gcra.interval()));
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// One use more is there again, up to all of the burst.
    pub(crate) fn restore(&self, now: Timestamp) {
        if self.full_at.load(Ordering::Relaxed) > now.as_unix_micros() {
            self.full_at.fetch_sub(self.gcra.interval(), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_full(&self, now: Timestamp) -> bool {
        self.bucket().is_full(now)
    }

    pub(crate) fn has_rate(&self, rate: Rate) -> bool {
        self.gcra.rate() == rate
    }

    fn state(&self, now: Timestamp) -> RateState {
        self.gcra.state(self.bucket(), now)
    }

    fn bucket(&self) -> Bucket {
        self.at(self.full_at.load(Ordering::Relaxed))
    }

    fn at(&self, full_at: i64) -> Bucket {
        Bucket::new(Timestamp::from_unix_micros(full_at), self.gcra.interval())
    }
}
