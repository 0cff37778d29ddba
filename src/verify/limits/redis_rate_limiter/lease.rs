use std::{collections::HashMap, sync::Mutex};

use crate::{
    model::{Owner, Rate, Timestamp},
    system::lock,
    verify::limits::{
        gcra::Gcra,
        rate_limiter::{RateCharge, RateLevels, RateSubject},
    },
};

/// Permits that this node has taken in advance: they are spent already, for all other nodes.
pub(crate) struct Leases {
    permits: u32,
    held: Mutex<HashMap<Name, Lease>>,
}

/// Whose rates they are of.
type Name = (Owner, Vec<RateSubject>);

struct Lease {
    /// A plan that changes leaves what was taken under the earlier one unused.
    rates: Vec<Rate>,
    permits: u32,
    /// What Redis said when they were taken, and when that was by this node's clock.
    levels: RateLevels,
    at: Timestamp,
}

impl Leases {
    pub(crate) fn new(permits: u32) -> Self {
        Self { permits, held: Mutex::default() }
    }

    /// How many permits to ask for. No more than a tenth of the narrowest burst: nodes that hold
    /// what they do not need keep it from others.
    pub(crate) fn batch(&self, charge: &RateCharge<'_>) -> u32 {
        let narrowest = charge.rates.iter().map(|(_, rate)| rate.burst.get()).min();
        self.permits.min(narrowest.unwrap_or(0) / 10).max(charge.uses)
    }

    /// Pays for a charge with what is held, if that is enough.
    pub(crate) fn take(&self, charge: &RateCharge<'_>) -> Option<RateLevels> {
        let mut held = lock(&self.held);
        let lease = held.get_mut(&name(charge))?;
        if !lease.is_for(charge) || lease.permits < charge.uses {
            return None;
        }
        lease.permits -= charge.uses;
        Some(lease.levels(charge))
    }

    /// Keeps what is left of a batch, beside what is held already.
    pub(crate) fn keep(
        &self,
        charge: &RateCharge<'_>,
        permits: u32,
        levels: RateLevels,
    ) -> RateLevels {
        let mut held = lock(&self.held);
        let name = name(charge);
        let before = held.get(&name).filter(|lease| lease.is_for(charge));
        let permits = before.map_or(0, |lease| lease.permits).saturating_add(permits);
        let rates = charge.rates.iter().map(|(_, rate)| *rate).collect();
        let lease = Lease { rates, permits, levels, at: charge.at };
        let told = lease.levels(charge);
        if permits == 0 {
            held.remove(&name);
            return told;
        }
        if held.len() >= MOST && !held.contains_key(&name) {
            // What they held is there again as time passes.
            held.retain(|_, lease| !lease.is_over(charge.at));
        }
        if held.len() < MOST {
            held.insert(name, lease);
        }
        told
    }

    /// Takes permits back that nobody used; false if they do not belong here.
    pub(crate) fn give_back(&self, charge: &RateCharge<'_>) -> bool {
        let mut held = lock(&self.held);
        let lease = held.get_mut(&name(charge)).filter(|lease| lease.is_for(charge));
        lease.map(|lease| lease.permits = lease.permits.saturating_add(charge.uses)).is_some()
    }
}

impl Lease {
    fn is_for(&self, charge: &RateCharge<'_>) -> bool {
        self.rates.iter().eq(charge.rates.iter().map(|(_, rate)| rate))
    }

    /// As far as this node knows: what it holds is spent, and still to be used here.
    fn levels(&self, charge: &RateCharge<'_>) -> RateLevels {
        let at = self.levels.at.after(charge.at.since(self.at));
        let full_at = self.rates.iter().zip(&self.levels.full_at);
        let full_at = full_at.map(|(rate, full_at)| {
            let held = Gcra::new(*rate).cost(self.permits).unsigned_abs();
            full_at.before(std::time::Duration::from_micros(held)).max(at)
        });
        RateLevels { at, full_at: full_at.collect() }
    }

    /// All that was taken has come back to its bucket meanwhile.
    fn is_over(&self, now: Timestamp) -> bool {
        let at = self.levels.at.after(now.since(self.at));
        self.levels.full_at.iter().all(|full_at| *full_at <= at)
    }
}

fn name(charge: &RateCharge<'_>) -> Name {
    (charge.owner.clone(), charge.rates.iter().map(|(within, _)| *within).collect())
}

/// Of keys and owners that come at all at a time; the rest asks Redis each time.
const MOST: usize = 100_000;
