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

pub mod manage;
mod middleware;

pub use middleware::{ApiKeyAuth, ApiKeyAuthService, MaybeVerified};

/// The leak receiver as a resource.
#[cfg(feature = "leaks")]
pub mod leaks {
    use actix_web::{
        Error, HttpRequest, Resource,
        web::{self, Bytes, PayloadConfig},
    };

    use super::middleware::into_actix_response;
    use crate::http::leaks::{LeakReceiver, LeakReport, MAX_BODY};

    /// Creates a resource that receives reports by `POST`. Only GitHub needs to know its path.
    ///
    /// # Examples
    /// ```
    /// use actix_web::App;
    /// # fn mount(receiver: keyward::http::leaks::LeakReceiver) {
    /// let app = App::new().service(keyward::actix::leaks::resource("/leaks/github", receiver));
    /// # }
    /// ```
    pub fn resource(path: &str, receiver: LeakReceiver) -> Resource {
        let handler = move |request: HttpRequest, body: Result<Bytes, Error>| {
            let receiver = receiver.clone();
            async move {
                let Ok(body) = body else { return into_actix_response(LeakReceiver::too_large()) };
                let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
                let report = LeakReport::received(&body, header);
                into_actix_response(receiver.receive(&report).await)
            }
        };
        web::resource(path).app_data(PayloadConfig::new(MAX_BODY)).route(web::post().to(handler))
    }
}
