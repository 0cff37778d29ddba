//! Who has signed in, in which browser, and who else is calling.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use keyward::{
    Actor, KeyFormat, Owner, Timestamp, Verified, audit::Outcome, http::manage::Caller,
    totp::TotpSecret,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use webauthn_rs::prelude::{PasskeyAuthentication, PasskeyRegistration};

use super::{
    Lumio, Refused, UNAVAILABLE,
    people::{Everyone, FRESH, Person, Role, SignedIn},
};

/// What was begun with a second factor, and is to be finished on this server.
pub enum Pending {
    App(TotpSecret),
    Registration(Box<PasskeyRegistration>),
    Assertion(Box<PasskeyAuthentication>),
}

/// One for each session.
#[derive(Clone, Default)]
pub struct Begun(Arc<Mutex<HashMap<String, Pending>>>);

impl Begun {
    pub fn begin(&self, session: &Session, pending: Pending) {
        self.all().insert(session.id.clone(), pending);
    }

    /// What was begun; it can be finished once.
    pub fn take(&self, session: &Session) -> Option<Pending> {
        self.all().remove(&session.id)
    }

    /// The app that was begun with. People mistype codes, so it stays until one is right.
    pub fn new_app(&self, session: &Session) -> Option<TotpSecret> {
        match self.all().get(&session.id)? {
            Pending::App(secret) => Some(secret.clone()),
            _ => None,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    lumio.people.change(|everyone| everyone.admit(&email, None, Role::Owner))
}

/// A stand-in: a real service asks for a password first, or sends a link.
pub async fn sign_in(
    State(lumio): State<Lumio>,
    origin: Origin,
    Json(Address { email }): Json<Address>,
) -> Result<impl IntoResponse, Refused> {
    let nobody = Refused(StatusCode::UNAUTHORIZED, "no_account");
    let everyone = lumio.people.everyone()?;
    let (account, person) = everyone.account(&email).ok_or(nobody)?;
    let actor = origin.of(Actor::account(&person.email));
    lumio.keys.record_event(&owner(account), "session.created", Outcome::Success, &actor).await?;
    // As random as a key, and never taken for one.
    let token = KeyFormat::builder("session").build().ok().and_then(|form| form.generate().ok());
    let token = token.ok_or(UNAVAILABLE)?;
    lumio.people.change(|everyone| {
        // Good for nothing if the account is gone by now.
        let session = SignedIn { account: account.clone(), confirmed_at: None };
        everyone.sessions.insert(hash(token.expose()), session);
        Ok(())
    })?;
    let cookie = format!("session={}; HttpOnly; SameSite=Strict; Path=/", token.expose());
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]))
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whose browser it is. Who has a second factor has confirmed by it.
pub struct Session {
    id: String,
    pub person: Person,
    pub owner: Owner,
    pub actor: Actor,
    confirmed_at: Option<Timestamp>,
}

/// The same, but perhaps without the second factor: good for confirming by it, and for nothing else.
pub struct Half(pub Session);

impl FromRequestParts<Lumio> for Half {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, Refused> {
        let cookie = parts.headers.get(COOKIE).and_then(|value| value.to_str().ok());
        let mut cookies = cookie.into_iter().flat_map(|cookies| cookies.split("; "));
        let token = cookies.find_map(|cookie| cookie.strip_prefix("session="));
        let (id, everyone) = (hash(token.ok_or(SIGN_IN)?), lumio.people.everyone()?);
        let SignedIn { account, confirmed_at } = everyone.sessions.get(&id).ok_or(SIGN_IN)?;
        let person = everyone.people.get(account).ok_or(SIGN_IN)?.clone();
        let confirmed_at = confirmed_at.map(Timestamp::from_unix_micros);
        let mut actor = Origin::from(&*parts).of(Actor::account(&person.email));
        if let Some(at) = confirmed_at {
            actor = actor.second_factor_at(at);
        }
        Ok(Self(Session { id, owner: owner(account), person, actor, confirmed_at }))
    }
}

impl FromRequestParts<Lumio> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, Refused> {
        let Half(session) = Half::from_request_parts(parts, lumio).await?;
        if session.person.has_a_factor() && session.confirmed_at.is_none() {
            return Err(Refused(StatusCode::UNAUTHORIZED, "confirm_by_second_factor"));
        }
        Ok(session)
    }
}

impl Session {
    /// The person, who may be gone by now.
    pub fn me<'a>(&self, everyone: &'a mut Everyone) -> Result<&'a mut Person, Refused> {
        everyone.people.get_mut(self.owner.account()).ok_or(SIGN_IN)
    }

    /// The second factor is there, and nothing is pending any more.
    pub fn confirm(&self, lumio: &Lumio, at: Timestamp) -> Result<StatusCode, Refused> {
        lumio.begun.take(self);
        lumio.people.change(|everyone| {
            let session = everyone.sessions.get_mut(&self.id).ok_or(SIGN_IN)?;
            session.confirmed_at = Some(at.as_unix_micros());
            Ok(StatusCode::NO_CONTENT)
        })
    }

    /// The first factor is anyone's who has signed in; each further one takes a fresh one of those that
    /// there are, else it would be the thief's.
    pub fn may_add_a_factor(&self, lumio: &Lumio, me: &Person) -> Result<(), Refused> {
        let fresh = |at| lumio.clock.now().since(at) <= FRESH;
        if me.has_a_factor() && !self.confirmed_at.is_some_and(fresh) {
            return Err(Refused(StatusCode::FORBIDDEN, "second_factor_required"));
        }
        Ok(())
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
        let person = lumio.people.everyone()?.people.remove(verified.owner().account());
        let person = person.ok_or(SIGN_IN)?;
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

/// An account as an owner of keys.
pub fn owner(account: &str) -> Owner {
    Owner::account_only(account).expect("accounts are made by `admit`, and are short")
}

const SIGN_IN: Refused = Refused(StatusCode::UNAUTHORIZED, "sign_in");
