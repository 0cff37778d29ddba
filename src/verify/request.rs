use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

/// What verification needs to know of the request that carried the secret.
///
/// # Examples
/// ```
/// use keyward::VerifyRequest;
///
/// let request = VerifyRequest::new()
///     .tenant("acme")
///     .ip("192.0.2.7".parse().unwrap())
///     .require(&["builds:read"]);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct VerifyRequest<'a> {
    pub(crate) tenant: Option<&'a str>,
    pub(crate) ip: Option<IpAddr>,
    /// Whether the networks that a key is restricted to do not matter: for introspection without an address.
    pub(crate) any_network: bool,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) scopes: &'a [&'a str],
    pub(crate) any_scope: &'a [&'a str],
    pub(crate) cost: u32,
    /// Set if the cache could not answer alone.
    pub(crate) cache_missed: Option<&'a AtomicBool>,
}

impl<'a> VerifyRequest<'a> {
    /// Creates a request without requirements: a live key of any tenant is accepted.
    pub fn new() -> Self {
        Self {
            tenant: None,
            ip: None,
            any_network: false,
            user_agent: None,
            scopes: &[],
            any_scope: &[],
            cost: 1,
            cache_missed: None,
        }
    }

    /// Sets the tenant that the request is addressed to. Keys of other tenants are denied.
    ///
    /// A host whose paths or host names contain a tenant MUST pass it.
    pub fn tenant(self, tenant: &'a str) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Sets the address of the client. A key that is restricted to networks is denied without it.
    pub fn ip(self, ip: IpAddr) -> Self {
        Self { ip: Some(ip), ..self }
    }

    /// Sets the client's program. It is written to the audit log with the first use and with denials.
    pub fn user_agent(self, user_agent: &'a str) -> Self {
        Self { user_agent: Some(user_agent), ..self }
    }

    /// Sets the scopes that the request needs; the key must have all of them. A second call replaces the first.
    pub fn require(self, scopes: &'a [&'a str]) -> Self {
        Self { scopes, ..self }
    }

    /// Sets alternative scopes; the key must have at least one of them. An empty list requires none. A second call replaces
    /// the first.
    pub fn require_any(self, scopes: &'a [&'a str]) -> Self {
        Self { any_scope: scopes, ..self }
    }

    /// Sets how many uses the request counts as, against rates and quotas. Defaults to 1.
    ///
    /// Either all of the uses are charged, or the request is limited and none is. A cost of 0 is never limited and
    /// charges nothing: for work whose cost is known only at its end, and which [`reserve`](crate::ApiKeys::reserve)s a
    /// share of a quota instead. A cost above the burst of a rate, or above a whole quota, is always limited, with a
    /// [`retry_after`](field@crate::verify::Limited::retry_after) of `None`.
    pub fn cost(self, uses: u32) -> Self {
        Self { cost: uses, ..self }
    }

    #[inline(always)]
    pub(crate) fn note_cache_miss(&self) {
        if let Some(missed) = self.cache_missed {
            missed.store(true, Ordering::Relaxed);
        }
    }
}

impl Default for VerifyRequest<'_> {
    fn default() -> Self {
        Self::new()
    }
}
