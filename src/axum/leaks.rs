//! The receiver of leaked keys as a route.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
    routing::{MethodRouter, post},
};

use crate::http::leaks::{LeakReceiver, MAX_BODY, LeakReport};

/// Receives reports by `POST`, under a path that nobody but GitHub needs to know.
///
/// # Examples
/// ```
/// use axum::Router;
/// use keyward::http::leaks::LeakReceiver;
///
/// # fn app(leaks: LeakReceiver) -> Router {
/// Router::new().route("/leaks/github", keyward::axum::leaks::route(leaks))
/// # }
/// ```
pub fn route<S: Clone + Send + Sync + 'static>(leaks: LeakReceiver) -> MethodRouter<S> {
    post(move |request: Request| async move { receive(&leaks, request).await })
}

async fn receive(leaks: &LeakReceiver, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return LeakReceiver::too_large().map(Body::from);
    };
    let field = |name| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let report = LeakReport::new(&body)
        .identifier(field("github-public-key-identifier"))
        .signature(field("github-public-key-signature"));
    leaks.receive(&report).await.map(Body::from)
}
