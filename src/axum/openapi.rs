//! Routes together with their OpenAPI descriptions.
//!
//! A guard and its description are added in one step, so that they cannot disagree.
//!
//! # Examples
//! ```
//! use axum::{Json, Router, routing::get};
//! use keyward::{Verified, axum::openapi::GuardedRoutes, http::Guard};
//! use utoipa_axum::{router::OpenApiRouter, routes};
//!
//! /// Lists the builds of the owner of the key.
//! #[utoipa::path(get, path = "/builds", responses((status = 200, body = Vec<String>)))]
//! async fn builds(verified: Verified) -> Json<Vec<String>> {
//!     Json(vec![verified.owner().account().into()])
//! }
//!
//! # let keys = keyward::testing::TestKeys::new().keys;
//! let guard = Guard::builder(keys).require("builds:read").build()?;
//! let (app, document): (Router, _) =
//!     OpenApiRouter::new().guarded_routes(&guard, routes!(builds)).split_for_parts();
//!
//! let builds = document.paths.get_path_item("/builds").and_then(|path| path.get.as_ref()).unwrap();
//! assert!(builds.security.is_some() && builds.responses.responses.contains_key("403"));
//! # Ok::<(), keyward::model::Invalid>(())
//! ```

use axum::{Router, extract::FromRequestParts};
use utoipa::openapi::path::PathItem;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::{
    api::ApiKeys,
    http::{
        Guard,
        manage::{Caller, SignIn},
        openapi::{CallerAuth, document, problem_schema, sign_in_document},
    },
};

/// Adds routes behind a [`Guard`] to a router.
pub trait GuardedRoutes<S> {
    /// Adds routes behind the guard, and describes in the document what the guard requires and
    /// returns. Methods of the same path can have different guards.
    #[must_use]
    fn guarded_routes(self, guard: &Guard, routes: UtoipaMethodRouter<S>) -> Self;
}

impl<S: Clone + Send + Sync + 'static> GuardedRoutes<S> for OpenApiRouter<S> {
    fn guarded_routes(
        self,
        guard: &Guard,
        (mut schemas, mut paths, routes): UtoipaMethodRouter<S>,
    ) -> Self {
        let operations = paths.paths.values_mut().flat_map(|path| {
            let PathItem { get, put, post, delete, options, head, patch, trace, .. } = path;
            [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
        });
        operations.for_each(|operation| guard.describe(operation));
        schemas.push(problem_schema());
        let mut router = self.routes((schemas, paths, routes.layer(super::layer(guard.clone()))));
        let components = router.get_openapi_mut().components.get_or_insert_default();
        for (name, scheme) in guard.security_schemes() {
            components.add_security_scheme(name, scheme);
        }
        router
    }
}

/// Creates the router of [`manage::router`](super::manage::router) with its document. Nesting it also
/// nests the document.
///
/// # Examples
/// ```
/// # use axum::extract::FromRequestParts;
/// # use keyward::{ApiKeys, http::manage::Caller};
/// use keyward::http::openapi::CallerAuth;
/// use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
/// use utoipa_axum::router::OpenApiRouter;
///
/// # fn app<Session: FromRequestParts<()> + Into<Caller> + Send + 'static>(keys: ApiKeys) {
/// let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session")));
/// let callers = CallerAuth::scheme("session", cookie);
/// let api = keyward::axum::openapi::manage_router::<Session, _>(keys, &callers);
/// let app: OpenApiRouter = OpenApiRouter::new().nest("/v1", api);
/// assert!(app.get_openapi().paths.get_path_item("/v1/api-keys").is_some());
/// # }
/// ```
pub fn manage_router<C, S>(keys: ApiKeys, callers: &CallerAuth) -> OpenApiRouter<S>
where
    C: FromRequestParts<S> + Into<Caller> + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let described = OpenApiRouter::with_openapi(document(callers));
    let routes: Router<S> = super::manage::router::<C, S>(keys);
    described.merge(OpenApiRouter::from(routes))
}

/// Creates the router of [`manage::sign_in`](super::manage::sign_in) with its document, to be merged or
/// nested.
///
/// # Examples
/// ```
/// # fn example(sign_in: keyward::http::manage::SignIn) {
/// use keyward::axum::openapi::sign_in_router;
/// use utoipa_axum::router::OpenApiRouter;
///
/// let app: OpenApiRouter = OpenApiRouter::new().merge(sign_in_router(sign_in));
/// assert!(app.get_openapi().paths.get_path_item("/auth/otp").is_some());
/// # }
/// ```
pub fn sign_in_router<S: Clone + Send + Sync + 'static>(sign_in: SignIn) -> OpenApiRouter<S> {
    let described = OpenApiRouter::with_openapi(sign_in_document(&sign_in));
    let routes: Router<S> = super::manage::sign_in(sign_in);
    described.merge(OpenApiRouter::from(routes))
}
