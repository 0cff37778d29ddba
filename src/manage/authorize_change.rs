use super::manager::Manager;
use crate::{
    accounts::{Account, SensitiveChange},
    error::{Error, ErrorKind},
    model::{Access, Actor, Key, Owner},
};

impl Manager {
    /// Authorizes a sensitive change: reads the owner's account, calls `check` with it, and checks the second factor
    /// that the host's policy requires.
    ///
    /// The second factor comes last, so that it is not requested for a change that is refused anyway. Two checks come
    /// later, because only the store makes them: the number of keys, and whether an imported secret exists.
    pub(super) async fn authorize_change<T: Send>(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
        check: impl FnOnce(&Account) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let account = self.accounts.account(owner).await.map_err(Error::accounts)?;
        if account.suspended {
            return Err(Error::suspended());
        }
        let checked = check(&account)?;
        match self.step_up.max_age(owner, by, change).await.map_err(Error::step_up)? {
            Some(max_age) if !by.confirmed_within(max_age, self.clock.now()) => {
                Err(Error::second_factor_required(max_age))
            }
            _ => Ok(checked),
        }
    }
}

/// Checks that a key does not exceed its owner's permissions.
pub(super) fn check_within_owner(key: &Key, account: &Account) -> Result<(), Error> {
    if let Access::Only(scopes) = &key.access
        && let Some(scope) = scopes.iter().find(|scope| !account.permissions.allows(scope))
    {
        let message = format!("the owner of the key does not have the scope `{scope}`");
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    Ok(())
}

/// Checks that the actor may hand out such a key.
pub(super) fn check_within_actor(key: &Key, by: &Actor) -> Result<(), Error> {
    if by.can_grant(key) { Ok(()) } else { Err(Error::beyond_reach()) }
}
