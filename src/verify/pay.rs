use std::sync::Arc;

use crate::{
    accounts::Account,
    model::Key,
    store::{ChargeOutcome as Paid, StoreError, StoreErrorKind},
    verify::{
        cache::entry::Entry,
        limits::{
            limiter::{RateCharge, RateLevels, RateLimiter, RateOutcome, rates_of},
            meter::{Meter, RateStates, Spent},
            quotas::Quotas,
        },
        verified::{Bearer, Metered, Verified},
    },
};
use crate::{
    api::{Inner, Now},
    error::{Error, ErrorKind},
    verify::{request::VerifyRequest, verify::VerifyError},
};

/// Uses that are not counted in this node's memory alone: those of keys with a quota, and with a
/// limiter also those with a rate.
impl Inner {
    /// As `judge_entry`, but it has to wait.
    pub(crate) async fn judge_metered(
        self: &Arc<Self>,
        entry: &Entry,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        self.admit_entry(entry, now, request)?;
        let Bearer { key, account, .. } = &**entry.bearer();
        let metered = self.pay(key, account, &entry.meter, now, request).await?;
        self.note_use(entry, now, request);
        Ok(Verified::metered(metered, now.at))
    }

    /// Counts a use against the rates, then against the quotas; against none if one refuses, or if
    /// nobody can tell.
    pub(crate) async fn pay(
        self: &Arc<Self>,
        key: &Arc<Key>,
        account: &Arc<Account>,
        meter: &Meter,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> Result<Metered, VerifyError> {
        let now = if meter.is_fine() { self.exact() } else { now };
        let rates = rates_of(key, &account.limits);
        let at = now.steady();
        let charge = RateCharge { owner: &key.owner, rates: &rates, uses: request.cost, at };
        let counted = match self.rates.limiter() {
            None => Counted::Here(meter, self.charge(key, meter, now, request)?),
            Some(_) if rates.is_empty() || charge.uses == 0 => Counted::Nowhere,
            Some(limiter) => match limiter.charge(&charge).await {
                Ok(RateOutcome::Granted(levels)) => Counted::There(limiter, levels),
                Ok(RateOutcome::Refused(levels)) => {
                    let limited = charge.refused_by(&levels);
                    return Err(self.limit(limited, Some(key), now.at, request));
                }
                Err(source) => return Err(VerifyError::Unavailable(Error::limiter(source))),
            },
        };
        let (quotas, uses) = (Quotas::of(key, account), u64::from(request.cost));
        let metered = |quotas| Metered {
            key: key.clone(),
            account: account.clone(),
            rates: counted.states(&charge, key, account),
            quotas,
        };
        if quotas.is_empty() || uses == 0 {
            return Ok(metered(Default::default()));
        }
        let refused = match self.store.charge(&quotas.charges(uses, now.at)).await {
            Ok(Paid::Granted(used)) => return Ok(metered(quotas.states(&used, now.at))),
            Ok(Paid::Exhausted(used)) => Ok(quotas.states(&used, now.at)),
            Err(error) => Err(error),
        };
        let rates = counted.give_back(&charge, self.exact()).await;
        Err(match refused {
            Ok(states) => self.limit(states.exhausted_by(uses, rates), Some(key), now.at, request),
            Err(error) => VerifyError::Unavailable(uncounted(error)),
        })
    }
}

/// Where a use was counted against its rates.
enum Counted<'a> {
    Nowhere,
    Here(&'a Meter, Spent),
    There(&'a dyn RateLimiter, RateLevels),
}

impl Counted<'_> {
    fn states(&self, charge: &RateCharge<'_>, key: &Key, account: &Account) -> RateStates {
        match self {
            Self::Nowhere => RateStates::default(),
            Self::Here(_, spent) => {
                let plan = &account.limits;
                spent.states(plan.rate_of(&key.limits), plan.shared_rate())
            }
            Self::There(_, levels) => charge.states(levels),
        }
    }

    /// Nothing came of it. What the rates say without it.
    async fn give_back(&self, charge: &RateCharge<'_>, then: Now) -> RateStates {
        let then = then.steady();
        match self {
            Self::Nowhere => RateStates::default(),
            Self::Here(meter, spent) => {
                meter.give_back(*spent, charge.uses, then.since(charge.at));
                meter.states(then)
            }
            Self::There(limiter, levels) => {
                limiter.refund(&RateCharge { at: then, ..*charge }, levels).await;
                charge.states(&charge.before(levels))
            }
        }
    }
}

/// What a store that fails means for a use: it is not let through, whether it was counted or not.
pub(crate) fn uncounted(error: StoreError) -> Error {
    match error.kind() {
        StoreErrorKind::OutcomeUnknown | StoreErrorKind::Unconfirmed => {
            let message = "the use may have been counted or not; trying again may count it twice";
            Error::new(ErrorKind::OutcomeUnknown, message).caused_by(Arc::new(error))
        }
        StoreErrorKind::Unavailable | StoreErrorKind::Corrupt => error.into(),
    }
}
