use crate::{
    accounts::{Account, SensitiveChange},
    model::{Actor, Owner},
};
use crate::{api::Inner, error::Error};

impl Inner {
    /// The one way to every change by which a key can do more than before: the host's accounts are
    /// asked, then `judge` says whether owner and actor reach that far, and at last the host's policy
    /// whether the actor has to confirm it. Nobody is sent for a second factor in vain, but for what
    /// only the store can tell: how many keys there are, and which secrets are known.
    pub(crate) async fn sanction<T: Send>(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
        judge: impl FnOnce(&Account) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let account = self.account(owner).await?;
        if account.suspended {
            return Err(Error::suspended());
        }
        let judged = judge(&account)?;
        match self.step_up.max_age(owner, by, change).await.map_err(Error::step_up)? {
            Some(max_age) if !by.confirmed_within(max_age, self.now()) => {
                Err(Error::second_factor_required(max_age))
            }
            _ => Ok(judged),
        }
    }
}
