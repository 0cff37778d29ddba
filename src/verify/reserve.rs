use std::sync::Arc;

use super::{
    VerifyError, VerifyRequest,
    limits::{QuotaStates, Quotas},
    verified::Verified,
    verifier::Verifier,
    write_behind::run_to_end,
};
use crate::{
    error::Error,
    model::{Timestamp, debug_only},
    store::{ChargeOutcome, CounterCharge},
};

/// A share of a key's quotas, reserved for work whose cost is known only at its end.
///
/// A reservation that is dropped stays charged: if its holder forgets it, panics or is killed, what was reserved is
/// used, and never more. [`commit`](Reservation::commit) and [`release`](Reservation::release) return the rest.
#[must_use = "a reservation that is dropped stays charged: commit or release it"]
pub struct Reservation {
    verifier: Arc<Verifier>,
    verified: Verified,
    at: Timestamp,
    uses: u64,
    quotas: QuotaStates,
}

/// The result of committing a reservation.
///
/// Exhaustive on purpose: a caller that ignores `Partial` gives uses away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settlement {
    /// Exactly what the work cost is charged.
    Full,
    /// The work cost more than was reserved, and the quotas do not have the difference: what was reserved is charged,
    /// and this number of uses beyond it is not.
    Partial(u64),
}

impl Verifier {
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        verified: &Verified,
        uses: u64,
    ) -> Result<Reservation, VerifyError> {
        let now = self.clock.checked_now().await.map_err(VerifyError::Unavailable)?;
        let (at, quotas) = (now.at, Quotas::of(verified.facts(), verified.account()));
        let outcome = self.charge_counters(&quotas.charges(uses, at)).await;
        match outcome.map_err(VerifyError::Unavailable)? {
            ChargeOutcome::Granted(used) => Ok(Reservation {
                verifier: self.clone(),
                verified: verified.clone(),
                at,
                uses,
                quotas: quotas.states(&used, at),
            }),
            ChargeOutcome::Exhausted(used) => {
                let limited = quotas.states(&used, at).limited(uses, verified.rates());
                let request = VerifyRequest { ip: verified.ip, ..VerifyRequest::new() };
                Err(self.limit(limited, Some(verified.facts()), at, &request))
            }
        }
    }
}

impl Reservation {
    /// Returns how many uses are reserved.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Returns what is left of the quotas beside the reservation.
    pub fn quotas(&self) -> QuotaStates {
        self.quotas
    }

    /// Charges what the work cost, and returns the rest of the reservation to the quotas. If the work cost more, the
    /// difference is charged as well, if the quotas have it.
    ///
    /// Uses of a day or a month that has ended are not returned: they no longer count.
    ///
    /// # Errors
    /// Errors of the store. The reservation is consumed: what was reserved stays charged, unless the error is
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), when the rest may have been returned, or the difference
    /// charged.
    ///
    /// # Cancellation
    /// The commit runs to its end if the future is dropped.
    pub async fn commit(self, actual: u64) -> Result<Settlement, Error> {
        let reserved = self.uses;
        run_to_end(async move {
            if actual <= reserved {
                self.verifier.refund_counters(&self.charges(reserved - actual)).await?;
                return Ok(Settlement::Full);
            }
            let more = self.charges(actual - reserved);
            match self.verifier.charge_counters(&more).await? {
                ChargeOutcome::Granted(_) => Ok(Settlement::Full),
                ChargeOutcome::Exhausted(_) => Ok(Settlement::Partial(actual - reserved)),
            }
        })
        .await
    }

    /// Returns the whole reservation to the quotas, because the work was not done.
    ///
    /// # Errors
    /// As [`commit`](Reservation::commit).
    pub async fn release(self) -> Result<(), Error> {
        self.commit(0).await.map(drop)
    }

    fn charges(&self, uses: u64) -> Vec<CounterCharge<'_>> {
        let charges =
            Quotas::of(self.verified.facts(), self.verified.account()).charges(uses, self.at);
        // Any number of periods may have begun since the reservation.
        let late = |charge| CounterCharge { latest_window: Timestamp::MAX, ..charge };
        charges.into_iter().map(late).collect()
    }
}

debug_only!(Reservation { uses });
