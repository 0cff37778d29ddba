//! Tenants, their limits, and the sessions of their administrators.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Path},
    http::{StatusCode, header::USER_AGENT, request::Parts},
};
use keyward::async_trait;
use keyward::{
    Account, Accounts, Actor, Limits, Owner,
    accounts::AccountsError,
    http::manage::Caller,
    model::{Permissions, Rate},
};

use crate::{App, session_cookie::session_cookie};

/// The scopes that keys can have.
const SCOPES: [&str; 6] =
    ["users:read", "users:write", "roles:read", "roles:write", "clients:read", "clients:register"];

/// The product's tenants. A real service queries its database.
#[derive(Clone)]
pub struct Tenants(Arc<HashMap<&'static str, Tenant>>);

struct Tenant {
    administrators: &'static [&'static str],
    max_keys: u32,
}

impl Tenants {
    pub fn example() -> Self {
        let acme = Tenant { administrators: &["ada", "alan"], max_keys: 10 };
        let globex = Tenant { administrators: &["gus"], max_keys: 5 };
        Self(Arc::new(HashMap::from([("acme", acme), ("globex", globex)])))
    }

    pub fn contains(&self, slug: &str) -> bool {
        self.0.contains_key(slug)
    }

    /// Returns the owner of a tenant's keys. This is the tenant, so that keys outlive the administrator's account.
    fn owner(&self, slug: &str, administrator: &str) -> Option<Owner> {
        let known = self.0.get(slug)?.administrators.contains(&administrator);
        Owner::new(slug, slug).ok().filter(|_| known)
    }
}

#[async_trait]
impl Accounts for Tenants {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
        let tenant = self.0.get(owner.tenant());
        let limits = Limits::default()
            .max_active_keys(tenant.map_or(0, |tenant| tenant.max_keys))
            .rate_per_key(Rate::per_minute(600));
        let account = Account::new(Permissions::only(SCOPES)?, limits);
        Ok(Arc::new(account.suspended(tenant.is_none())))
    }
}

/// The session of an administrator, valid in the portal of one tenant: `session=ada@acme`. Simplified: a real service
/// looks up a random token in its session store.
pub struct Session {
    owner: Owner,
    actor: Actor,
}

impl FromRequestParts<App> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, app).await;
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let session = session_cookie(&parts.headers);
        let (name, slug) =
            session.and_then(|session| session.split_once('@')).ok_or(StatusCode::UNAUTHORIZED)?;
        let same_tenant = path
            .is_ok_and(|Path(path)| path.get("tenantSlug").is_some_and(|tenant| tenant == slug));
        let owner = app.tenants.owner(slug, name).filter(|_| same_tenant);
        let mut actor = Actor::account(name);
        if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            actor = actor.ip(peer.ip());
        }
        if let Some(user_agent) = text(USER_AGENT) {
            actor = actor.user_agent(user_agent);
        }
        Ok(Self { owner: owner.ok_or(StatusCode::UNAUTHORIZED)?, actor })
    }
}

impl From<Session> for Caller {
    fn from(Session { owner, actor }: Session) -> Self {
        Self::new(owner, actor).administrator()
    }
}
