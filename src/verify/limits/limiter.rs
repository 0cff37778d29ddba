use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Key, KeyId, Limits, Owner, Timestamp};
use crate::{
    model::Rate,
    verify::limits::{
        gcra::{Gcra, NEVER},
        limited::{Limited, LimitedReason},
        meter::RateStates,
        quotas::QuotaStates,
    },
};

/// Counts rates for all nodes together. Without one, each node counts in its own memory.
///
/// What is promised is what `gcra.rs` says of one bucket: an implementation MUST NOT let through
/// more than that, whatever the number of nodes.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Spends from all rates of a charge, or from none if one has not enough left.
    ///
    /// An `Err` makes the verification *unavailable*. A limiter that would rather let requests
    /// through, or count in another way meanwhile, answers accordingly.
    async fn charge(&self, charge: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError>;

    /// Gives back what was granted, because nothing came of the use. Best effort: what is not given
    /// back is there again as time passes. MUST NOT give back what time has given back already. The
    /// charge's `at` is now, and the rest of it is as it was.
    async fn refund(&self, charge: &RateCharge<'_>, granted: &RateLevels);
}

/// A use to be counted.
#[derive(Clone, Copy, Debug)]
pub struct RateCharge<'a> {
    /// Whose key it is.
    pub owner: &'a Owner,
    /// The rates it counts against, and whose each is.
    pub rates: &'a [(RateSubject, Rate)],
    /// How many uses it counts as.
    pub uses: u32,
    /// This instant, by a clock of this node that nobody sets: of no use as a date, and of none to
    /// other nodes.
    pub at: Timestamp,
}

/// Whose rate it is.
///
/// Exhaustive on purpose: a limiter that overlooked one would not count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateSubject {
    /// One key's own, whatever its secret.
    Key(KeyId),
    /// The one that all keys of the charge's owner share.
    Owner,
}

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RateOutcome {
    /// It was spent, and this is how things stand after it.
    Granted(RateLevels),
    /// One has not enough left. Nothing was spent from any, and this is how things stand.
    Refused(RateLevels),
}

/// How far rates are used up, by the clock of whoever counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLevels {
    /// The instant at which this was so.
    pub at: Timestamp,
    /// When all of each burst will be there again, in the order of the charge's rates.
    pub full_at: Vec<Timestamp>,
}

/// Why rates cannot be counted at the moment.
pub type RateLimiterError = Box<dyn std::error::Error + Send + Sync>;

/// The rates of a key, with those who share them: its own, or what the plan gives to each, then its owner's.
pub(crate) fn rates_of(key: &Key, plan: &Limits) -> Vec<(RateSubject, Rate)> {
    let of_key = plan.rate_of(&key.limits).map(|rate| (RateSubject::Key(key.id), rate));
    let of_owner = plan.shared_rate().map(|rate| (RateSubject::Owner, rate));
    of_key.into_iter().chain(of_owner).collect()
}

impl RateCharge<'_> {
    /// What a limiter's answer says of each rate.
    pub(crate) fn states(&self, levels: &RateLevels) -> RateStates {
        let mut states = RateStates::default();
        for ((within, rate), full_at) in self.rates.iter().zip(&levels.full_at) {
            let gcra = Gcra::new(*rate);
            let state = gcra.state_at(gcra.reachable(full_at.since(levels.at)));
            match within {
                RateSubject::Key(_) => states.key = Some(state),
                RateSubject::Owner => states.owner = Some(state),
            }
        }
        states
    }

    /// How things stood without it.
    pub(crate) fn before(&self, granted: &RateLevels) -> RateLevels {
        let before = |((_, rate), full_at): (&(RateSubject, Rate), &Timestamp)| {
            let cost = Duration::from_micros(Gcra::new(*rate).cost(self.uses).unsigned_abs());
            full_at.before(cost).max(granted.at)
        };
        let full_at = self.rates.iter().zip(&granted.full_at).map(before).collect();
        RateLevels { at: granted.at, full_at }
    }

    pub(crate) fn refused_by(&self, levels: &RateLevels) -> Box<Limited> {
        let wait = |((_, rate), full_at): (&(RateSubject, Rate), &Timestamp)| {
            let gcra = Gcra::new(*rate);
            gcra.wait_from(gcra.reachable(full_at.since(levels.at)), self.uses)
        };
        let waits = self.rates.iter().zip(&levels.full_at).filter_map(wait);
        let wait = waits.max().unwrap_or_default();
        Box::new(Limited {
            reason: LimitedReason::Rate,
            retry_after: (wait < NEVER).then_some(wait),
            rates: self.states(levels),
            quotas: QuotaStates::default(),
        })
    }
}
