use std::time::Duration;

use async_trait::async_trait;

use super::{
    gcra::Gcra,
    limited::{Limited, RateStates},
};
use crate::model::{KeyId, KeyLimits, Limits, Owner, Rate, Timestamp};

/// Counts rates for all nodes together. Without one, each node counts in its own memory.
///
/// An implementation MUST NOT let through more than one bucket of the generic cell rate algorithm would, whatever the
/// number of nodes.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Charges all rates, or none if one of them has not enough left.
    ///
    /// An `Err` makes the verification *unavailable*. A limiter that prefers to let requests through while it cannot
    /// count, or to count in another way, returns `Ok` accordingly.
    async fn charge(&self, charge: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError>;

    /// Refunds a granted charge, because the request was rejected later. `charge.at` is the time of the refund; the rest
    /// is as it was.
    ///
    /// Best effort: uses that are not refunded return as time passes. MUST NOT refund what time has already returned.
    async fn refund(&self, charge: &RateCharge<'_>, granted: &RateLevels);
}

/// A use to be charged to rates.
#[derive(Clone, Copy, Debug)]
pub struct RateCharge<'a> {
    /// The owner of the key.
    pub owner: &'a Owner,
    /// The rates to charge, and whose they are.
    pub rates: &'a [(RateSubject, Rate)],
    /// How many uses to charge.
    pub uses: u32,
    /// The current time of this node's monotonic clock. It is not a date, and means nothing to other nodes.
    pub at: Timestamp,
}

/// Whose rate it is.
///
/// Exhaustive on purpose: a limiter that overlooked a variant would not count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateSubject {
    /// The rate of one key, whatever its secret.
    Key(KeyId),
    /// The rate that all keys of the charge's owner share.
    Owner,
}

/// The result of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RateOutcome {
    /// All rates were charged; the levels are those after the charge.
    Granted(RateLevels),
    /// A rate has not enough left and none was charged; the levels are the current ones.
    Refused(RateLevels),
}

/// How much of each rate is used, by the clock of the limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLevels {
    /// The instant of these levels.
    pub at: Timestamp,
    /// When each burst is whole again, in the order of the charge's rates.
    pub full_at: Vec<Timestamp>,
}

/// Why rates cannot be counted at the moment.
pub type RateLimiterError = Box<dyn std::error::Error + Send + Sync>;

/// Returns the rates of a key: its own, or the one that the plan gives to each key, then its owner's.
pub(crate) fn rates_of(id: KeyId, limits: &KeyLimits, plan: &Limits) -> Vec<(RateSubject, Rate)> {
    let of_key = plan.rate_of(limits).map(|rate| (RateSubject::Key(id), rate));
    let of_owner = plan.shared_rate().map(|rate| (RateSubject::Owner, rate));
    of_key.into_iter().chain(of_owner).collect()
}

impl RateCharge<'_> {
    /// Returns the state of each rate at these levels.
    pub(crate) fn states(&self, levels: &RateLevels) -> RateStates {
        let mut states = RateStates::default();
        for (subject, gcra, full_at) in self.buckets(levels) {
            let state = Some(gcra.state(full_at, levels.at));
            match subject {
                RateSubject::Key(_) => states.key = state,
                RateSubject::Owner => states.owner = state,
            }
        }
        states
    }

    /// Returns the levels at `at` as they would be without these uses.
    pub(crate) fn levels_without(
        &self,
        uses: u32,
        levels: &RateLevels,
        at: Timestamp,
    ) -> RateLevels {
        let full_at = self.buckets(levels).map(|(_, gcra, full_at)| {
            let cost = Duration::from_micros(gcra.cost(uses).unsigned_abs());
            full_at.before(cost).max(at)
        });
        RateLevels { at, full_at: full_at.collect() }
    }

    /// Returns the error of a charge that was refused at these levels.
    pub(crate) fn limited(&self, levels: &RateLevels) -> Box<Limited> {
        let waits = self
            .buckets(levels)
            .filter_map(|(_, gcra, full_at)| gcra.charge(full_at, self.uses, levels.at).err());
        Limited::by_rate(waits.max().unwrap_or_default(), self.states(levels))
    }

    /// Returns each rate, and when its burst is whole again.
    fn buckets(&self, levels: &RateLevels) -> impl Iterator<Item = (RateSubject, Gcra, Timestamp)> {
        let rates = self.rates.iter().zip(&levels.full_at);
        rates.map(|((subject, rate), full_at)| (*subject, Gcra::new(*rate), *full_at))
    }
}
