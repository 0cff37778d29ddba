//! Sessions, and the identity of a request: a session or an API key.

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
        header::{SET_COOKIE, USER_AGENT},
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
    ApiError, Lumio, UNAVAILABLE,
    session_cookie::session_cookie,
    users::{Role, STEP_UP_MAX_AGE, StoredSession, User, UserData},
};

/// A second-factor step that this server has started and not yet finished.
pub enum PendingFactor {
    App(TotpSecret),
    Registration(Box<PasskeyRegistration>),
    Assertion(Box<PasskeyAuthentication>),
}

/// The pending step of each session.
#[derive(Clone, Default)]
pub struct PendingFactors(Arc<Mutex<HashMap<String, PendingFactor>>>);

impl PendingFactors {
    pub fn insert(&self, session: &Session, pending: PendingFactor) {
        self.all().insert(session.id.clone(), pending);
    }

    /// Removes and returns the pending step, so that it can be finished only once.
    pub fn take(&self, session: &Session) -> Option<PendingFactor> {
        self.all().remove(&session.id)
    }

    /// Returns the secret of a pending app setup. It stays pending until a code is right, because users mistype.
    pub fn new_app(&self, session: &Session) -> Option<TotpSecret> {
        match self.all().get(&session.id)? {
            PendingFactor::App(secret) => Some(secret.clone()),
            _ => None,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, PendingFactor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    email: String,
}

/// Creates an account with its own team.
pub async fn sign_up(
    State(lumio): State<Lumio>,
    Json(Address { email }): Json<Address>,
) -> Result<StatusCode, ApiError> {
    lumio.users.update(|data| data.create_user(&email, None, Role::Owner))
}

/// Creates a session. Simplified: a real service asks for a password or sends a link.
pub async fn sign_in(
    State(lumio): State<Lumio>,
    client: ClientInfo,
    Json(Address { email }): Json<Address>,
) -> Result<impl IntoResponse, ApiError> {
    let unknown = ApiError(StatusCode::UNAUTHORIZED, "no_account");
    let data = lumio.users.load()?;
    let (account, user) = data.account(&email).ok_or(unknown)?;
    let actor = client.apply_to(Actor::account(&user.email));
    lumio.keys.record_event(&owner(account), "session.created", Outcome::Success, &actor).await?;
    // As random as an API key, but with a prefix that no key has.
    let token =
        KeyFormat::builder("session").build().ok().and_then(|format| format.generate().ok());
    let token = token.ok_or(UNAVAILABLE)?;
    lumio.users.update(|data| {
        // If the account was deleted meanwhile, the session is useless.
        let session = StoredSession { account: account.clone(), confirmed_at: None };
        data.sessions.insert(hash(token.expose()), session);
        Ok(())
    })?;
    let cookie = format!("session={}; HttpOnly; SameSite=Strict; Path=/", token.expose());
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]))
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A fully authenticated session: if the user has a second factor, it was verified.
pub struct Session {
    id: String,
    pub user: User,
    pub owner: Owner,
    pub actor: Actor,
    confirmed_at: Option<Timestamp>,
}

/// A session whose second factor may not be verified yet. It only allows verifying or adding one.
pub struct PartialSession(pub Session);

impl FromRequestParts<Lumio> for PartialSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, ApiError> {
        // The caller is the key's owner, whatever the cookies say.
        if parts.extensions.get::<Verified>().is_some() {
            return Err(SIGN_IN);
        }
        let token = session_cookie(&parts.headers).ok_or(SIGN_IN)?;
        let (id, data) = (hash(token), lumio.users.load()?);
        let StoredSession { account, confirmed_at } = data.sessions.get(&id).ok_or(SIGN_IN)?;
        let user = data.users.get(account).ok_or(SIGN_IN)?.clone();
        let confirmed_at = confirmed_at.map(Timestamp::from_unix_micros);
        let mut actor = ClientInfo::from(&*parts).apply_to(Actor::account(&user.email));
        if let Some(at) = confirmed_at {
            actor = actor.second_factor_at(at);
        }
        Ok(Self(Session { id, owner: owner(account), user, actor, confirmed_at }))
    }
}

impl FromRequestParts<Lumio> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, ApiError> {
        let PartialSession(session) = PartialSession::from_request_parts(parts, lumio).await?;
        if session.user.has_second_factor() && session.confirmed_at.is_none() {
            return Err(ApiError(StatusCode::UNAUTHORIZED, "confirm_by_second_factor"));
        }
        Ok(session)
    }
}

impl Session {
    /// Returns the session's user, who may have been deleted meanwhile.
    pub fn current_user<'a>(&self, data: &'a mut UserData) -> Result<&'a mut User, ApiError> {
        data.users.get_mut(self.owner.account()).ok_or(SIGN_IN)
    }

    /// Records that the second factor was verified, and drops any pending step.
    pub fn confirm(&self, lumio: &Lumio, at: Timestamp) -> Result<StatusCode, ApiError> {
        lumio.pending.take(self);
        lumio.users.update(|data| {
            let session = data.sessions.get_mut(&self.id).ok_or(SIGN_IN)?;
            session.confirmed_at = Some(at.as_unix_micros());
            Ok(StatusCode::NO_CONTENT)
        })
    }

    /// Checks that the user may add a second factor. The first needs only a session. Each further one needs a
    /// recent verification of an existing factor, so that a stolen session cannot add one.
    pub fn check_can_add_factor(&self, lumio: &Lumio, me: &User) -> Result<(), ApiError> {
        if me.has_second_factor() && !self.is_fresh(lumio) {
            return Err(SECOND_FACTOR_REQUIRED);
        }
        Ok(())
    }

    /// Checks a change that lets someone do more, such as an invitation: if the team needs step-up, the second
    /// factor was verified recently.
    pub fn check_step_up(&self, lumio: &Lumio, data: &UserData) -> Result<(), ApiError> {
        if data.needs_step_up(self.owner.account()) && !self.is_fresh(lumio) {
            return Err(SECOND_FACTOR_REQUIRED);
        }
        Ok(())
    }

    fn is_fresh(&self, lumio: &Lumio) -> bool {
        self.confirmed_at.is_some_and(|at| lumio.clock.now().since(at) <= STEP_UP_MAX_AGE)
    }
}

impl From<Session> for Caller {
    fn from(Session { owner, actor, .. }: Session) -> Self {
        Self::new(owner, actor)
    }
}

/// The user of a request, authenticated by a key or a session.
pub struct Requester {
    pub owner: Owner,
    pub actor: Actor,
    pub user: User,
    key: Option<Verified>,
}

impl Requester {
    pub fn allows(&self, lumio: &Lumio, permission: &str) -> bool {
        match &self.key {
            Some(verified) => verified.allows(permission),
            None => lumio.users.allows(self.user.role, permission),
        }
    }
}

impl FromRequestParts<Lumio> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, lumio: &Lumio) -> Result<Self, ApiError> {
        let Some(verified) = parts.extensions.get::<Verified>().cloned() else {
            let Session { owner, actor, user, .. } =
                Session::from_request_parts(parts, lumio).await?;
            return Ok(Self { owner, actor, user, key: None });
        };
        let user = lumio.users.load()?.users.remove(verified.owner().account());
        let user = user.ok_or(SIGN_IN)?;
        let actor = ClientInfo::from(&*parts).apply_to(Actor::key(&verified));
        Ok(Self { owner: verified.owner().clone(), actor, user, key: Some(verified) })
    }
}

/// The IP address and user agent of a request.
pub struct ClientInfo {
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

impl ClientInfo {
    fn apply_to(self, mut actor: Actor) -> Actor {
        if let Some(ip) = self.ip {
            actor = actor.ip(ip);
        }
        match self.user_agent {
            Some(user_agent) => actor.user_agent(&user_agent),
            None => actor,
        }
    }
}

impl From<&Parts> for ClientInfo {
    fn from(parts: &Parts) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self { ip: peer.map(|peer| peer.0.ip()), user_agent: user_agent.map(Into::into) }
    }
}

impl<S: Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from(&*parts))
    }
}

/// Returns the key owner of an account.
pub fn owner(account: &str) -> Owner {
    Owner::account_only(account).expect("account ids are UUIDs")
}

pub const SECOND_FACTOR_REQUIRED: ApiError =
    ApiError(StatusCode::FORBIDDEN, "second_factor_required");
const SIGN_IN: ApiError = ApiError(StatusCode::UNAUTHORIZED, "sign_in");
