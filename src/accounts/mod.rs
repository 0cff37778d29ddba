//! What the host says of an owner at this moment: plan, permissions, suspended or not.

mod roles;
mod step_up;

use std::sync::Arc;

use async_trait::async_trait;

pub use roles::Roles;
pub(crate) use step_up::NoStepUp;
pub use step_up::{SensitiveChange, StepUp, StepUpError};

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
    /// If true, the owner's keys are refused and no new key is issued. MUST be true for an owner that
    /// does not exist.
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

    /// What an owner is of whom nobody was asked.
    pub(crate) fn nobody() -> Self {
        let permissions = Permissions::Only(Scopes::none());
        Self { permissions, limits: Limits::default(), suspended: true }
    }
}

/// The bridge to the host's own accounts.
///
/// It is asked on every issue and rotate, for a change by which a key could do more, and for a
/// verification whose key is not in memory or whose answer is older than
/// [`max_staleness`](crate::verify::CacheOptions::max_staleness). A host that tells of changes by
/// [`account_changed`](crate::api::ApiKeys::account_changed) is heard at once. It SHOULD answer from
/// memory or in one fast query. An owner that does not exist (any more) MUST be answered as
/// suspended; an `Err` says that the host does not know at the moment, and makes the call
/// *unavailable*, never *denied*.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// What is true of `owner` now.
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError>;

    /// The same, from a host that knows it without waiting: it is asked first, and saves the
    /// allocation that a future costs. `None`, as by default, leads to
    /// [`account`](Accounts::account).
    fn at_once(&self, owner: &Owner) -> Option<Arc<Account>> {
        let _ = owner;
        None
    }
}

/// Why the host cannot say anything of an owner at the moment.
pub type AccountsError = Box<dyn std::error::Error + Send + Sync>;

/// For hosts without plans: every owner may do everything within the same limits.
#[derive(Clone, Debug)]
pub struct NoAccounts(Arc<Account>);

impl NoAccounts {
    /// The same limits for every owner.
    pub fn with_limits(limits: Limits) -> Self {
        Self(Arc::new(Account::new(Permissions::All, limits)))
    }
}

/// Five active keys per owner, nothing else limited.
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

    fn at_once(&self, _: &Owner) -> Option<Arc<Account>> {
        Some(self.0.clone())
    }
}
