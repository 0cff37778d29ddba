//! axum: a layer for its routers, and [`Verified`](crate::verify::Verified) as an extractor.
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
//! let guard = Guard::new(keys);
//! let reads = keyward::axum::layer(guard.clone().require("builds:read"));
//! let anyone = keyward::axum::layer(guard.optional());
//! let app: Router = Router::new()
//!     .route("/builds", get(builds).layer(reads))
//!     .route("/", get(front_page).layer(anyone));
//! // Serve it by `into_make_service_with_connect_info::<SocketAddr>()`: only then the layer knows
//! // the address of the peer.
//! ```

mod extract;
#[cfg(feature = "leaks")]
pub mod leaks;
pub mod manage;
#[cfg(feature = "axum-openapi")]
pub mod openapi;
mod streamed;

use std::net::SocketAddr;

use axum::extract::ConnectInfo;

use crate::{http::Guard, tower::ApiKeyLayer};

/// Puts a [`Guard`] in front of the routes of a router, or of one route.
///
/// It knows the address of the peer if the router is served by
/// `into_make_service_with_connect_info::<SocketAddr>()`.
pub fn layer(guard: Guard) -> ApiKeyLayer {
    ApiKeyLayer::new(guard)
        .peer(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()))
}
