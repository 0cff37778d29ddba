use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

/// What a verification has to know of the request that carried the secret.
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
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) scopes: &'a [&'a str],
    pub(crate) any_scope: &'a [&'a str],
    pub(crate) cost: u32,
    /// Where to note that memory alone did not answer.
    pub(crate) waited: Option<&'a AtomicBool>,
}

impl<'a> VerifyRequest<'a> {
    /// A request of which nothing is known: any tenant's key will do.
    pub fn new() -> Self {
        Self {
            tenant: None,
            ip: None,
            user_agent: None,
            scopes: &[],
            any_scope: &[],
            cost: 1,
            waited: None,
        }
    }

    /// The tenant that the request is addressed to; keys of others are refused. A host whose URLs
    /// or hosts name a tenant MUST pass it.
    pub fn tenant(mut self, tenant: &'a str) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The address of the client.
    pub fn ip(mut self, ip: IpAddr) -> Self {
        self.ip = Some(ip);
        self
    }

    /// The client's program; goes to the audit log with the first use and with refusals.
    pub fn user_agent(mut self, user_agent: &'a str) -> Self {
        self.user_agent = Some(user_agent);
        self
    }

    /// The scopes that the request needs, all of them.
    pub fn require(mut self, scopes: &'a [&'a str]) -> Self {
        self.scopes = scopes;
        self
    }

    /// Scopes of which the request needs one, whichever; without any, it needs none.
    pub fn require_any(mut self, scopes: &'a [&'a str]) -> Self {
        self.any_scope = scopes;
        self
    }

    /// How many uses the request counts as, against rates and quotas alike; one by default.
    ///
    /// All of them are let through, or none. Nothing at all is let through whatever the limits say,
    /// and spends nothing: for work whose cost is known only at its end, which
    /// [`reserve`](crate::api::ApiKeys::reserve)s its share of a quota. More than the burst of a rate, or
    /// than all of a quota, is never let through, and [`Limited`](crate::verify::limits::limited::Limited) says so by
    /// a `retry_after` of `None`.
    pub fn cost(mut self, uses: u32) -> Self {
        self.cost = uses;
        self
    }

    #[inline(always)]
    pub(crate) fn note_waiting(&self) {
        if let Some(waited) = self.waited {
            waited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether what `allows` tells of single scopes is enough.
    pub(crate) fn is_allowed(&self, allows: impl Fn(&str) -> bool) -> bool {
        let any = self.any_scope;
        self.scopes.iter().all(|scope| allows(scope))
            && (any.is_empty() || any.iter().any(|scope| allows(scope)))
    }
}

impl Default for VerifyRequest<'_> {
    fn default() -> Self {
        Self::new()
    }
}
