//! A tower layer for services that take an [`http::Request`]: hyper, axum, tonic.
//!
//! The layer verifies the key of each request and puts [`Verified`](crate::verify::Verified) into
//! the extensions, or responds itself. A layer inside another layer with the same
//! [`ApiKeys`](crate::api::ApiKeys) does not verify the key again. It only checks its own tenant and
//! scopes, so that a request counts once against rates and quotas.
//!
//! # Examples
//! ```
//! use keyward::{http::Guard, tower::ApiKeyLayer};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! async fn builds(request: http::Request<String>) -> Result<http::Response<String>, std::io::Error> {
//!     let verified = request.extensions().get::<keyward::Verified>().unwrap();
//!     Ok(http::Response::new(format!("hello, {}", verified.owner().account())))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let test = keyward::testing::TestKeys::new();
//! # let (keys, issued) = (test.keys.clone(), test.issue(["builds:read"]).await);
//! let guard = Guard::builder(keys).require("builds:read").build()?;
//! let service = ApiKeyLayer::new(guard).layer(service_fn(builds));
//!
//! let request = http::Request::builder().header("x-api-key", issued.secret.expose());
//! let response = service.clone().oneshot(request.body(String::new())?).await?;
//! assert_eq!(response.into_body(), "hello, account");
//!
//! let response = service.oneshot(http::Request::new(String::new())).await?;
//! assert_eq!(response.status(), 401);
//! # Ok(()) }
//! ```

mod api_key;

pub use api_key::{
    ApiKeyLayer, ApiKeyService, ResponseFuture, UnlessVerified, UnlessVerifiedLayer,
};
