use std::sync::Arc;

use crate::model::text::{Invalid, checked_text};

/// The owner of a key: a tenant and an account of this tenant, both identified by the host's own strings.
///
/// They SHOULD be ids that the host never reuses, not names or addresses. If an owner's id is reused,
/// the new owner can read the previous owner's audit log, and a key that was being issued while all
/// others were revoked becomes usable again.
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Tenant and account in one allocation, because a node caches many owners. Neither contains a NUL, so comparing
    /// the text compares the pair.
    text: Arc<str>,
    tenant_len: u32,
}

impl Owner {
    /// Returns the owner for an account of a tenant.
    ///
    /// # Errors
    /// If one of them is empty, longer than 200 characters, or contains a NUL character.
    pub fn new(tenant: &str, account: &str) -> Result<Self, Invalid> {
        let tenant = checked_text("tenant", tenant, MAX_OWNER_PART_LEN)?;
        Ok(Self::from_checked(tenant, checked_text("account", account, MAX_OWNER_PART_LEN)?))
    }

    /// Returns the owner for an account of a host without tenants. Its tenant is the empty string.
    ///
    /// # Errors
    /// If `account` is empty, longer than 200 characters, or contains a NUL character.
    pub fn account_only(account: &str) -> Result<Self, Invalid> {
        Ok(Self::from_checked("", checked_text("account", account, MAX_OWNER_PART_LEN)?))
    }

    fn from_checked(tenant: &str, account: &str) -> Self {
        Self { text: [tenant, "\0", account].concat().into(), tenant_len: tenant.len() as u32 }
    }

    /// Returns the tenant; empty if the host has no tenants.
    pub fn tenant(&self) -> &str {
        &self.text[..self.tenant_len as usize]
    }

    /// Returns the account within the tenant.
    pub fn account(&self) -> &str {
        &self.text[self.tenant_len as usize + 1..]
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner")
            .field("tenant", &self.tenant())
            .field("account", &self.account())
            .finish()
    }
}

/// The keys that a call may access: those of an owner or of a whole tenant.
///
/// Every read and write is limited to a scope. A key outside it is reported as *not found*.
///
/// Exhaustive on purpose: a store must handle every case.
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
    /// The keys of all owners of a tenant, for its administrators.
    Tenant(&'a str),
}

impl<'a> OwnerScope<'a> {
    /// Returns the tenant.
    pub fn tenant(&self) -> &'a str {
        match self {
            Self::Owner(owner) => owner.tenant(),
            Self::Tenant(tenant) => tenant,
        }
    }

    /// Returns the account, if the scope is a single owner's.
    pub fn account(&self) -> Option<&'a str> {
        match self {
            Self::Owner(owner) => Some(owner.account()),
            Self::Tenant(_) => None,
        }
    }

    /// Whether the scope includes an owner's keys.
    pub fn includes(&self, owner: &Owner) -> bool {
        self.tenant() == owner.tenant() && self.account().is_none_or(|a| a == owner.account())
    }
}

impl<'a> From<&'a Owner> for OwnerScope<'a> {
    fn from(owner: &'a Owner) -> Self {
        Self::Owner(owner)
    }
}

const MAX_OWNER_PART_LEN: usize = 200;
