use std::{net::IpAddr, time::Duration};

use crate::model::limits::KeyLimits;
use crate::model::{
    access::{Access, Permissions},
    id::KeyId,
    key::Key,
    networks::Networks,
    owner::Owner,
    text::fitted,
    timestamp::Timestamp,
};

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
    key_id: Option<KeyId>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    second_factor_at: Option<Timestamp>,
    reach: Reach,
}

/// What an actor can hand out at most: a key is never wider than its maker, in anything.
#[derive(Clone, Debug)]
struct Reach {
    /// In which tenant; an account may be at home in several, a key is in one.
    tenant: Option<String>,
    permissions: Permissions,
    /// Whose permissions these are, if they follow that owner's: only for this owner can a key be
    /// made that inherits, too. Of anyone else it would one day inherit more.
    inherited_from: Option<Owner>,
    limits: KeyLimits,
    networks: Networks,
    ends_at: Option<Timestamp>,
}

impl Actor {
    /// A person or service that the host has authenticated. It may hand out what the key's owner
    /// may do, unless [`limited_to`](Actor::limited_to) less.
    pub fn account(label: &str) -> Self {
        Self {
            label: fitted(label, MAX_LABEL),
            key_id: None,
            ip: None,
            user_agent: None,
            second_factor_at: None,
            reach: Reach {
                tenant: None,
                permissions: Permissions::All,
                inherited_from: None,
                limits: KeyLimits::default(),
                networks: Networks::Any,
                ends_at: None,
            },
        }
    }

    /// The service itself: a janitor, a migration, a support tool.
    pub fn system(job: &str) -> Self {
        Self::account(&format!("system:{job}"))
    }

    /// The actor of a key that manages keys, with what the key may do itself.
    pub(crate) fn for_key(
        id: KeyId,
        owner: &Owner,
        inherits: bool,
        permissions: Permissions,
        limits: KeyLimits,
        networks: Networks,
        ends_at: Option<Timestamp>,
    ) -> Self {
        Self {
            key_id: Some(id),
            reach: Reach {
                tenant: Some(owner.tenant().into()),
                permissions,
                inherited_from: inherits.then(|| owner.clone()),
                limits,
                networks,
                ends_at,
            },
            ..Self::account(&format!("key:{id}"))
        }
    }

    /// It can issue and widen keys within these permissions only.
    pub fn limited_to(mut self, permissions: Permissions) -> Self {
        self.reach.permissions = self.reach.permissions.intersection(&permissions);
        self.reach.inherited_from = None;
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

    /// When a second factor of this person was last checked, as the host's session has it. Changes
    /// may demand that it is fresh: see [`StepUp`](crate::accounts::StepUp).
    ///
    /// It is compared with the clock of this [`ApiKeys`](crate::api::ApiKeys), which never goes back as long
    /// as the process lives. Up to five seconds in the future are taken for the present, since the
    /// clocks of two nodes differ; what lies further ahead was said by a clock that was wrong, and
    /// counts as no second factor at all.
    pub fn second_factor_at(mut self, checked: Timestamp) -> Self {
        self.second_factor_at = Some(checked);
        self
    }

    /// Who it is.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it can hand out this key, or what this key would become.
    pub(crate) fn may_hand_out(&self, key: &Key) -> bool {
        let Reach { tenant, permissions, inherited_from, limits, networks, ends_at } = &self.reach;
        let here = tenant.as_ref().is_none_or(|tenant| tenant == key.owner.tenant());
        let access = match (permissions, &key.access) {
            (Permissions::All, _) => true,
            (Permissions::Only(_), Access::Inherited) => {
                inherited_from.as_ref() == Some(&key.owner)
            }
            (some, Access::Only(scopes)) => some.covers(&Permissions::Only(scopes.clone())),
        };
        let lifetime = ends_at.is_none_or(|max| key.expires_at.is_some_and(|end| end <= max));
        here && access && lifetime && limits.cover(&key.limits) && networks.cover(&key.networks)
    }

    /// The key that acts, if one does.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.key_id
    }

    /// Whether a second factor was checked in the time before `now` that is so long.
    pub(crate) fn confirmed_within(&self, max_age: Duration, now: Timestamp) -> bool {
        self.second_factor_at
            .is_some_and(|at| at <= now.after(CLOCKS_DIFFER) && now.since(at) <= max_age)
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.ip
    }

    pub(crate) fn agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }
}

/// By how much those of two nodes may.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);
const MAX_LABEL: usize = 200;
pub(crate) const MAX_USER_AGENT: usize = 500;
