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
//! # Ok::<(), keyward::model::Invalid>(())
//! ```

use std::net::{IpAddr, SocketAddr};

use axum::{
    body::{Body, Bytes},
    extract::{
        ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequestParts,
        Request, rejection::BytesRejection,
    },
    response::{IntoResponse, Response},
};
use http::{Extensions, StatusCode, request::Parts};

use crate::{
    http::{
        Guard, Rejection,
        guard::{CheckedWithoutKey, unverified},
        responses::{malformed_body, too_large},
    },
    tower::ApiKeyLayer,
    verify::Verified,
};

/// Creates a layer that applies a [`Guard`] to a router or a route.
///
/// The peer's address is known if the router is served with `into_make_service_with_connect_info::<SocketAddr>()`.
pub fn layer(guard: Guard) -> ApiKeyLayer {
    ApiKeyLayer::new(guard).peer(peer)
}

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip())
}

/// Extracts the key that the layer verified. With an optional guard, use `Option<Verified>`. If the route has no layer, or
/// its guard is optional and the request has no key, the response is 500, and the log names the fix.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let verified = parts.extensions.get::<Self>().cloned();
        verified.ok_or_else(|| unverified(parts.extensions.get::<CheckedWithoutKey>().is_some()))
    }
}

/// Extracts `None` if an optional guard accepted a request without a key. Without the layer, the
/// response is 500: otherwise a forgotten layer would treat every request as anonymous.
impl<S: Sync> OptionalFromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        let without_key = || parts.extensions.get::<CheckedWithoutKey>().map(|_| None);
        let checked = parts.extensions.get().cloned().map(Some).or_else(without_key);
        checked.ok_or_else(|| unverified(false))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        Rejection::into_response(self)
    }
}

/// Reads the body of a request. Returns a response if the body is too large, incomplete or malformed.
async fn receive(request: Request, max_bytes: usize) -> Result<(Parts, Bytes), Response> {
    let (parts, body) = request.into_parts();
    let mut limited = Request::new(body);
    DefaultBodyLimit::max(max_bytes).apply(&mut limited);
    let failure = |rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(max_bytes).map(Body::from),
        _ => malformed_body().map(Body::from),
    };
    Ok((parts, Bytes::from_request(limited, &()).await.map_err(failure)?))
}

/// The management API as a router.
pub mod manage {
    use axum::{Router, routing::any};

    use super::{Body, FromRequestParts, Request, Response, receive};
    use crate::{
        http::{
            RequestHead,
            manage::{Caller, MAX_BODY, ManageRequest, ManagementApi, SignIn},
        },
        verify::Verified,
    };

    /// Creates a router with the routes of [`http::manage`](crate::http::manage), to be merged or
    /// nested: `Router::new().nest("/v1", router::<Session, _>(keys))`. Takes the keys, or a [`ManagementApi`] with
    /// [defaults for new keys](crate::http::manage::NewKeyDefaults).
    ///
    /// `C` is the host's own extractor, which authenticates the [`Caller`]. A request that it rejects
    /// is not processed. Without the type parameter, this does not compile:
    ///
    /// ```compile_fail
    /// # let keys = keyward::testing::TestKeys::new().keys;
    /// let app: axum::Router = keyward::axum::manage::router(keys);
    /// ```
    pub fn router<C, S>(api: impl Into<ManagementApi>) -> Router<S>
    where
        C: FromRequestParts<S> + Into<Caller> + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        let api: ManagementApi = api.into();
        let handler = async move |caller: C, request: Request| {
            let (parts, body) = receive(request, MAX_BODY).await?;
            let head = RequestHead::from_parts(&parts, None);
            let request = ManageRequest::received(&parts.method, &head, &body);
            let verified = parts.extensions.get::<Verified>();
            let response = api.handle_behind_guard(verified, &caller.into(), &request).await;
            Ok::<_, Response>(response.map(|body| match body.into_complete() {
                Ok(text) => Body::from(text),
                Err(rest) => Body::from_stream(rest.into_stream()),
            }))
        };
        let paths = [
            "/api-keys",
            "/api-keys/",
            "/api-keys/{*rest}",
            "/audit",
            "/audit.jsonl",
            "/audit.csv",
            "/introspect",
        ];
        let route = |router: Router<S>, path: &&str| router.route(path, any(handler.clone()));
        paths.iter().fold(Router::new(), route)
    }

    /// Creates a router with the routes of [`SignIn`], to be merged or nested. Serve it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, because limits are per network.
    pub fn sign_in<S: Clone + Send + Sync + 'static>(sign_in: SignIn) -> Router<S> {
        let handler = async move |request: Request| {
            let (parts, body) = receive(request, MAX_BODY).await?;
            let head = RequestHead::from_parts(&parts, super::peer(&parts.extensions));
            let request = ManageRequest::received(&parts.method, &head, &body);
            Ok::<_, Response>(sign_in.handle(&head, &request).await.map(Body::from))
        };
        ["/auth/otp", "/auth/otp/verify", "/auth/key"]
            .into_iter()
            .fold(Router::new(), |router, path| router.route(path, any(handler.clone())))
    }
}

/// The leak receiver as a route.
#[cfg(feature = "leaks")]
pub mod leaks {
    use axum::routing::{MethodRouter, post};

    use super::{Body, Request, Response, receive};
    use crate::http::leaks::{LeakReceiver, LeakReport, MAX_BODY};

    /// Creates a route that receives reports by `POST`. Only GitHub needs to know its path, such as `/leaks/github`.
    pub fn route<S: Clone + Send + Sync + 'static>(receiver: LeakReceiver) -> MethodRouter<S> {
        post(async move |request: Request| {
            let (parts, body) = receive(request, MAX_BODY).await?;
            let header = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
            let report = LeakReport::received(&body, header);
            Ok::<_, Response>(receiver.receive(&report).await.map(Body::from))
        })
    }
}

#[cfg(feature = "axum-openapi")]
pub mod openapi {
    //! Adds a guard to routes together with its OpenAPI description, so that they cannot disagree.
    //!
    //! # Examples
    //! ```
    //! use axum::{Json, Router, routing::get};
    //! use keyward::{Verified, axum::openapi::GuardedRoutes, http::Guard};
    //! use utoipa_axum::{router::OpenApiRouter, routes};
    //!
    //! #[utoipa::path(get, path = "/builds", responses((status = 200, body = Vec<String>)))]
    //! async fn builds(verified: Verified) -> Json<Vec<String>> {
    //!     Json(vec![verified.owner().account().into()])
    //! }
    //!
    //! # let keys = keyward::testing::TestKeys::new().keys;
    //! let guard = Guard::builder(keys).require("builds:read").build()?;
    //! let (app, document): (Router, _) =
    //!     OpenApiRouter::new().guarded_routes(&guard, routes!(builds)).split_for_parts();
    //! # Ok::<(), keyward::model::Invalid>(())
    //! ```

    use axum::extract::FromRequestParts;
    use utoipa::openapi::path::PathItem;
    use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

    use crate::http::{
        Guard,
        manage::{Caller, ManagementApi, SignIn},
        openapi::{CallerAuth, PROBLEM, document, problem, sign_in_document},
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
            schemas.push((PROBLEM.into(), problem().into()));
            let mut router =
                self.routes((schemas, paths, routes.layer(super::layer(guard.clone()))));
            let components = router.get_openapi_mut().components.get_or_insert_default();
            for (name, scheme) in guard.security_schemes() {
                components.add_security_scheme(name, scheme);
            }
            router
        }
    }

    /// Creates [`manage::router`](super::manage::router) with its document. Nesting it also nests the document.
    ///
    /// # Examples
    /// ```
    /// # use axum::extract::FromRequestParts;
    /// # use keyward::{ApiKeys, http::{manage::{Caller, SignIn}, openapi::CallerAuth}};
    /// use keyward::axum::openapi::{manage_router, sign_in_router};
    /// use utoipa_axum::router::OpenApiRouter;
    ///
    /// # fn app<Session>(keys: ApiKeys, callers: CallerAuth, sign_in: SignIn) -> OpenApiRouter
    /// # where Session: FromRequestParts<()> + Into<Caller> + Send + 'static {
    /// OpenApiRouter::new()
    ///     .nest("/v1", manage_router::<Session, _>(keys, &callers))
    ///     .merge(sign_in_router(sign_in))
    /// # }
    /// ```
    pub fn manage_router<C, S>(
        api: impl Into<ManagementApi>,
        callers: &CallerAuth,
    ) -> OpenApiRouter<S>
    where
        C: FromRequestParts<S> + Into<Caller> + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        let routes = super::manage::router::<C, S>(api);
        OpenApiRouter::with_openapi(document(callers)).merge(routes.into())
    }

    /// Creates [`manage::sign_in`](super::manage::sign_in) with its document, to be merged or nested.
    pub fn sign_in_router<S: Clone + Send + Sync + 'static>(sign_in: SignIn) -> OpenApiRouter<S> {
        let document = sign_in_document(&sign_in);
        OpenApiRouter::with_openapi(document).merge(super::manage::sign_in(sign_in).into())
    }
}
