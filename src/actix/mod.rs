//! actix-web: one `.wrap()`, and [`Verified`](crate::verify::Verified) as an extractor.
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
//! let guard = Guard::new(keys);
//! let app = App::new()
//!     .service(
//!         web::resource("/builds")
//!             .wrap(ApiKeyAuth::new(guard.clone().require("builds:read")))
//!             .to(builds),
//!     )
//!     .service(web::resource("/").wrap(ApiKeyAuth::new(guard.optional())).to(front_page));
//! ```

mod extract;
#[cfg(feature = "leaks")]
pub mod leaks;
pub mod manage;
mod middleware;
mod respond;
mod streamed;

pub use extract::MaybeVerified;
pub use middleware::{ApiKeyAuth, ApiKeyAuthService};
