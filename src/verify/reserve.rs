use crate::{
    api::ApiKeys,
    error::Error,
    verify::{pay::uncounted, request::VerifyRequest, verify::VerifyError},
};
use crate::{
    model::Timestamp,
    store::{ChargeOutcome, CounterCharge},
    verify::{
        limits::quotas::{QuotaStates, Quotas},
        verified::Verified,
    },
};

/// A share of a key's quotas, held for work whose cost is known only at its end.
///
/// Dropped, it stays spent: whoever forgets it, panics or is killed has used what was set aside, and
/// never more than that. It comes back by [`commit`](Reservation::commit) or
/// [`release`](Reservation::release).
#[must_use = "dropped, it stays spent: commit or release it"]
pub struct Reservation {
    keys: ApiKeys,
    verified: Verified,
    at: Timestamp,
    uses: u64,
    quotas: QuotaStates,
}

/// What became of a reservation whose work is done.
///
/// Exhaustive on purpose: who ignores the second gives uses away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settlement {
    /// What the work cost is spent, and no more.
    Full,
    /// It cost more than was reserved, and the quotas have not so much more: what was reserved is
    /// spent, and these uses beyond it are not.
    Partial(u64),
}

impl ApiKeys {
    /// Sets uses aside from the quotas of a key and its owner, by the plan that the verification
    /// saw. Rates are not touched. A key without a quota reserves whatever is asked for.
    ///
    /// The verification itself has counted, too: let it do so with a [cost](VerifyRequest::cost)
    /// of nothing.
    ///
    /// # Errors
    /// [`VerifyError::Limited`] if there are not so many left, [`VerifyError::Unavailable`] if
    /// nobody could tell.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, ApiKeys, KeyFormat, Limits, MemoryStore, NewKey, Owner, VerifyRequest};
    /// # use keyward::{accounts::NoAccounts, model::Quota};
    /// use keyward::verify::Settlement;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let plan = Limits::default().quota(Quota::per_month(1_000));
    /// # let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?)
    /// #     .accounts(NoAccounts::with_limits(plan)).build();
    /// # let owner = Owner::account_only("ada")?;
    /// # let issued = keys.issue(NewKey::new(&owner, "ci")?, &Actor::account("ada")).await?;
    /// # let secret = issued.secret.expose();
    /// let verified = keys.verify(secret, &VerifyRequest::new().cost(0)).await?;
    /// let reservation = keys.reserve(&verified, 500).await?;
    /// let tokens = 123; // what the model says that it used
    /// assert_eq!(reservation.commit(tokens).await?, Settlement::Full);
    /// # Ok(()) }
    /// ```
    pub async fn reserve(
        &self,
        verified: &Verified,
        uses: u64,
    ) -> Result<Reservation, VerifyError> {
        let (inner, at) = (&self.inner, self.inner.now());
        let mut reservation = Reservation {
            keys: self.clone(),
            verified: verified.clone(),
            at,
            uses,
            quotas: QuotaStates::default(),
        };
        let charges = reservation.charges(uses);
        if charges.is_empty() {
            return Ok(reservation);
        }
        let quotas = Quotas::of(verified.key(), verified.account());
        match inner.store.charge(&charges).await {
            Ok(ChargeOutcome::Granted(used)) => {
                reservation.quotas = quotas.states(&used, at);
                Ok(reservation)
            }
            Ok(ChargeOutcome::Exhausted(used)) => {
                let limited = quotas.states(&used, at).exhausted_by(uses, verified.rates());
                Err(inner.limit(limited, Some(verified.key()), at, &VerifyRequest::new()))
            }
            Err(error) => Err(VerifyError::Unavailable(uncounted(error))),
        }
    }
}

impl Reservation {
    /// How many uses are set aside.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// What is left of the quotas beside them.
    pub fn quotas(&self) -> QuotaStates {
        self.quotas
    }

    /// The work is done and cost so much: the rest is given back. If it cost more, what is beyond is
    /// spent as well, if there is so much.
    ///
    /// What belongs to a day or a month that is over is not given back. It is done also if the future
    /// is dropped.
    ///
    /// # Errors
    /// Those of a store that fails; what was reserved stays spent.
    pub async fn commit(self, actual: u64) -> Result<Settlement, Error> {
        let (keys, reserved) = (self.keys.clone(), self.uses);
        let settle = async move {
            if actual <= reserved {
                self.refund(reserved - actual).await.map(|()| Settlement::Full)
            } else {
                self.spend_more(actual - reserved).await
            }
        };
        keys.inner.apart(settle).await
    }

    /// Nothing came of the work: all of it is given back.
    ///
    /// # Errors
    /// As [`commit`](Reservation::commit).
    pub async fn release(self) -> Result<(), Error> {
        self.commit(0).await.map(drop)
    }

    async fn refund(&self, uses: u64) -> Result<(), Error> {
        let charges = self.charges(uses);
        if charges.is_empty() {
            return Ok(());
        }
        self.keys.inner.store.refund(&charges).await.map_err(uncounted)
    }

    async fn spend_more(&self, uses: u64) -> Result<Settlement, Error> {
        let charges = self.charges(uses);
        if charges.is_empty() {
            return Ok(Settlement::Full);
        }
        match self.keys.inner.store.charge(&charges).await.map_err(uncounted)? {
            ChargeOutcome::Granted(_) => Ok(Settlement::Full),
            ChargeOutcome::Exhausted(_) => Ok(Settlement::Partial(uses)),
        }
    }

    fn charges(&self, uses: u64) -> Vec<CounterCharge<'_>> {
        let quotas = Quotas::of(self.verified.key(), self.verified.account());
        if uses == 0 { Vec::new() } else { quotas.charges(uses, self.at) }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("uses", &self.uses).finish_non_exhaustive()
    }
}
