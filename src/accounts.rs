//! What the host defines: accounts of owners, roles, and the policy for second factors.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::model::{Actor, Limits, Owner, Permissions, Scopes};

/// The host's current information about an owner: permissions, plan limits, suspended or not.
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
    pub fn suspended(self, suspended: bool) -> Self {
        Self { suspended, ..self }
    }

    /// Returns a suspended account without permissions.
    pub(crate) fn unknown() -> Self {
        Self::new(Permissions::Only(Scopes::default()), Limits::default()).suspended(true)
    }
}

/// Looks up owners in the host's own accounts.
///
/// It is called for every [`SensitiveChange`], and for a verification whose account information is not cached or is older
/// than [`max_staleness`](crate::verify::CacheOptions::max_staleness). A host can apply a change immediately by calling
/// [`account_changed`](crate::api::ApiKeys::account_changed).
///
/// An implementation SHOULD answer from memory or with a single fast query. It MUST return a suspended account for an
/// owner that does not exist (any more). An `Err` makes the call fail as *unavailable*, never as *denied*.
///
/// # Examples
/// ```
/// use std::{collections::HashMap, sync::{Arc, RwLock}};
/// use keyward::{
///     Account, Accounts, Actor, ApiKeys, ErrorKind, KeyFormat, Limits, MemoryStore, NewKey, Owner,
///     accounts::AccountsError,
///     model::{Permissions, Rate, Scopes},
/// };
///
/// struct User { is_pro: bool, is_blocked: bool }
///
/// /// The service's users. A real service queries its database.
/// #[derive(Clone, Default)]
/// struct Users(Arc<RwLock<HashMap<String, User>>>);
///
/// #[keyward::async_trait]
/// impl Accounts for Users {
///     async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
///         let users = self.0.read().map_err(|_| "the users are unavailable")?;
///         let Some(user) = users.get(owner.account()) else {
///             // An unknown owner MUST be suspended, or the keys of a deleted user go on working.
///             let nothing = Permissions::Only(Scopes::default());
///             return Ok(Arc::new(Account::new(nothing, Limits::default()).suspended(true)));
///         };
///         let limits = match user.is_pro {
///             true => Limits::default().max_active_keys(20),
///             false => Limits::default().max_active_keys(2).rate(Rate::per_minute(60)),
///         };
///         let permissions = Permissions::only(["builds:read", "builds:write"])?;
///         Ok(Arc::new(Account::new(permissions, limits).suspended(user.is_blocked)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let users = Users::default();
/// users.0.write().unwrap().insert("ada".into(), User { is_pro: false, is_blocked: false });
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?)
///     .accounts(users.clone())
///     .build();
/// let (ada, by) = (Owner::account_only("ada")?, Actor::account("ada@example.com"));
/// let _ = keys.issue(NewKey::new(&ada, "ci")?, &by).await?;
///
/// // A change applies to cached keys within `max_staleness`, and with this call immediately:
/// users.0.write().unwrap().get_mut("ada").unwrap().is_blocked = true;
/// keys.account_changed(&ada).await?;
/// let refused = keys.issue(NewKey::new(&ada, "ci")?, &by).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Suspended);
/// # Ok(()) }
/// ```
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
/// `R` is the host's own role type. A key's permissions follow its owner's current roles. A role change takes effect as
/// any change of an [account](Accounts) does, and the keys of a member that leaves stop working the same way. To keep
/// them from working again if the member returns, call [`revoke_all`](crate::api::ApiKeys::revoke_all).
///
/// # Examples
/// ```
/// # use std::{collections::HashMap, sync::Arc};
/// # use keyward::{Account, Accounts, Limits, Owner, model::Permissions};
/// use keyward::accounts::{AccountsError, Roles};
///
/// #[derive(PartialEq)]
/// enum Role { Admin, Member }
///
/// struct Team {
///     roles: Roles<Role>,
///     members: HashMap<Owner, Role>,
/// }
///
/// #[keyward::async_trait]
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
        self.account(held, Limits::default()).permissions
    }

    /// Returns the account of a member with these roles.
    ///
    /// It is suspended if none of the roles is in the table, because its owner is not a member (any more).
    #[must_use]
    pub fn account<'a>(&self, held: impl IntoIterator<Item = &'a R>, limits: Limits) -> Account
    where
        R: 'a,
    {
        let mut account = Account { limits, ..Account::unknown() };
        for held in held {
            for (_, permissions) in self.0.iter().filter(|(role, _)| role == held) {
                account.permissions = account.permissions.union(permissions);
                account.suspended = false;
            }
        }
        account
    }
}

impl<R: PartialEq> Default for Roles<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// A change that creates a key or extends what a key can do.
///
/// Revoking, disabling, deleting and narrowing a key never require a second factor, so that an emergency is not delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SensitiveChange {
    /// A key is issued, including by a code of [`enroll`](crate::enroll).
    Issue,
    /// A key of another system is imported.
    Import,
    /// A key gets a new secret.
    Rotate,
    /// A key gets additional permissions or networks, or higher limits.
    Widen,
    /// A disabled key is enabled.
    Enable,
}

/// The host's policy: which sensitive changes require a second factor, and how recent it must be.
///
/// It is called for every [`SensitiveChange`] that the account and the actor permit, immediately before the change, and
/// for no other call. The host passes the time of the last second factor with [`Actor::second_factor_at`]. If it is
/// missing or too old, the call fails with [`SecondFactorRequired`](crate::error::ErrorKind::SecondFactorRequired). A
/// key as the [actor](Actor::key), a user with a code from an e-mail and a job of the service have no second factor.
///
/// # Examples
/// ```
/// # use std::time::{Duration, SystemTime};
/// # use keyward::{
/// #     Actor, ApiKeys, ErrorKind, KeyFormat, MemoryStore, NewKey, Owner,
/// #     accounts::{SensitiveChange, StepUp, StepUpError},
/// # };
/// /// Requires a second factor within 15 minutes to issue or rotate a key.
/// struct QuarterOfAnHour;
///
/// #[keyward::async_trait]
/// impl StepUp for QuarterOfAnHour {
///     async fn max_age(
///         &self,
///         _: &Owner,
///         _: &Actor,
///         change: SensitiveChange,
///     ) -> Result<Option<Duration>, StepUpError> {
///         let required = matches!(change, SensitiveChange::Issue | SensitiveChange::Rotate);
///         Ok(required.then_some(Duration::from_secs(900)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let format = KeyFormat::builder("lm").build()?;
/// let keys = ApiKeys::builder(MemoryStore::new(), format).step_up(QuarterOfAnHour).build();
/// let new = NewKey::new(&Owner::account_only("ada")?, "ci")?;
/// let session = Actor::account("ada@example.com");
/// let refused = keys.issue(new.clone(), &session).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
/// let confirmed = session.second_factor_at(SystemTime::now().into());
/// assert!(keys.issue(new, &confirmed).await.is_ok());
/// # Ok(()) }
/// ```
#[async_trait]
pub trait StepUp: Send + Sync + 'static {
    /// Returns the maximum age of the second factor of `by` for a change to a key of `owner`; `None` if the change
    /// requires no second factor. An `Err` makes the call fail as *unavailable*.
    async fn max_age(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError>;
}

/// Why the host cannot answer at the moment.
pub type StepUpError = Box<dyn std::error::Error + Send + Sync>;

/// For hosts that require no second factor.
pub(crate) struct NoStepUp;

#[async_trait]
impl StepUp for NoStepUp {
    async fn max_age(
        &self,
        _: &Owner,
        _: &Actor,
        _: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError> {
        Ok(None)
    }
}
