use std::net::IpAddr;

use super::{Permissions, Verified, text::fitted};

/// Who does a thing, from where and with what: goes to the audit log with every change.
///
/// # Examples
/// ```
/// use keyward::Actor;
///
/// let actor = Actor::account("ada@example.com")
///     .ip("192.0.2.7".parse().unwrap())
///     .user_agent("curl/8.5");
/// assert_eq!(actor.label(), "ada@example.com");
/// ```
#[derive(Clone, Debug)]
#[must_use = "an actor does nothing by itself: pass it to the call that it makes"]
pub struct Actor {
    label: String,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    permissions: Permissions,
}

impl Actor {
    /// A person or service that the host has authenticated. It may hand out what the key's owner
    /// may do, unless [`limited_to`](Actor::limited_to) less.
    pub fn account(label: &str) -> Self {
        Self {
            label: fitted(label, MAX_LABEL),
            ip: None,
            user_agent: None,
            permissions: Permissions::All,
        }
    }

    /// The service itself: a janitor, a migration, a support tool.
    pub fn system(job: &str) -> Self {
        Self::account(&format!("system:{job}"))
    }

    /// A key that manages keys. It can hand out no more than it may do itself.
    pub fn key(verified: &Verified) -> Self {
        Self::account(&format!("key:{}", verified.key_id())).limited_to(verified.permissions())
    }

    /// It can issue and widen keys within these permissions only.
    pub fn limited_to(mut self, permissions: Permissions) -> Self {
        self.permissions = self.permissions.intersection(&permissions);
        self
    }

    /// From which address it acts.
    pub fn ip(mut self, ip: IpAddr) -> Self {
        self.ip = Some(ip.to_canonical());
        self
    }

    /// With which program it acts; cut to 500 characters.
    pub fn user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = Some(fitted(user_agent, MAX_USER_AGENT));
        self
    }

    /// Who it is.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What it can hand out at most.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.ip
    }

    pub(crate) fn agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }
}

const MAX_LABEL: usize = 200;
pub(crate) const MAX_USER_AGENT: usize = 500;
