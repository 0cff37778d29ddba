//! The management API as a router.

use std::net::SocketAddr;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, FromRequestParts, Request},
    response::Response,
    routing::any,
};
use http::{header::CONTENT_TYPE, request::Parts};

use super::streamed;
use crate::{
    api::ApiKeys,
    http::{
        Incoming,
        manage::{Call, Caller, MAX_BODY, Manage, SignIn},
    },
};

/// The routes of [`http::manage`](crate::http::manage), to be merged or nested.
///
/// `C` is the host's own extractor of who is calling: a session, a key with a scope for that. What
/// it rejects is never looked at. Without one it does not compile:
///
/// ```compile_fail
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let app: axum::Router = keyward::axum::manage::router(keys);
/// ```
///
/// # Examples
/// ```
/// use axum::{Router, extract::FromRequestParts, http::{StatusCode, request::Parts}};
/// use keyward::{Actor, Owner, http::manage::Caller};
///
/// /// OwnerScope session it is.
/// struct Session { account: String }
///
/// impl<S: Sync> FromRequestParts<S> for Session {
///     type Rejection = StatusCode;
///
///     async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
///         // Look the cookie up in the host's own sessions.
///         # let _ = parts;
///         Err(StatusCode::UNAUTHORIZED)
///     }
/// }
///
/// impl From<Session> for Caller {
///     fn from(session: Session) -> Self {
///         let owner = Owner::account_only(&session.account).expect("sessions have accounts");
///         Caller::new(owner, Actor::account(&session.account))
///     }
/// }
///
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let app: Router = Router::new().nest("/v1", keyward::axum::manage::router::<Session, _>(keys));
/// ```
pub fn router<C, S>(keys: ApiKeys) -> Router<S>
where
    C: FromRequestParts<S> + Into<Caller> + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let manage = Manage::new(keys);
    let handler = move |caller: C, request: Request| {
        let manage = manage.clone();
        async move { answer(&manage, &caller.into(), request).await }
    };
    ["/api-keys", "/api-keys/{*rest}", "/audit", "/audit.jsonl", "/audit.csv", "/introspect"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
}

/// The routes by which people sign in who have no session, to be merged or nested: see
/// [`SignIn`].
///
/// Serve them by `into_make_service_with_connect_info::<SocketAddr>()`: limits are per network.
///
/// # Examples
/// ```
/// # fn example(enrollment: keyward::enroll::Enrollment) {
/// use axum::Router;
/// use keyward::http::manage::SignIn;
///
/// let app: Router = Router::new().merge(keyward::axum::manage::sign_in(SignIn::new(enrollment)));
/// # }
/// ```
pub fn sign_in<S: Clone + Send + Sync + 'static>(sign_in: SignIn) -> Router<S> {
    let handler = move |request: Request| {
        let sign_in = sign_in.clone();
        async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = to_bytes(body, MAX_BODY).await else {
                return SignIn::too_large().map(Body::from);
            };
            let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            let call = call(&parts, &body);
            let answer = {
                let incoming = Incoming::of(&parts, peer.map(|peer| peer.0.ip()));
                sign_in.answer(&incoming, &call)
            };
            answer.await.map(Body::from)
        }
    };
    ["/auth/otp", "/auth/otp/verify", "/auth/key"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
}

async fn answer(manage: &Manage, caller: &Caller, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return Manage::too_large().map(Body::from);
    };
    manage.answer(caller, &call(&parts, &body)).await.map(streamed::body)
}

fn call<'a>(parts: &'a Parts, body: &'a [u8]) -> Call<'a> {
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let call = Call::new(&parts.method, parts.uri.path())
        .query(parts.uri.query().unwrap_or_default())
        .body(content_type, body);
    match parts.headers.get("idempotency-key") {
        Some(value) => call.idempotency_key(value.as_bytes()),
        None => call,
    }
}
