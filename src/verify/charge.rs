use std::sync::Arc;

use super::{
    VerifyError, VerifyRequest,
    cache::CachedKey,
    limits::{
        KeyRates, Quotas, RateCharge, RateLevels, RateLimiter, RateOutcome, RateStates,
        RatesCharged, rates_of,
    },
    verified::Charged,
    verifier::{Presented, Verifier},
};
use crate::{
    error::{Error, ErrorKind},
    store::{ChargeOutcome, CounterCharge, StoreError, StoreErrorKind},
    system::Now,
};

impl Verifier {
    /// Charges a use to the rates that this node counts.
    #[inline]
    pub(super) fn charge_locally(
        self: &Arc<Self>,
        key: &CachedKey,
        request: &VerifyRequest<'_>,
        now: Now,
    ) -> Result<Charged, VerifyError> {
        let now = self.precise_if_needed(&key.rates, now);
        let charged = key.rates.charge(request.cost, now.monotonic_timestamp());
        let limited = |limited| self.limit(limited, Some(&key.facts), now.at, request);
        charged.map(Charged::Locally).map_err(limited)
    }

    /// Charges a use to the rates, then to the quotas, and decides again about the key, because both may have taken long.
    /// If a quota is exceeded, the store fails or the key has ended, the charges are refunded, as far as the rate limiter
    /// and the store can be reached.
    pub(super) async fn charge_remotely(
        self: &Arc<Self>,
        key: Arc<CachedKey>,
        presented: &Presented<'_>,
        request: &VerifyRequest<'_>,
        decided_at: &mut Now,
    ) -> Result<(Arc<CachedKey>, Charged), VerifyError> {
        let now = self.precise_if_needed(&key.rates, *decided_at);
        let rates = rates_of(key.facts.id, &key.facts.limits(), &key.account.limits);
        let at = now.monotonic_timestamp();
        let charge = RateCharge { owner: &key.facts.owner, rates: &rates, uses: request.cost, at };
        let charged = self.charge_rates(&charge, &key, request, now).await?;
        let (quotas, uses) = (Quotas::of(&key.facts, &key.account), u64::from(request.cost));
        let counters = quotas.charges(uses, now.at);
        if !counters.is_empty() {
            request.note_cache_miss();
        }
        let rejected = match self.charge_counters(&counters).await {
            Ok(ChargeOutcome::Granted(used)) => {
                match self.decide_again(&key, presented, request, decided_at).await {
                    Ok(decided) => {
                        let states = (charged.states(&charge), quotas.states(&used, now.at));
                        return Ok((decided, Charged::Remotely(Arc::new(states))));
                    }
                    Err(error) => {
                        let _ = self.refund_counters(&counters).await;
                        Err(error)
                    }
                }
            }
            Ok(ChargeOutcome::Exhausted(used)) => Ok(quotas.states(&used, now.at)),
            Err(error) => Err(VerifyError::Unavailable(error)),
        };
        let rates = charged.refund(&charge, self.clock.precise_now()).await;
        Err(match rejected {
            Ok(states) => {
                self.limit(states.limited(uses, rates), Some(&key.facts), now.at, request)
            }
            Err(error) => error,
        })
    }

    /// Charges all counters, or none if one of them is exhausted. Without counters, the store is not asked.
    pub(super) async fn charge_counters(
        &self,
        counters: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, Error> {
        if counters.is_empty() {
            return Ok(ChargeOutcome::Granted(Vec::new()));
        }
        let store = self.store.counters().ok_or_else(Error::no_counters)?;
        store.charge(counters).await.map_err(charge_error)
    }

    /// Refunds what [`charge_counters`](Self::charge_counters) charged. A store without counters has charged nothing.
    pub(super) async fn refund_counters(
        &self,
        counters: &[CounterCharge<'_>],
    ) -> Result<(), Error> {
        match self.store.counters() {
            Some(store) if !counters.is_empty() => {
                store.refund(counters).await.map_err(charge_error)
            }
            _ => Ok(()),
        }
    }

    async fn charge_rates<'a>(
        self: &'a Arc<Self>,
        charge: &RateCharge<'_>,
        key: &'a CachedKey,
        request: &VerifyRequest<'_>,
        now: Now,
    ) -> Result<ChargedRates<'a>, VerifyError> {
        let limited = |limited| self.limit(limited, Some(&key.facts), now.at, request);
        let limiter = self.rates.limiter.as_deref();
        match limiter.filter(|_| !charge.rates.is_empty() && charge.uses > 0) {
            // If there is a limiter, the key has no buckets: nothing is charged.
            None => {
                let charged = key.rates.charge(charge.uses, charge.at).map_err(limited)?;
                Ok(ChargedRates::Locally(&key.rates, charged))
            }
            Some(limiter) => match limiter.charge(charge).await {
                Ok(RateOutcome::Granted(levels)) => Ok(ChargedRates::ByLimiter(limiter, levels)),
                Ok(RateOutcome::Refused(levels)) => Err(limited(charge.limited(&levels))),
                Err(source) => {
                    Err(VerifyError::Unavailable(Error::unavailable("the rate limiter", source)))
                }
            },
        }
    }

    #[inline]
    fn precise_if_needed(&self, rates: &KeyRates, now: Now) -> Now {
        if rates.needs_precise_clock { self.clock.precise_now() } else { now }
    }
}

/// Where a use was charged to its rates.
enum ChargedRates<'a> {
    Locally(&'a KeyRates, RatesCharged),
    ByLimiter(&'a dyn RateLimiter, RateLevels),
}

impl ChargedRates<'_> {
    fn states(&self, charge: &RateCharge<'_>) -> RateStates {
        match self {
            Self::Locally(rates, charged) => rates.states_after(*charged),
            Self::ByLimiter(_, levels) => charge.states(levels),
        }
    }

    /// Refunds the charge, and returns the states without it.
    async fn refund(&self, charge: &RateCharge<'_>, now: Now) -> RateStates {
        let now = now.monotonic_timestamp();
        match self {
            Self::Locally(rates, charged) => {
                rates.refund(*charged, charge.uses, now.since(charge.at));
                rates.states(now)
            }
            Self::ByLimiter(limiter, levels) => {
                limiter.refund(&RateCharge { at: now, ..*charge }, levels).await;
                charge.states(&charge.levels_without(charge.uses, levels, levels.at))
            }
        }
    }
}

/// Returns the error of a use that could not be charged to quotas. It is rejected, whether it was charged or not.
pub(super) fn charge_error(error: StoreError) -> Error {
    match error.kind() {
        StoreErrorKind::OutcomeUnknown | StoreErrorKind::Unconfirmed => {
            let message = "the use may have been charged or not; another try may charge it twice";
            Error::new(ErrorKind::OutcomeUnknown, message).caused_by(Arc::new(error))
        }
        StoreErrorKind::Configuration | StoreErrorKind::Unavailable | StoreErrorKind::Corrupt => {
            error.into()
        }
    }
}
