//! axum: a layer for routers, and [`Verified`] as an extractor.
//!
//! # Examples
//! ```
//! use axum::{Router, routing::get};
//! use keyward::{Verified, http::Guard};
//!
//! async fn builds(verified: Verified) -> String {
//!     format!("hello, {}", verified.owner().account())
//! }
//!
//! async fn front_page(visitor: Option<Verified>) -> String {
//!     visitor.map_or("hello".into(), |verified| format!("hello, {}", verified.owner().account()))
//! }
//!
//! # let keys = keyward::testing::TestKeys::new().keys;
//! let guard = Guard::builder(keys);
//! let reads = keyward::axum::layer(guard.clone().require("builds:read").build()?);
//! let anyone = keyward::axum::layer(guard.optional().build()?);
//! let app: Router = Router::new()
//!     .route("/builds", get(builds).layer(reads))
//!     .route("/", get(front_page).layer(anyone));
//! // Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that the layer knows
//! // the address of the peer.
//! # Ok::<(), keyward::model::Invalid>(())
//! ```

pub mod manage;
#[cfg(feature = "axum-openapi")]
pub mod openapi;

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    http::{ErrorCode, Guard, Rejection, guard::CheckedWithoutKey},
    tower::ApiKeyLayer,
    verify::Verified,
};

/// Creates a layer that applies a [`Guard`] to a router or a route.
///
/// The layer knows the address of the peer if the router is served with
/// `into_make_service_with_connect_info::<SocketAddr>()`.
pub fn layer(guard: Guard) -> ApiKeyLayer {
    ApiKeyLayer::new(guard)
        .peer(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()))
}

/// Extracts the key that the layer verified. Without the layer, the response is 500 and names the
/// fix. With an optional guard, use `Option<Verified>`.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let verified = parts.extensions.get::<Self>().cloned();
        verified.ok_or_else(|| Rejection::new(ErrorCode::MissingLayer))
    }
}

/// Extracts `None` if an optional guard accepted a request without a key. Without the layer, the
/// response is 500: otherwise a forgotten layer would treat every request as anonymous.
impl<S: Sync> OptionalFromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        let verified = parts.extensions.get::<Self>().cloned();
        if verified.is_none() && parts.extensions.get::<CheckedWithoutKey>().is_none() {
            return Err(Rejection::new(ErrorCode::MissingLayer));
        }
        Ok(verified)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        Rejection::into_response(self)
    }
}

/// The leak receiver as a route.
#[cfg(feature = "leaks")]
pub mod leaks {
    use axum::{
        body::{Body, to_bytes},
        extract::Request,
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
        post(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let Ok(body) = to_bytes(body, MAX_BODY).await else {
                return LeakReceiver::too_large().map(Body::from);
            };
            let header = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
            receiver.receive(&LeakReport::received(&body, header)).await.map(Body::from)
        })
    }
}
