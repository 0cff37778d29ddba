//! What the host says of an owner at this moment: plan, permissions, suspended or not.

mod roles;
mod step_up;

use std::sync::Arc;

use async_trait::async_trait;

pub use roles::Roles;
pub(crate) use step_up::NoStepUp;
pub use step_up::{SensitiveChange, StepUp, StepUpError};

use crate::model::{Limits, Owner, Permissions, Scopes};

/// What the host says of an owner now.
///
/// # Examples
/// ```
/// use keyward::{Account, model::{Permissions, Scopes, Limits}};
///
/// let member = Account {
///     permissions: Permissions::Only(Scopes::new(["deploy"])?),
///     limits: Limits::default().max_active_keys(5),
///     suspended: false,
/// };
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What the owner may do; none of its keys can do more.
    pub permissions: Permissions,
    /// What its plan allows.
    pub limits: Limits,
    /// None of its keys works, and no new one is issued. Also the answer for an owner that is gone.
    pub suspended: bool,
}

impl Account {
    /// The account of an owner that the host was not asked for: a placeholder that allows nothing.
    pub(crate) fn unknown() -> Self {
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
}

/// Why the host cannot say anything of an owner at the moment.
pub type AccountsError = Box<dyn std::error::Error + Send + Sync>;

/// For hosts without plans: every owner may do everything within the same limits.
#[derive(Clone, Debug)]
pub struct NoAccounts(Arc<Account>);

impl NoAccounts {
    /// The same limits for every owner.
    pub fn with_limits(limits: Limits) -> Self {
        Self(Arc::new(Account { permissions: Permissions::All, limits, suspended: false }))
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
}
