use crate::{
    accounts::Account,
    model::{Limits, Permissions, Scopes},
};

/// What each role may do: a table for the [`Accounts`](super::Accounts) of a host whose people work
/// in teams. The roles are whatever the host has for them; who holds which, it knows itself.
///
/// A key does what its owner may do at that moment. So when someone's role changes, all of the
/// owner's keys follow: at once after [`account_changed`](crate::api::ApiKeys::account_changed), and
/// without that within [`max_staleness`](crate::verify::CacheOptions::max_staleness). The keys of who
/// has left stop the same way; that they stay so should the person come back, takes
/// [`revoke_all`](crate::api::ApiKeys::revoke_all).
///
/// # Examples
/// ```
/// use std::{collections::HashMap, sync::{Arc, RwLock}};
/// use keyward::{
///     Account, Accounts, Limits, Owner, accounts::{AccountsError, Roles}, model::Permissions,
/// };
///
/// #[derive(Clone, Copy, PartialEq)]
/// enum Role { Owner, Member }
///
/// struct Team {
///     roles: Roles<Role>,
///     members: RwLock<HashMap<Owner, Role>>,
/// }
///
/// #[async_trait::async_trait]
/// impl Accounts for Team {
///     async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
///         let role = self.members.read().expect("nobody panics with it").get(owner).copied();
///         Ok(Arc::new(self.roles.account(&role, Limits::default().max_active_keys(5))))
///     }
/// }
///
/// let roles = Roles::new()
///     .role(Role::Owner, Permissions::All)
///     .role(Role::Member, Permissions::only(["deploy"])?);
/// assert!(roles.permissions(&[Role::Member]).allows("deploy"));
/// assert!(!roles.permissions(&[Role::Member]).allows("publish"));
/// assert!(roles.account(&None, Limits::default()).suspended, "nobody's keys work");
/// # let _ = Team { roles, members: RwLock::default() };
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Roles<R>(Vec<(R, Permissions)>);

impl<R: PartialEq> Roles<R> {
    /// A table without roles: nobody may do anything.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Who holds this role may do this. Said of a role twice, both is true.
    pub fn role(mut self, role: R, permissions: Permissions) -> Self {
        self.0.push((role, permissions));
        self
    }

    /// What those may do who hold these roles, all together. A role that the table does not know
    /// permits nothing.
    pub fn permissions<'a>(&self, held: impl IntoIterator<Item = &'a R>) -> Permissions
    where
        R: 'a,
    {
        let nothing = Permissions::Only(Scopes::none());
        self.of(held).fold(nothing, |all, some| all.union(some))
    }

    /// The account of someone who holds these roles. Who holds none that the table knows is no
    /// member (any more), and so suspended.
    #[must_use]
    pub fn account<'a>(&self, held: impl IntoIterator<Item = &'a R>, limits: Limits) -> Account
    where
        R: 'a,
    {
        let held: Vec<_> = held.into_iter().collect();
        let permissions = self.permissions(held.iter().copied());
        let suspended = self.of(held).next().is_none();
        Account::new(permissions, limits).suspended(suspended)
    }

    fn of<'a>(&self, held: impl IntoIterator<Item = &'a R>) -> impl Iterator<Item = &Permissions>
    where
        R: 'a,
    {
        held.into_iter().flat_map(|role| {
            let its_own = self.0.iter().filter(move |(known, _)| known == role);
            its_own.map(|(_, permissions)| permissions)
        })
    }
}

/// A table without roles.
impl<R: PartialEq> Default for Roles<R> {
    fn default() -> Self {
        Self::new()
    }
}
