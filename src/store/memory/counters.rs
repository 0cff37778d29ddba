use std::collections::{BTreeMap, HashMap};

use crate::{
    key::{KeyId, Timestamp},
    limits::Period,
    store::{Counter, Payer, Spend, Spent, Tally, quotas::spend_all},
};

/// What is counted of keys and owners.
#[derive(Default)]
pub(super) struct Counters {
    quotas: HashMap<(Vec<u8>, Period), Counter>,
    tallies: BTreeMap<(KeyId, Timestamp), Tally>,
}

impl Counters {
    pub(super) fn spend(&mut self, spends: &[Spend<'_>]) -> Spent {
        let stored: Vec<Counter> = spends.iter().map(|spend| *self.quota(spend)).collect();
        let (spent, after) = spend_all(spends, &stored);
        for (spend, after) in spends.iter().zip(after.into_iter().flatten()) {
            *self.quota(spend) = after;
        }
        spent
    }

    pub(super) fn refund(&mut self, spends: &[Spend<'_>]) {
        for spend in spends {
            let counter = self.quota(spend);
            *counter = spend.refund(*counter);
        }
    }

    pub(super) fn add(&mut self, tally: &Tally) {
        let of_hour = (tally.key_id, tally.hour);
        let sums = self.tallies.entry(of_hour).or_insert(Tally::none(tally.key_id, tally.hour));
        sums.accepted += tally.accepted;
        sums.denied += tally.denied;
        sums.limited += tally.limited;
    }

    pub(super) fn tallies(&self, id: KeyId, from: Timestamp) -> Vec<Tally> {
        let of_key = self.tallies.range((id, from)..=(id, Timestamp::MAX));
        of_key.map(|(_, tally)| *tally).collect()
    }

    pub(super) fn purge_tallies(&mut self, before: Timestamp, limit: u32) -> u32 {
        let old = self.tallies.keys().filter(|(_, hour)| *hour < before).copied();
        let old: Vec<_> = old.take(limit as usize).collect();
        for hour in &old {
            self.tallies.remove(hour);
        }
        old.len() as u32
    }

    /// Of a key whose record is removed.
    pub(super) fn forget(&mut self, id: KeyId) {
        let payer = Payer::Key(id).to_bytes();
        for period in Period::ALL {
            self.quotas.remove(&(payer.clone(), period));
        }
        for tally in self.tallies(id, Timestamp::MIN) {
            self.tallies.remove(&(id, tally.hour));
        }
    }

    fn quota(&mut self, spend: &Spend<'_>) -> &mut Counter {
        self.quotas.entry((spend.payer.to_bytes(), spend.period)).or_default()
    }
}
