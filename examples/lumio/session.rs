//! Who has signed in, in which browser, and who else is calling.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{
        StatusCode,
        header::{COOKIE, SET_COOKIE, USER_AGENT},
        request::Parts,
    },
    response::IntoResponse,
};
use keyward::{Actor, KeyFormat, Owner, Verified, audit::Outcome, http::manage::Caller};
use serde::Deserialize;

use super::{
    Lumio, Refused, UNAVAILABLE,
    people::{Person, Role},
};

/// Sessions by the token in the browser's cookie.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, String>>>);

impl Sessions {
    fn begin(&self, email: &str) -> Option<String> {
        // As random as a key, and never taken for one.
        let token = KeyFormat::builder("session").build().ok()?.generate().ok()?;
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(token.expose().into(), email.into());
        Some(token.expose().into())
    }

    fn of(&self, token: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    email: String,
}

/// A new account, which is a team of its own.
pub async fn sign_up(
    State(lumio): State<Lumio>,
    Json(Address { email }): Json<Address>,
) -> Result<StatusCode, Refused> {
    owner(&email)?;
    lumio.people.change(|everyone| {
        if everyone.contains_key(&email) {
            return Err(Refused(StatusCode::CONFLICT, "has_an_account"));
        }
        everyone.insert(email.clone(), Person { team: email, role: Role::Owner });
        Ok(StatusCode::CREATED)
    })
}

/// A stand-in: a real service asks for a password first, or sends a link.
pub async fn sign_in(
    State(lumio): State<Lumio>,
    origin: Origin,
    Json(Address { email }): Json<Address>,
) -> Result<impl IntoResponse, Refused> {
    let everyone = lumio.people.everyone()?;
    if !everyone.contains_key(&email) {
        return Err(Refused(StatusCode::UNAUTHORIZED, "no_account"));
    }
    let actor = origin.of(Actor::account(&email));
    lumio.keys.note(&owner(&email)?, "session.created", Outcome::Success, &actor).await?;
    let token = lumio.sessions.begin(&email).ok_or(UNAVAILABLE)?;
    let cookie = format!("session={token}; HttpOnly; SameSite=Strict; Path=/");
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]))
}

/// Whose browser it is.
pub struct Session {
    pub email: String,
    pub person: Person,
    pub owner: Owner,
    pub actor: Actor,
}

impl FromRequestParts<Lumio> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, Refused> {
        let cookie = parts.headers.get(COOKIE).and_then(|value| value.to_str().ok());
        let token = cookie.and_then(|cookie| cookie.strip_prefix("session="));
        let email = token.and_then(|token| lumio.sessions.of(token));
        let email = email.ok_or(Refused(StatusCode::UNAUTHORIZED, "sign_in"))?;
        let person = lumio.people.everyone()?.remove(&email);
        // Who was removed from the team has no session either.
        let person = person.ok_or(Refused(StatusCode::UNAUTHORIZED, "sign_in"))?;
        let actor = Origin::from(&*parts).of(Actor::account(&email));
        Ok(Self { owner: owner(&email)?, email, person, actor })
    }
}

impl From<Session> for Caller {
    fn from(Session { owner, actor, .. }: Session) -> Self {
        Self::new(owner, actor)
    }
}

/// Whoever is calling, by a key or a session.
pub struct Someone {
    pub owner: Owner,
    pub actor: Actor,
    pub person: Person,
    key: Option<Verified>,
}

impl Someone {
    pub fn may(&self, lumio: &Lumio, power: &str) -> bool {
        match &self.key {
            Some(verified) => verified.allows(power),
            None => lumio.people.may(self.person.role, power),
        }
    }
}

impl FromRequestParts<Lumio> for Someone {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, Refused> {
        let Some(verified) = parts.extensions.get::<Verified>().cloned() else {
            let Session { owner, actor, person, .. } =
                Session::from_request_parts(parts, lumio).await?;
            return Ok(Self { owner, actor, person, key: None });
        };
        let person = lumio.people.everyone()?.remove(verified.owner().account());
        let person = person.ok_or(Refused(StatusCode::UNAUTHORIZED, "sign_in"))?;
        let actor = Origin::from(&*parts).of(Actor::key(&verified));
        Ok(Self { owner: verified.owner().clone(), actor, person, key: Some(verified) })
    }
}

/// From where a request comes, and with which program.
pub struct Origin {
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

impl Origin {
    fn of(self, mut actor: Actor) -> Actor {
        if let Some(ip) = self.ip {
            actor = actor.ip(ip);
        }
        match self.user_agent {
            Some(user_agent) => actor.user_agent(&user_agent),
            None => actor,
        }
    }
}

impl From<&Parts> for Origin {
    fn from(parts: &Parts) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self { ip: peer.map(|peer| peer.0.ip()), user_agent: user_agent.map(Into::into) }
    }
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from(&*parts))
    }
}

/// An address as an owner of keys.
pub fn owner(email: &str) -> Result<Owner, Refused> {
    let owner = Owner::account_only(email).ok().filter(|_| email.contains('@'));
    owner.ok_or(Refused(StatusCode::UNPROCESSABLE_ENTITY, "no_address"))
}
