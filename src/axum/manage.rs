//! The management API as a router.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, FromRequestParts, Request},
    routing::any,
};
use http::request::Parts;
use http_body::Frame;

use crate::{
    api::ApiKeys,
    error::Error,
    http::{
        RequestHead,
        manage::{BodyStream, Caller, MAX_BODY, ManageRequest, ManagementApi, SignIn, too_large},
    },
};

/// Creates a router with the routes of [`http::manage`](crate::http::manage), to be merged or nested.
///
/// `C` is the host's own extractor, which authenticates the caller: by a session, or by a key with a
/// scope for managing keys. A request that it rejects is not processed. The type parameter is
/// required; this does not compile:
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
/// /// The session of the caller.
/// struct Session { account: String }
///
/// impl<S: Sync> FromRequestParts<S> for Session {
///     type Rejection = StatusCode;
///
///     async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
///         // Look up the cookie in the host's own sessions.
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
    let api = ManagementApi::new(keys);
    let handler = async move |caller: C, request: Request| {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, MAX_BODY).await else { return too_large().map(Body::from) };
        let response = api.handle(&caller.into(), &manage_request(&parts, &body)).await;
        response.map(|body| match body.into_complete() {
            Ok(text) => Body::from(text),
            Err(chunks) => Body::new(BodyStream::new(chunks)),
        })
    };
    ["/api-keys", "/api-keys/{*rest}", "/audit", "/audit.jsonl", "/audit.csv", "/introspect"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
}

/// Creates a router with the routes of [`SignIn`], to be merged or nested.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, because limits are per
/// network.
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
    let handler = async move |request: Request| {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, MAX_BODY).await else { return too_large().map(Body::from) };
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let request = manage_request(&parts, &body);
        let response = {
            let head = RequestHead::from_parts(&parts, peer.map(|peer| peer.0.ip()));
            sign_in.handle(&head, &request)
        };
        response.await.map(Body::from)
    };
    ["/auth/otp", "/auth/otp/verify", "/auth/key"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
}

fn manage_request<'a>(parts: &'a Parts, body: &'a [u8]) -> ManageRequest<'a> {
    let query = parts.uri.query().unwrap_or_default();
    ManageRequest::received(&parts.method, parts.uri.path(), query, body, |name| {
        parts.headers.get(name).map(|value| value.as_bytes())
    })
}

impl http_body::Body for BodyStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_chunk(cx).map_ok(|chunk| Frame::data(chunk.into()))
    }
}
