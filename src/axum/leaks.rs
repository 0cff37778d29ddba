//! The receiver of leaked keys as a route.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
    routing::{MethodRouter, post},
};

use crate::http::leaks::{Leaks, MAX_BODY, Report};

/// Receives reports by `POST`, under a path that nobody but GitHub needs to know.
///
/// # Examples
/// ```
/// use axum::Router;
/// use keyward::http::leaks::Leaks;
///
/// # fn app(leaks: Leaks) -> Router {
/// Router::new().route("/leaks/github", keyward::axum::leaks::route(leaks))
/// # }
/// ```
pub fn route<S: Clone + Send + Sync + 'static>(leaks: Leaks) -> MethodRouter<S> {
    post(move |request: Request| async move { receive(&leaks, request).await })
}

async fn receive(leaks: &Leaks, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return Leaks::too_large().map(Body::from);
    };
    let field = |name| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let report = Report::new(&body)
        .identifier(field("github-public-key-identifier"))
        .signature(field("github-public-key-signature"));
    leaks.receive(&report).await.map(Body::from)
}
