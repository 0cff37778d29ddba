//! The states of rates and quotas, and the error of a use that would exceed one.

use std::time::Duration;

use crate::{
    accounts::Account,
    model::{KeyId, Owner, Quota, Rate, Timestamp},
    store::{CounterCharge, CounterKey},
    verify::facts::KeyFacts,
};

/// A use that would exceed a limit. Nothing was charged for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", advice(.retry_after))]
#[non_exhaustive]
pub struct Limited {
    /// Which kind of limit applies.
    pub reason: LimitedReason,
    /// How long to wait before trying again; `None` if waiting does not help, because the quota is never renewed
    /// or the use costs more than the limit ever allows.
    pub retry_after: Option<Duration>,
    /// The state of the rates; empty if the network is limited and not the key.
    pub rates: RateStates,
    /// The state of the quotas; empty if a rate was exceeded, because quotas are then not read.
    pub quotas: QuotaStates,
}

impl Limited {
    /// Returns the error of a use that has to wait for a rate: [`NEVER`] if it exceeds the whole burst.
    pub(super) fn by_rate(wait: Duration, rates: RateStates) -> Box<Self> {
        let (retry_after, quotas) = ((wait < NEVER).then_some(wait), QuotaStates::default());
        Box::new(Self { reason: LimitedReason::Rate, retry_after, rates, quotas })
    }

    /// Returns the error of a client that has presented too many secrets that do not work.
    pub(in crate::verify) fn by_failures(wait: Duration) -> Box<Self> {
        let (rates, quotas) = Default::default();
        let (reason, retry_after) = (LimitedReason::Network, Some(wait));
        Box::new(Self { reason, retry_after, rates, quotas })
    }
}

/// Which kind of limit a use would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitedReason {
    /// A [`Rate`] of the key, or the rate that all keys of its owner share.
    Rate,
    /// A [`Quota`]: less is left than the use costs.
    Quota,
    /// Too many failed attempts from the network; the key was not looked up.
    Network,
}

impl LimitedReason {
    /// Returns a stable name: `rate_limited`, `quota_exhausted` or `throttled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate_limited",
            Self::Quota => "quota_exhausted",
            Self::Network => "throttled",
        }
    }
}

impl std::fmt::Display for LimitedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rate | Self::Network => "too many requests",
            Self::Quota => "the quota is used up",
        })
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateState {
    /// The rate.
    pub rate: Rate,
    /// How many uses may follow immediately. At most [`burst`](Rate::burst).
    pub remaining: u32,
    /// How long until `remaining` is the whole burst again; zero if it is.
    pub reset: Duration,
}

/// The state of the rates that a use is charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateStates {
    /// The key's rate: its own, or the one that the plan gives to each key.
    pub key: Option<RateState>,
    /// The rate that all of the owner's keys share.
    pub owner: Option<RateState>,
}

/// What is left of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaState {
    /// The quota.
    pub quota: Quota,
    /// How many uses are left.
    pub remaining: u64,
    /// When the quota is renewed; `None` if it never is.
    pub reset: Option<Duration>,
}

/// The quotas that a use is charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStates {
    /// The key's own quota.
    pub key: Option<QuotaState>,
    /// The quota that all of the owner's keys share.
    pub owner: Option<QuotaState>,
}

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
        let key = self.of_key.map(|quota| (CounterKey::Key(self.id), quota));
        let owner = self.of_owner.map(|quota| (CounterKey::Owner(self.owner), quota));
        let charge = |(counter_key, quota): (_, Quota)| {
            let (period, limit) = (quota.period(), quota.uses());
            let window = period.begins_at(now);
            let latest_window = period.ends_at(now).unwrap_or(Timestamp::MAX);
            CounterCharge { counter_key, period, window, latest_window, limit, uses }
        };
        key.into_iter().chain(owner).filter(|_| uses > 0).map(charge).collect()
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

/// Rounds up: a client that comes a second early is limited again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Returns what a client reads in a sentence or in `Retry-After`: at least one second.
pub(crate) fn seconds_to_wait(wait: Duration) -> u64 {
    whole_seconds(wait).max(1)
}

/// A wait that never ends.
pub(super) const NEVER: Duration = Duration::MAX;

fn advice(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!(": try again in {} s", seconds_to_wait(*wait)),
        None => ": waiting does not help".into(),
    }
}
