use std::{collections::HashMap, sync::Mutex};

use crate::{
    model::{Owner, Rate, Timestamp},
    system::lock,
    verify::limits::rate_limiter::{RateCharge, RateLevels, RateSubject},
};

/// Permits that this node charged in advance. For all other nodes they are used.
pub(super) struct Leases {
    max_permits: u32,
    leases: Mutex<HashMap<LeaseKey, Lease>>,
}

/// The owner and the rates that a lease belongs to.
type LeaseKey = (Owner, Vec<RateSubject>);

struct Lease {
    /// The rates that were charged. After a change of plan the lease is not used any more.
    rates: Vec<Rate>,
    permits: u32,
    /// The levels that Redis returned for the latest charge.
    levels: RateLevels,
    /// The time of that charge by this node's monotonic clock.
    charged_at: Timestamp,
}

impl Leases {
    pub(super) fn new(max_permits: u32) -> Self {
        Self { max_permits, leases: Mutex::default() }
    }

    /// Returns how many permits to charge: at most a tenth of the smallest burst, because unused permits of this
    /// node are missing on other nodes.
    pub(super) fn batch(&self, charge: &RateCharge<'_>) -> u32 {
        let smallest = charge.rates.iter().map(|(_, rate)| rate.burst.get()).min();
        self.max_permits.min(smallest.unwrap_or(0) / 10).max(charge.uses)
    }

    /// Grants a charge from the lease; `None` if the lease has too few permits.
    pub(super) fn take(&self, charge: &RateCharge<'_>) -> Option<RateLevels> {
        let mut leases = lock(&self.leases);
        let lease = leases.get_mut(&key(charge)).filter(|lease| lease.is_for(charge))?;
        lease.permits = lease.permits.checked_sub(charge.uses)?;
        Some(lease.levels(charge))
    }

    /// Adds the unused permits of a batch to the lease.
    pub(super) fn add(
        &self,
        charge: &RateCharge<'_>,
        permits: u32,
        levels: RateLevels,
    ) -> RateLevels {
        let mut leases = lock(&self.leases);
        let key = key(charge);
        let earlier = leases.get(&key).filter(|lease| lease.is_for(charge));
        let permits = earlier.map_or(0, |lease| lease.permits).saturating_add(permits);
        let rates = charge.rates.iter().map(|(_, rate)| *rate).collect();
        let lease = Lease { rates, permits, levels, charged_at: charge.at };
        let levels = lease.levels(charge);
        if permits == 0 {
            leases.remove(&key);
            return levels;
        }
        if leases.len() >= MAX_LEASES && !leases.contains_key(&key) {
            leases.retain(|_, lease| !lease.is_regained(charge.at));
        }
        if leases.len() < MAX_LEASES {
            leases.insert(key, lease);
        }
        levels
    }

    /// Returns permits to the lease that were granted but not used; false if there is no lease of these rates.
    pub(super) fn restore(&self, charge: &RateCharge<'_>) -> bool {
        let mut leases = lock(&self.leases);
        let lease = leases.get_mut(&key(charge)).filter(|lease| lease.is_for(charge));
        lease.map(|lease| lease.permits = lease.permits.saturating_add(charge.uses)).is_some()
    }
}

impl Lease {
    fn is_for(&self, charge: &RateCharge<'_>) -> bool {
        self.rates.iter().eq(charge.rates.iter().map(|(_, rate)| rate))
    }

    /// Returns the levels from this node's view: its leased permits are not used yet.
    fn levels(&self, charge: &RateCharge<'_>) -> RateLevels {
        charge.levels_without(self.permits, &self.levels, self.redis_time(charge.at))
    }

    /// Whether the buckets are full again, so the charge of the leased permits no longer has an effect.
    fn is_regained(&self, now: Timestamp) -> bool {
        let at = self.redis_time(now);
        self.levels.full_at.iter().all(|full_at| *full_at <= at)
    }

    /// Estimates the server's time from the time since the charge.
    fn redis_time(&self, now: Timestamp) -> Timestamp {
        self.levels.at.after(now.since(self.charged_at))
    }
}

fn key(charge: &RateCharge<'_>) -> LeaseKey {
    (charge.owner.clone(), charge.rates.iter().map(|(subject, _)| *subject).collect())
}

/// The maximum number of leases. Charges beyond it are not leased in advance.
const MAX_LEASES: usize = 100_000;
