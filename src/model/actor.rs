use std::{net::IpAddr, time::Duration};

use crate::model::{
    access::{Access, Networks, Permissions},
    bounds::{MAX_ACTOR_CHARS, MAX_USER_AGENT_CHARS},
    key::{Key, KeyId, Owner},
    limits::KeyLimits,
    text::truncated,
    timestamp::Timestamp,
};

/// The person, service or key that performs an action. Every change is written to the audit log with its actor.
///
/// # Examples
/// ```
/// use keyward::Actor;
///
/// let actor = Actor::account("ada@example.com").ip("192.0.2.7".parse().unwrap());
/// assert_eq!(actor.label(), "ada@example.com");
/// ```
#[derive(Clone, Debug)]
#[must_use = "an actor does nothing until it is passed to a call"]
pub struct Actor {
    label: String,
    /// The key, if the actor is a key.
    pub(crate) key_id: Option<KeyId>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) user_agent: Option<String>,
    second_factor_at: Option<Timestamp>,
    pub(crate) grantable: Grantable,
}

/// The maximum that an actor can grant to a key that it creates or changes.
#[derive(Clone, Debug)]
pub(crate) struct Grantable {
    /// `None` if the actor may act in several tenants.
    pub(crate) tenant: Option<String>,
    pub(crate) permissions: Permissions,
    /// The owner from which the actor inherits its permissions. Only a key of this owner may have
    /// [`Access::Inherited`]: the permissions of another owner could later grow beyond the actor's.
    pub(crate) inherited_from: Option<Owner>,
    pub(crate) limits: KeyLimits,
    pub(crate) networks: Networks,
    pub(crate) expires_at: Option<Timestamp>,
}

impl Actor {
    /// Returns a person or service that the host has authenticated.
    ///
    /// It can grant all permissions of a key's owner, unless they are reduced by
    /// [`limited_to`](Actor::limited_to). `label` is truncated to 200 characters.
    pub fn account(label: &str) -> Self {
        Self {
            label: truncated(label, MAX_ACTOR_CHARS),
            key_id: None,
            ip: None,
            user_agent: None,
            second_factor_at: None,
            grantable: Grantable {
                tenant: None,
                permissions: Permissions::All,
                inherited_from: None,
                limits: KeyLimits::default(),
                networks: Networks::Any,
                expires_at: None,
            },
        }
    }

    /// Returns the service itself, such as a janitor, a migration or a support tool.
    pub fn system(job: &str) -> Self {
        Self::account(&format!("system:{job}"))
    }

    /// Reduces the permissions that the actor can grant to those that are also in `permissions`.
    pub fn limited_to(mut self, permissions: Permissions) -> Self {
        self.grantable.permissions = self.grantable.permissions.intersection(&permissions);
        self.grantable.inherited_from = None;
        self
    }

    /// Sets the IP address. An IPv4-mapped IPv6 address is converted to IPv4.
    pub fn ip(self, ip: IpAddr) -> Self {
        Self { ip: Some(ip.to_canonical()), ..self }
    }

    /// Sets the user agent, truncated to 500 characters.
    pub fn user_agent(self, user_agent: &str) -> Self {
        Self { user_agent: Some(truncated(user_agent, MAX_USER_AGENT_CHARS)), ..self }
    }

    /// Sets when a second factor of this person was last verified, according to the host's session.
    ///
    /// Sensitive changes may require a recent one: see [`StepUp`](crate::accounts::StepUp). The instant is
    /// compared with the clock of [`ApiKeys`](crate::api::ApiKeys). Up to 5 seconds in the future is accepted,
    /// because the clocks of two nodes may differ; a later instant is treated as no second factor.
    pub fn second_factor_at(self, checked: Timestamp) -> Self {
        Self { second_factor_at: Some(checked), ..self }
    }

    /// Returns the label: the account, `system:` and a job, or `key:` and a key id.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether the actor can create this key, or change a key to this state.
    pub(crate) fn can_grant(&self, key: &Key) -> bool {
        let Grantable { tenant, permissions, inherited_from, limits, networks, expires_at } =
            &self.grantable;
        let same_tenant = tenant.as_ref().is_none_or(|tenant| tenant == key.owner.tenant());
        let access = permissions.covers(&key.access.within(&Permissions::All))
            || key.access == Access::Inherited && inherited_from.as_ref() == Some(&key.owner);
        let lifetime = expires_at.is_none_or(|max| key.expires_at.is_some_and(|end| end <= max));
        same_tenant
            && access
            && lifetime
            && limits.covers(&key.limits)
            && networks.covers(&key.networks)
    }

    /// Whether a second factor was verified at most `max_age` before `now`.
    pub(crate) fn confirmed_within(&self, max_age: Duration, now: Timestamp) -> bool {
        self.second_factor_at
            .is_some_and(|at| at <= now.after(MAX_CLOCK_SKEW) && now.since(at) <= max_age)
    }
}

/// The largest accepted difference between the clocks of two nodes.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);
