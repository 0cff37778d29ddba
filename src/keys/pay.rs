use std::sync::Arc;

use super::{Error, ErrorKind, Inner, Now, Request, VerifyError};
use crate::{
    accounts::Account,
    cache::Entry,
    key::{Bearer, Key, Metered, Verified},
    limits::{Meter, QuotaStates, Quotas, Spent},
    store::{Spent as Paid, StoreError, StoreErrorKind},
};

/// Uses that are counted in the store: the way of the keys that have a quota, or whose owner has.
impl Inner {
    /// As `judge_entry`, but it has to wait.
    pub(super) async fn judge_metered(
        self: &Arc<Self>,
        entry: &Entry,
        now: Now,
        request: &Request<'_>,
    ) -> Result<Verified, VerifyError> {
        self.admit_entry(entry, now, request)?;
        let Bearer { key, account } = &*entry.bearer;
        let (spent, quotas) = self.pay(key, account, &entry.meter, now, request).await?;
        self.note_use(entry, now, request);
        let metered = Metered { key: key.clone(), account: account.clone(), quotas };
        Ok(Verified::metered(metered, now.at, spent))
    }

    /// Counts a use against the rates, then against the quotas; against none if one refuses, or if
    /// nobody can tell.
    pub(super) async fn pay(
        self: &Arc<Self>,
        key: &Arc<Key>,
        account: &Account,
        meter: &Meter,
        now: Now,
        request: &Request<'_>,
    ) -> Result<(Spent, QuotaStates), VerifyError> {
        let now = if meter.is_fine() { self.exact() } else { now };
        let spent = self.spend(key, meter, now, request)?;
        let (quotas, uses) = (Quotas::of(key, account), u64::from(request.cost));
        if quotas.is_empty() || uses == 0 {
            return Ok((spent, QuotaStates::default()));
        }
        let answer = self.store.spend(&quotas.spends(uses, now.at)).await;
        if let Ok(Paid::Granted(used)) = answer {
            return Ok((spent, quotas.states(&used, now.at)));
        }
        let then = self.exact();
        meter.give_back(spent, request.cost, then.steady().since(now.steady()));
        Err(match answer {
            Ok(Paid::Granted(used) | Paid::Exhausted(used)) => {
                let states = quotas.states(&used, now.at);
                let limited = states.exhausted_by(uses, meter.states(then.steady()));
                self.limit(limited, Some(key), now.at, request)
            }
            Err(error) => VerifyError::Unavailable(uncounted(error)),
        })
    }
}

/// What a store that fails means for a use: it is not let through, whether it was counted or not.
pub(super) fn uncounted(error: StoreError) -> Error {
    match error.kind() {
        StoreErrorKind::OutcomeUnknown | StoreErrorKind::Unconfirmed => {
            let message = "the use may have been counted or not; trying again may count it twice";
            Error::new(ErrorKind::OutcomeUnknown, message).caused_by(Arc::new(error))
        }
        StoreErrorKind::Unavailable | StoreErrorKind::Corrupt => error.into(),
    }
}
