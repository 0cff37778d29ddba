use std::time::Duration;

use crate::{
    accounts::Account,
    model::{Key, Timestamp},
    store::{CounterCharge, CounterKey},
};
use crate::{
    model::{Period, Quota},
    verify::limits::{
        limited::{Limited, LimitedReason},
        meter::RateStates,
    },
};

/// What is left of a quota after a use, or when one was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaState {
    /// The quota.
    pub quota: Quota,
    /// How many of its uses are left.
    pub remaining: u64,
    /// After how long it begins anew; `None` if it never does.
    pub reset: Option<Duration>,
}

/// The quotas that a use counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStates {
    /// The key's own quota, if it has one.
    pub key: Option<QuotaState>,
    /// The quota that all of the owner's keys share, if the plan has one.
    pub owner: Option<QuotaState>,
}

/// The quotas of one key, as a store spends them: its own, then its owner's.
pub(crate) struct Quotas<'a> {
    key: &'a Key,
    of_key: Option<Quota>,
    of_owner: Option<Quota>,
}

impl<'a> Quotas<'a> {
    pub(crate) fn of(key: &'a Key, account: &Account) -> Self {
        Self { key, of_key: key.limits.quota, of_owner: account.limits.shared_quota() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of_key.is_none() && self.of_owner.is_none()
    }

    pub(crate) fn charges(&self, uses: u64, now: Timestamp) -> Vec<CounterCharge<'a>> {
        let key = self.of_key.map(|quota| (CounterKey::Key(self.key.id), quota));
        let owner = self.of_owner.map(|quota| (CounterKey::Owner(&self.key.owner), quota));
        let spend = |(payer, Quota { uses: limit, period })| {
            let window = Period::begins_at(period, now);
            CounterCharge { payer, period, window, limit, uses }
        };
        key.into_iter().chain(owner).map(spend).collect()
    }

    /// What they say when so much of each is used up.
    pub(crate) fn states(&self, used: &[u64], now: Timestamp) -> QuotaStates {
        let mut used = used.iter().copied();
        let mut state = |quota: Option<Quota>| {
            let quota = quota?;
            let remaining = quota.uses.saturating_sub(used.next()?);
            let reset = quota.period.ends_at(now).map(|end| end.since(now));
            Some(QuotaState { quota, remaining, reset })
        };
        QuotaStates { key: state(self.of_key), owner: state(self.of_owner) }
    }
}

impl QuotaStates {
    /// That so many uses are not left in all of them.
    pub(crate) fn exhausted_by(self, uses: u64, rates: RateStates) -> Box<Limited> {
        let short = |state: &QuotaState| state.remaining < uses;
        let wait = |state: QuotaState| state.reset.filter(|_| uses <= state.quota.uses);
        let mut waits = [self.key, self.owner].into_iter().flatten().filter(short).map(wait);
        let first = waits.next().flatten();
        let retry_after = waits.fold(first, |longest, wait| Some(longest?.max(wait?)));
        Box::new(Limited { reason: LimitedReason::Quota, retry_after, rates, quotas: self })
    }
}
