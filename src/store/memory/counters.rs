use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{KeyId, Period, Timestamp},
    secret::Digest,
    store::{Code, Counter, Guess, Guessed, Payer, Spend, Spent, Tally, quotas::spend_all},
};

/// What is counted of keys and owners, and of those who want a key.
#[derive(Default)]
pub(super) struct Counters {
    quotas: HashMap<(Vec<u8>, Period), Counter>,
    tallies: BTreeMap<(KeyId, Timestamp), Tally>,
    codes: HashMap<Digest, Code>,
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

    pub(super) fn put_code(&mut self, address: &Digest, code: &Code) {
        self.codes.insert(*address, *code);
    }

    pub(super) fn try_code(&mut self, guess: &Guess) -> Guessed {
        let Some(code) = self.codes.get_mut(&guess.address) else { return Guessed::Nothing };
        let guessed = guess.check(code);
        match guessed {
            Guessed::Right => _ = self.codes.remove(&guess.address),
            Guessed::Wrong => code.tries -= 1,
            Guessed::Late | Guessed::Spent | Guessed::Nothing => {}
        }
        guessed
    }

    pub(super) fn purge_codes(&mut self, before: Timestamp, limit: u32) -> u32 {
        let ended = self.codes.iter().filter(|(_, code)| code.ends_at < before);
        let ended: Vec<_> = ended.map(|(address, _)| *address).take(limit as usize).collect();
        for address in &ended {
            self.codes.remove(address);
        }
        let left = limit as usize - ended.len();
        let guests = self
            .quotas
            .iter()
            .filter(|((payer, _), counter)| Payer::is_guest(payer) && counter.window < before);
        let guests: Vec<_> = guests.map(|(quota, _)| quota.clone()).take(left).collect();
        for quota in &guests {
            self.quotas.remove(quota);
        }
        (ended.len() + guests.len()) as u32
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
