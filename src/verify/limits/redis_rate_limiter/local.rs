use std::sync::Arc;

use crate::{
    model::Rate,
    verify::limits::{
        rate_buckets::PerNodeRates,
        rate_buckets::{KeyRates, RateBucket},
        rate_limiter::{RateCharge, RateLevels, RateOutcome, RateSubject},
    },
};

/// Counting on this node alone, for a limiter that cannot count elsewhere.
impl PerNodeRates {
    pub(crate) fn charge(&self, charge: &RateCharge<'_>) -> RateOutcome {
        let (now, mut key, mut owner) = (charge.at, None, None);
        for (within, rate) in charge.rates {
            let bucket = Some(self.bucket(charge, *within, *rate));
            match within {
                RateSubject::Key(_) => key = bucket,
                RateSubject::Owner => owner = bucket,
            }
        }
        let rates = KeyRates::new(key, owner, false);
        let granted = rates.charge(charge.uses, now).is_ok();
        let states = rates.states(now);
        let full_at = charge.rates.iter().map(|(within, _)| {
            let state = match within {
                RateSubject::Key(_) => states.key,
                RateSubject::Owner => states.owner,
            };
            now.after(state.map(|state| state.reset).unwrap_or_default())
        });
        let levels = RateLevels { at: now, full_at: full_at.collect() };
        if granted { RateOutcome::Granted(levels) } else { RateOutcome::Refused(levels) }
    }

    /// Nothing came of what was granted here.
    pub(crate) fn refund(&self, charge: &RateCharge<'_>, granted: &RateLevels) {
        for ((within, rate), full_at) in charge.rates.iter().zip(&granted.full_at) {
            let ahead = full_at.as_unix_micros() - charge.at.as_unix_micros();
            self.bucket(charge, *within, *rate).refund(charge.uses, ahead);
        }
    }

    fn bucket(&self, charge: &RateCharge<'_>, within: RateSubject, rate: Rate) -> Arc<RateBucket> {
        match within {
            RateSubject::Key(id) => self.keys.bucket(&id, rate, charge.at),
            RateSubject::Owner => self.owners.bucket(charge.owner, rate, charge.at),
        }
    }
}
