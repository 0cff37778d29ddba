//! actix-web: a middleware for `.wrap()`, and [`Verified`](crate::verify::Verified) as an extractor.
//!
//! # Examples
//! ```
//! use actix_web::{App, web};
//! use keyward::{Verified, actix::{ApiKeyAuth, MaybeVerified}, http::Guard};
//!
//! async fn builds(verified: Verified) -> String {
//!     format!("hello, {}", verified.owner().account())
//! }
//!
//! async fn front_page(MaybeVerified(visitor): MaybeVerified) -> String {
//!     visitor.map_or("hello".into(), |verified| format!("hello, {}", verified.owner().account()))
//! }
//!
//! # let keys = keyward::testing::TestKeys::new().keys;
//! let guard = Guard::builder(keys);
//! let app = App::new()
//!     .service(
//!         web::resource("/builds")
//!             .wrap(ApiKeyAuth::new(guard.clone().require("builds:read").build()?))
//!             .to(builds),
//!     )
//!     .service(web::resource("/").wrap(ApiKeyAuth::new(guard.optional().build()?)).to(front_page));
//! # Ok::<(), keyward::model::Invalid>(())
//! ```

#[cfg(feature = "leaks")]
pub mod leaks;
pub mod manage;
mod middleware;
mod response;

pub use middleware::{ApiKeyAuth, ApiKeyAuthService, MaybeVerified};
