use super::limited::{Limited, LimitedReason, QuotaState, QuotaStates, RateStates};
use crate::{
    accounts::Account,
    model::{KeyId, Owner, Period, Quota, Timestamp},
    store::{CounterCharge, CounterKey},
    verify::facts::KeyFacts,
};

/// The quotas of one key, as the store charges them: its own, then its owner's.
pub(crate) struct Quotas<'a> {
    id: KeyId,
    owner: &'a Owner,
    of_key: Option<Quota>,
    of_owner: Option<Quota>,
}

impl<'a> Quotas<'a> {
    pub(crate) fn of(key: &'a KeyFacts, account: &Account) -> Self {
        let (of_key, of_owner) = (key.limits().quota, account.limits.shared_quota());
        Self { id: key.id, owner: &key.owner, of_key, of_owner }
    }

    /// Returns the counters to charge; none for no uses.
    pub(crate) fn charges(&self, uses: u64, now: Timestamp) -> Vec<CounterCharge<'a>> {
        if uses == 0 {
            return Vec::new();
        }
        let key = self.of_key.map(|quota| (CounterKey::Key(self.id), quota));
        let owner = self.of_owner.map(|quota| (CounterKey::Owner(self.owner), quota));
        let charge = |(counter_key, quota): (_, Quota)| {
            let window = Period::begins_at(quota.period(), now);
            CounterCharge { counter_key, period: quota.period(), window, limit: quota.uses(), uses }
        };
        key.into_iter().chain(owner).map(charge).collect()
    }

    /// Returns the states when these numbers of uses are used up, in the order of the charges.
    pub(crate) fn states(&self, used: &[u64], now: Timestamp) -> QuotaStates {
        let mut used = used.iter().copied();
        let mut state = |quota: Option<Quota>| {
            let quota = quota?;
            let remaining = quota.uses().saturating_sub(used.next()?);
            let reset = quota.period().ends_at(now).map(|end| end.since(now));
            Some(QuotaState { quota, remaining, reset })
        };
        QuotaStates { key: state(self.of_key), owner: state(self.of_owner) }
    }
}

impl QuotaStates {
    /// Returns the error of uses that not all quotas have left.
    pub(crate) fn limited(self, uses: u64, rates: RateStates) -> Box<Limited> {
        let is_short = |state: &QuotaState| state.remaining < uses;
        let wait = |state: QuotaState| state.reset.filter(|_| uses <= state.quota.uses());
        let mut waits = [self.key, self.owner].into_iter().flatten().filter(is_short).map(wait);
        let first = waits.next().flatten();
        let retry_after = waits.fold(first, |longest, wait| Some(longest?.max(wait?)));
        Box::new(Limited { reason: LimitedReason::Quota, retry_after, rates, quotas: self })
    }
}
