use std::sync::Arc;

use crate::model::text::{Invalid, bounded};

/// Who a key belongs to: a tenant and an account in it, both the host's own words.
///
/// They SHOULD be ids, which nobody else gets later, rather than names or addresses. Whoever comes to
/// be the owner that another one was reads that one's audit log, and a key that was being issued when
/// all others were revoked works again.
///
/// # Examples
/// ```
/// use keyward::Owner;
///
/// let owner = Owner::new("acme", "u_1")?;
/// assert_eq!((owner.tenant(), owner.account()), ("acme", "u_1"));
/// // A host without tenants:
/// assert_eq!(Owner::account_only("u_1")?.tenant(), "");
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    tenant: Arc<str>,
    account: Arc<str>,
}

impl Owner {
    /// An account of a tenant.
    ///
    /// # Errors
    /// If one of them is empty, longer than 200 characters, or holds a NUL.
    pub fn new(tenant: &str, account: &str) -> Result<Self, Invalid> {
        let tenant = bounded("tenant", tenant, MAX)?.into();
        Ok(Self { tenant, account: bounded("account", account, MAX)?.into() })
    }

    /// An account of a host that has no tenants: the tenant is the empty text.
    ///
    /// # Errors
    /// If it is empty, longer than 200 characters, or holds a NUL.
    pub fn account_only(account: &str) -> Result<Self, Invalid> {
        Ok(Self { tenant: "".into(), account: bounded("account", account, MAX)?.into() })
    }

    /// The tenant; empty where the host has none.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The account within the tenant.
    pub fn account(&self) -> &str {
        &self.account
    }
}

/// Whose keys a call may touch. Every read and write names it; what lies outside is *not found*.
///
/// Exhaustive on purpose: a store must decide for each.
///
/// # Examples
/// ```
/// use keyward::{Owner, OwnerScope};
///
/// let ada = Owner::new("acme", "ada")?;
/// let own: OwnerScope = (&ada).into();
/// let administrator = OwnerScope::Tenant("acme");
/// assert!(own.includes(&ada) && administrator.includes(&ada));
/// assert!(!OwnerScope::Tenant("other").includes(&ada));
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerScope<'a> {
    /// The keys of one owner.
    Owner(&'a Owner),
    /// The keys of all owners of one tenant: for its administrators.
    Tenant(&'a str),
}

impl<'a> OwnerScope<'a> {
    /// The one tenant that is meant.
    pub fn tenant(&self) -> &'a str {
        match self {
            Self::Owner(owner) => owner.tenant(),
            Self::Tenant(tenant) => tenant,
        }
    }

    /// The one account that is meant, if it is one.
    pub fn account(&self) -> Option<&'a str> {
        match self {
            Self::Owner(owner) => Some(owner.account()),
            Self::Tenant(_) => None,
        }
    }

    /// Whether an owner's keys are meant.
    pub fn includes(&self, owner: &Owner) -> bool {
        self.tenant() == owner.tenant() && self.account().is_none_or(|a| a == owner.account())
    }
}

impl<'a> From<&'a Owner> for OwnerScope<'a> {
    fn from(owner: &'a Owner) -> Self {
        Self::Owner(owner)
    }
}

const MAX: usize = 200;
