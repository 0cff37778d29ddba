use std::sync::Arc;

use crate::{
    model::Rate,
    verify::limits::{
        limiter::{Charge, Charged, Levels, RateOf},
        meter::{Meter, SharedBucket},
        per_node::PerNode,
    },
};

/// Counting on this node alone, for a limiter that cannot count elsewhere.
impl PerNode {
    pub(crate) fn charge(&self, charge: &Charge<'_>) -> Charged {
        let (now, mut key, mut owner) = (charge.at, None, None);
        for (whose, rate) in charge.rates {
            let bucket = Some(self.bucket(charge, *whose, *rate));
            match whose {
                RateOf::Key(_) => key = bucket,
                RateOf::Owner => owner = bucket,
            }
        }
        let meter = Meter::new(key, owner, false);
        let granted = meter.spend(charge.uses, now).is_ok();
        let states = meter.states(now);
        let full_at = charge.rates.iter().map(|(whose, _)| {
            let state = match whose {
                RateOf::Key(_) => states.key,
                RateOf::Owner => states.owner,
            };
            now.after(state.map(|state| state.reset).unwrap_or_default())
        });
        let levels = Levels { at: now, full_at: full_at.collect() };
        if granted { Charged::Granted(levels) } else { Charged::Refused(levels) }
    }

    /// Nothing came of what was granted here.
    pub(crate) fn refund(&self, charge: &Charge<'_>, granted: &Levels) {
        for ((whose, rate), full_at) in charge.rates.iter().zip(&granted.full_at) {
            let ahead = full_at.as_unix_micros() - charge.at.as_unix_micros();
            self.bucket(charge, *whose, *rate).give_back(charge.uses, ahead);
        }
    }

    fn bucket(&self, charge: &Charge<'_>, whose: RateOf, rate: Rate) -> Arc<SharedBucket> {
        match whose {
            RateOf::Key(id) => self.keys.bucket(&id, rate, charge.at),
            RateOf::Owner => self.owners.bucket(charge.owner, rate, charge.at),
        }
    }
}
