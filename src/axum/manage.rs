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
use http_body::Frame;

use crate::{
    api::ApiKeys,
    error::Error,
    http::{
        RequestHead,
        manage::{BodyStream, Caller, MAX_BODY, ManageRequest, ManagementApi, SignIn, too_large},
    },
};

/// Creates a router with the routes of [`http::manage`](crate::http::manage), to be merged or
/// nested: `Router::new().nest("/v1", router::<Session, _>(keys))`.
///
/// `C` is the host's own extractor, which authenticates the caller: by a session, or by a key with a
/// scope for managing keys. [`Caller`] shows how to convert it. A request that it rejects is not
/// processed. Without the type parameter, this does not compile:
///
/// ```compile_fail
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let app: axum::Router = keyward::axum::manage::router(keys);
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
        let request = {
            let head = RequestHead::from_parts(&parts, None);
            ManageRequest::received(&parts.method, &head, &body)
        };
        let response = api.handle(&caller.into(), &request).await;
        response.map(|body| body.into_complete().map_or_else(Body::new, Body::from))
    };
    ["/api-keys", "/api-keys/{*rest}", "/audit", "/audit.jsonl", "/audit.csv", "/introspect"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
}

/// Creates a router with the routes of [`SignIn`], to be merged or nested.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, because limits are per
/// network.
pub fn sign_in<S: Clone + Send + Sync + 'static>(sign_in: SignIn) -> Router<S> {
    let handler = async move |request: Request| {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, MAX_BODY).await else { return too_large().map(Body::from) };
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let request;
        let response = {
            let head = RequestHead::from_parts(&parts, peer.map(|peer| peer.0.ip()));
            request = ManageRequest::received(&parts.method, &head, &body);
            sign_in.handle(&head, &request)
        };
        response.await.map(Body::from)
    };
    ["/auth/otp", "/auth/otp/verify", "/auth/key"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
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
