use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{KeyId, Period, Timestamp},
    secret::SecretDigest,
    store::{
        ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey, HourlyUsage,
        OneTimeCode, records::charge_all,
    },
};

/// What is counted of keys and owners, and of those who want a key.
#[derive(Default)]
pub(super) struct Counters {
    quotas: HashMap<(Vec<u8>, Period), Counter>,
    tallies: BTreeMap<(KeyId, Timestamp), HourlyUsage>,
    codes: HashMap<SecretDigest, OneTimeCode>,
}

impl Counters {
    pub(super) fn charge(&mut self, charges: &[CounterCharge<'_>]) -> ChargeOutcome {
        let stored: Vec<Counter> = charges.iter().map(|spend| *self.quota(spend)).collect();
        let (spent, after) = charge_all(charges, &stored);
        for (spend, after) in charges.iter().zip(after.into_iter().flatten()) {
            *self.quota(spend) = after;
        }
        spent
    }

    pub(super) fn refund(&mut self, charges: &[CounterCharge<'_>]) {
        for spend in charges {
            let counter = self.quota(spend);
            *counter = spend.refund(*counter);
        }
    }

    pub(super) fn add(&mut self, tally: &HourlyUsage) {
        let of_hour = (tally.key_id, tally.hour);
        let sums =
            self.tallies.entry(of_hour).or_insert(HourlyUsage::none(tally.key_id, tally.hour));
        sums.accepted += tally.accepted;
        sums.denied += tally.denied;
        sums.limited += tally.limited;
    }

    pub(super) fn usage_history(&self, id: KeyId, from: Timestamp) -> Vec<HourlyUsage> {
        let of_key = self.tallies.range((id, from)..=(id, Timestamp::MAX));
        of_key.map(|(_, tally)| *tally).collect()
    }

    pub(super) fn purge_usage(&mut self, before: Timestamp, limit: u32) -> u32 {
        let old = self.tallies.keys().filter(|(_, hour)| *hour < before).copied();
        let old: Vec<_> = old.take(limit as usize).collect();
        for hour in &old {
            self.tallies.remove(hour);
        }
        old.len() as u32
    }

    pub(super) fn put_code(&mut self, address: &SecretDigest, code: &OneTimeCode) {
        self.codes.insert(*address, *code);
    }

    pub(super) fn try_code(&mut self, guess: &CodeAttempt) -> CodeOutcome {
        let Some(code) = self.codes.get_mut(&guess.address) else { return CodeOutcome::NotFound };
        let guessed = guess.check(code);
        match guessed {
            CodeOutcome::Accepted => _ = self.codes.remove(&guess.address),
            CodeOutcome::Wrong => code.tries -= 1,
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {}
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
        let guests = self.quotas.iter().filter(|((payer, _), counter)| {
            CounterKey::is_anonymous(payer) && counter.window < before
        });
        let guests: Vec<_> = guests.map(|(quota, _)| quota.clone()).take(left).collect();
        for quota in &guests {
            self.quotas.remove(quota);
        }
        (ended.len() + guests.len()) as u32
    }

    /// Of a key whose record is removed.
    pub(super) fn forget(&mut self, id: KeyId) {
        let payer = CounterKey::Key(id).to_bytes();
        for period in Period::ALL {
            self.quotas.remove(&(payer.clone(), period));
        }
        for tally in self.usage_history(id, Timestamp::MIN) {
            self.tallies.remove(&(id, tally.hour));
        }
    }

    fn quota(&mut self, spend: &CounterCharge<'_>) -> &mut Counter {
        self.quotas.entry((spend.payer.to_bytes(), spend.period)).or_default()
    }
}
