//! What the host defines: accounts of owners, roles, and the policy for second factors.

mod step_up;

use std::sync::Arc;

use async_trait::async_trait;

pub(crate) use self::step_up::NoStepUp;
pub use self::step_up::{SensitiveChange, StepUp, StepUpError};
use crate::model::{Limits, Owner, Permissions, Scopes};

/// The host's current information about an owner: permissions, plan limits, suspended or not.
///
/// # Examples
/// ```
/// use keyward::{Account, Limits, model::Permissions};
///
/// let plan = Limits::default().max_active_keys(5);
/// let member = Account::new(Permissions::only(["deploy"])?, plan.clone());
/// let blocked = Account::new(Permissions::All, plan).suspended(true);
/// assert!(!member.suspended && blocked.suspended);
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The owner's permissions. None of its keys can exceed them.
    pub permissions: Permissions,
    /// The limits of the owner's plan.
    pub limits: Limits,
    /// If true, the owner's keys are refused and no new key is issued. MUST be true for an owner that does not exist.
    pub suspended: bool,
}

impl Account {
    /// Returns the account of an owner that is not suspended.
    pub fn new(permissions: Permissions, limits: Limits) -> Self {
        Self { permissions, limits, suspended: false }
    }

    /// Sets whether the owner is suspended. Defaults to false.
    #[must_use]
    pub fn suspended(mut self, suspended: bool) -> Self {
        self.suspended = suspended;
        self
    }

    /// A suspended account without permissions, for an owner whose account was not queried.
    pub(crate) fn unknown() -> Self {
        Self::new(Permissions::Only(Scopes::default()), Limits::default()).suspended(true)
    }
}

/// Looks up owners in the host's own accounts.
///
/// It is called for every issue and rotation, for a change that widens a key, and for a verification whose account
/// information is not cached or is older than [`max_staleness`](crate::verify::CacheOptions::max_staleness). A host can
/// apply a change immediately by calling [`account_changed`](crate::api::ApiKeys::account_changed).
///
/// An implementation SHOULD answer from memory or with a single fast query. It MUST return a suspended
/// account for an owner that does not exist (any more). An `Err` means that the host cannot answer at the
/// moment: the call then fails as *unavailable*, never as *denied*.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Returns the current account of `owner`.
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError>;
}

/// Why the host cannot return an account at the moment.
pub type AccountsError = Box<dyn std::error::Error + Send + Sync>;

/// For hosts without plans: every owner has all permissions and the same limits.
#[derive(Clone, Debug)]
pub struct NoAccounts(Arc<Account>);

impl NoAccounts {
    /// Uses the same limits for every owner.
    pub fn with_limits(limits: Limits) -> Self {
        Self(Arc::new(Account::new(Permissions::All, limits)))
    }
}

/// Limits each owner to 5 active keys. There are no other limits.
impl Default for NoAccounts {
    fn default() -> Self {
        Self::with_limits(Limits::default().max_active_keys(5))
    }
}

#[async_trait]
impl Accounts for NoAccounts {
    async fn account(&self, _: &Owner) -> Result<Arc<Account>, AccountsError> {
        Ok(self.0.clone())
    }
}

/// A table of roles and their permissions, for the [`Accounts`] of a host with teams.
///
/// `R` is the host's own role type. The host also knows which roles each member holds.
///
/// A key's permissions follow its owner's current roles. A role change takes effect immediately after
/// [`account_changed`](crate::api::ApiKeys::account_changed), and otherwise within
/// [`max_staleness`](crate::verify::CacheOptions::max_staleness). The keys of a member that leaves stop
/// working the same way. To keep them from working again if the member returns, call
/// [`revoke_all`](crate::api::ApiKeys::revoke_all).
///
/// # Examples
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use keyward::{
///     Account, Accounts, Limits, Owner, accounts::{AccountsError, Roles}, model::Permissions,
/// };
///
/// #[derive(PartialEq)]
/// enum Role { Admin, Member }
///
/// struct Team {
///     roles: Roles<Role>,
///     members: HashMap<Owner, Role>,
/// }
///
/// #[async_trait::async_trait]
/// impl Accounts for Team {
///     async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
///         Ok(Arc::new(self.roles.account(self.members.get(owner), Limits::default())))
///     }
/// }
///
/// let roles = Roles::new()
///     .role(Role::Admin, Permissions::All)
///     .role(Role::Member, Permissions::only(["deploy"])?);
/// assert!(roles.permissions(&[Role::Member]).allows("deploy"));
/// assert!(!roles.permissions(&[Role::Member]).allows("publish"));
/// assert!(roles.account(&[], Limits::default()).suspended, "without a role, keys do not work");
/// # let _ = Team { roles, members: HashMap::new() };
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Roles<R>(Vec<(R, Permissions)>);

impl<R: PartialEq> Roles<R> {
    /// Returns a table without roles, which permits nothing.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Grants permissions to a role. Repeated calls for the same role add up.
    pub fn role(mut self, role: R, permissions: Permissions) -> Self {
        self.0.push((role, permissions));
        self
    }

    /// Returns the combined permissions of several roles. A role that is not in the table permits nothing.
    pub fn permissions<'a>(&self, held: impl IntoIterator<Item = &'a R>) -> Permissions
    where
        R: 'a,
    {
        let nothing = Permissions::Only(Scopes::default());
        self.matching(held).fold(nothing, |all, more| all.union(more))
    }

    /// Returns the account of a member with these roles.
    ///
    /// It is suspended if none of the roles is in the table, because its owner is not a member (any more).
    #[must_use]
    pub fn account<'a>(&self, held: impl IntoIterator<Item = &'a R>, limits: Limits) -> Account
    where
        R: 'a,
    {
        let held: Vec<_> = held.into_iter().collect();
        let permissions = self.permissions(held.iter().copied());
        let suspended = self.matching(held).next().is_none();
        Account::new(permissions, limits).suspended(suspended)
    }

    fn matching<'a>(
        &self,
        held: impl IntoIterator<Item = &'a R>,
    ) -> impl Iterator<Item = &Permissions>
    where
        R: 'a,
    {
        held.into_iter().flat_map(|role| {
            let entries = self.0.iter().filter(move |(known, _)| known == role);
            entries.map(|(_, permissions)| permissions)
        })
    }
}

impl<R: PartialEq> Default for Roles<R> {
    fn default() -> Self {
        Self::new()
    }
}
