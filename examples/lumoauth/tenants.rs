//! Who the tenants are, what they pay for, and whose browser it is.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use axum::{
    extract::{ConnectInfo, FromRequestParts, Path},
    http::{
        StatusCode,
        header::{COOKIE, USER_AGENT},
        request::Parts,
    },
};
use keyward::{
    Account, Accounts, Actor, Limits, Owner,
    accounts::AccountsError,
    http::manage::Caller,
    model::{Permissions, Rate},
};

use crate::App;

/// What the keys of a tenant may do.
const SCOPES: [&str; 6] =
    ["users:read", "users:write", "roles:read", "roles:write", "clients:read", "clients:register"];

/// The product's tenants. A real service looks them up in its own table.
#[derive(Clone)]
pub struct Tenants(Arc<HashMap<&'static str, Tenant>>);

struct Tenant {
    administrators: &'static [&'static str],
    most_keys: u32,
}

impl Tenants {
    pub fn of_the_example() -> Self {
        let acme = Tenant { administrators: &["ada", "alan"], most_keys: 10 };
        let globex = Tenant { administrators: &["gus"], most_keys: 5 };
        Self(Arc::new(HashMap::from([("acme", acme), ("globex", globex)])))
    }

    pub fn has(&self, slug: &str) -> bool {
        self.0.contains_key(slug)
    }

    /// To whom the keys of a tenant belong: to itself, so that they outlive who made them.
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
            .max_active_keys(tenant.map_or(0, |it| it.most_keys))
            .rate_per_key(Rate::per_minute(600));
        let account = Account::new(Permissions::only(SCOPES)?, limits);
        Ok(Arc::new(account.suspended(tenant.is_none())))
    }
}

/// The session of an administrator, in the portal of the one tenant that it is for: `session=ada@acme`. A
/// stand-in: a real service looks a random token up in its own sessions.
pub struct Session {
    owner: Owner,
    actor: Actor,
}

impl FromRequestParts<App> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, app).await;
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut cookies = text(COOKIE).unwrap_or_default().split("; ");
        let session = cookies.find_map(|cookie| cookie.strip_prefix("session="));
        let (name, slug) =
            session.and_then(|session| session.split_once('@')).ok_or(StatusCode::UNAUTHORIZED)?;
        let here = path.is_ok_and(|Path(path)| path.get("tenantSlug").is_some_and(|it| it == slug));
        let owner = app.tenants.owner(slug, name).filter(|_| here);
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
