//! The leak receiver as a route.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
    routing::{MethodRouter, post},
};

use crate::http::leaks::{LeakReceiver, LeakReport, MAX_BODY};

/// Creates a route that receives reports by `POST`. Only GitHub needs to know its path.
///
/// # Examples
/// ```
/// use axum::Router;
/// use keyward::http::leaks::LeakReceiver;
///
/// # fn app(receiver: LeakReceiver) -> Router {
/// Router::new().route("/leaks/github", keyward::axum::leaks::route(receiver))
/// # }
/// ```
pub fn route<S: Clone + Send + Sync + 'static>(receiver: LeakReceiver) -> MethodRouter<S> {
    post(move |request: Request| async move { receive(&receiver, request).await })
}

async fn receive(receiver: &LeakReceiver, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return LeakReceiver::too_large().map(Body::from);
    };
    let header = |name| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let report = LeakReport::new(&body)
        .identifier(header("github-public-key-identifier"))
        .signature(header("github-public-key-signature"));
    receiver.receive(&report).await.map(Body::from)
}
