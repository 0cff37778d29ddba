//! actix-web: a middleware for `.wrap()`, and [`Verified`] as an extractor.
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

use std::{
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    error::PayloadError,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue},
    },
};

use crate::{
    http::{
        Guard, Rejection, RequestHead,
        guard::{CheckedWithoutKey, OuterCheck, Precheck, unverified},
        rate_limit_headers,
        request::Headers,
        responses::{malformed_body, too_large},
    },
    verify::Verified,
};

/// Applies a [`Guard`] to an app, a scope or a resource.
///
/// A middleware inside another one with the same [`ApiKeys`](crate::api::ApiKeys) does not verify the key again. It
/// only checks its own tenant and scopes, so that a request counts once against rates and quotas. Put middleware that
/// logs headers inside this one: it marks the header with the secret as sensitive.
#[derive(Clone, Debug)]
#[must_use]
pub struct ApiKeyAuth {
    guard: Arc<Guard>,
}

/// A service behind a [`Guard`]; created by [`ApiKeyAuth`].
#[derive(Debug)]
pub struct ApiKeyAuthService<S> {
    inner: Rc<S>,
    guard: Arc<Guard>,
}

impl ApiKeyAuth {
    /// Creates a middleware that applies the guard.
    pub fn new(guard: Guard) -> Self {
        Self { guard: Arc::new(guard) }
    }
}

impl<S, B> Transform<S, ServiceRequest> for ApiKeyAuth
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = ApiKeyAuthService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let (inner, guard) = (Rc::new(service), self.guard.clone());
        ready(Ok(ApiKeyAuthService { inner, guard }))
    }
}

impl<S, B> Service<ServiceRequest> for ApiKeyAuthService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    forward_ready!(inner);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let (guard, inner) = (self.guard.clone(), self.inner.clone());
        request.headers_mut().retain(|name, value| {
            if guard.credentials.header_names().any(|sensitive| sensitive.as_str() == name.as_str())
            {
                value.set_sensitive(true);
            }
            true
        });
        let precheck = {
            let extensions = request.extensions();
            guard.precheck(&request_head(request.request()), extensions.get::<OuterCheck>())
        };
        Box::pin(async move {
            let result = match precheck {
                Precheck::Rejected(rejection) => Err(rejection),
                Precheck::AlreadyVerified => Ok(None),
                Precheck::NoKey => {
                    request.extensions_mut().insert(CheckedWithoutKey);
                    Ok(None)
                }
                Precheck::Presented(presented) => guard.verify(presented).await.map(Some),
            };
            let verified = match result {
                Ok(verified) => verified,
                Err(rejection) => {
                    let response = rejection.error_response();
                    return Ok(request.into_response(response).map_into_right_body());
                }
            };
            if let Some(verified) = &verified {
                request.extensions_mut().insert(guard.outer_check(verified));
                request.extensions_mut().insert(verified.clone());
            }
            let mut response = inner.call(request).await?.map_into_left_body();
            if let Some(verified) = &verified {
                let headers = response.headers_mut();
                insert_headers(headers, rate_limit_headers(verified));
                if !headers.contains_key(CACHE_CONTROL) {
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                }
            }
            Ok(response)
        })
    }
}

/// Extracts the key that the middleware verified. With an optional guard, use [`MaybeVerified`]. If the route has no
/// middleware, or its guard is optional and the request has no key, the response is 500, and the log names the fix.
impl FromRequest for Verified {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        let verified = extensions.get::<Self>().cloned();
        ready(verified.ok_or_else(|| unverified(extensions.get::<CheckedWithoutKey>().is_some())))
    }
}

/// Extracts the verified key, or `None` if an optional guard accepted a request without a key.
///
/// Use this instead of `Option<Verified>`: actix-web turns every extraction error into `None`, so a
/// forgotten middleware would look like a request without a key.
#[derive(Clone, Debug)]
pub struct MaybeVerified(
    /// The verified key, if the request presented one.
    pub Option<Verified>,
);

impl FromRequest for MaybeVerified {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        let without_key = || extensions.get::<CheckedWithoutKey>().map(|_| None);
        let checked = extensions.get().cloned().map(Some).or_else(without_key);
        ready(checked.map(Self).ok_or_else(|| unverified(false)))
    }
}

fn request_head(request: &HttpRequest) -> RequestHead<'_> {
    let query = Some(request.query_string()).filter(|query| !query.is_empty());
    let peer = request.peer_addr().map(|peer| peer.ip());
    RequestHead::new(request.headers(), request.path(), query, peer)
}

impl Headers for HeaderMap {
    fn each_value<'a>(&'a self, name: &http::HeaderName, visit: &mut dyn FnMut(&'a [u8])) {
        // Both crates store header names in lower case.
        if let Ok(name) = HeaderName::from_lowercase(name.as_str().as_bytes()) {
            self.get_all(name).for_each(|value| visit(value.as_bytes()));
        }
    }
}

/// Converts a response to the types of actix-web, which uses `http` 0.2. The bytes sent are the same.
fn into_actix_response(response: http::Response<impl MessageBody + 'static>) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let mut response = HttpResponse::build(actix_status(parts.status)).body(body);
    insert_headers(response.headers_mut(), &parts.headers);
    response
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        actix_status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        into_actix_response(self.clone().into_response::<String>())
    }
}

/// Returns the response to a body that cannot be read: too large, incomplete or malformed.
fn unreadable_body(error: &Error, max_bytes: usize) -> http::Response<String> {
    match error.as_error() {
        Some(PayloadError::Overflow) => too_large(max_bytes),
        _ => malformed_body(),
    }
}

fn actix_status(status: http::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn insert_headers<N: AsRef<str>, V: AsRef<[u8]>>(
    headers: &mut HeaderMap,
    more: impl IntoIterator<Item = (N, V)>,
) {
    for (name, value) in more {
        let name = HeaderName::from_bytes(name.as_ref().as_bytes());
        let value = HeaderValue::from_bytes(value.as_ref());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
}

/// The management API as routes.
pub mod manage {
    use std::future::{Ready, ready};

    use actix_web::{
        Error, FromRequest, HttpMessage, HttpRequest, HttpResponse, Resource,
        body::{BodyStream, BoxBody},
        dev::Payload,
        error::ErrorNotFound,
        guard::{GuardContext, fn_guard},
        http::StatusCode,
        web::{self, Bytes, PayloadConfig, ServiceConfig},
    };
    use futures_util::TryStreamExt as _;

    use super::{into_actix_response, request_head, unreadable_body};
    use crate::{
        http::{
            RequestHead,
            manage::{Caller, MAX_BODY, ManageBody, ManageRequest, ManagementApi, SignIn},
        },
        verify::Verified,
    };

    /// Adds the routes of [`http::manage`](crate::http::manage) to an app or a scope, by `configure`. Takes the keys, or a
    /// [`ManagementApi`] with [defaults for new keys](crate::http::manage::NewKeyDefaults).
    ///
    /// `C` is the host's own extractor, which authenticates the [`Caller`]. A request that it rejects is
    /// not processed. Without the type parameter, this does not compile:
    ///
    /// ```compile_fail
    /// # let keys = keyward::testing::TestKeys::new().keys;
    /// let app = actix_web::App::new().configure(keyward::actix::manage::routes(keys));
    /// ```
    ///
    /// # Examples
    /// ```
    /// # use actix_web::{App, FromRequest, web};
    /// # use keyward::{ApiKeys, http::manage::Caller};
    /// # fn app<Session: FromRequest + Into<Caller> + 'static>(keys: ApiKeys) {
    /// let api = web::scope("/v1").configure(keyward::actix::manage::routes::<Session>(keys));
    /// let app = App::new().service(api);
    /// # }
    /// ```
    pub fn routes<C>(api: impl Into<ManagementApi>) -> impl FnOnce(&mut ServiceConfig)
    where
        C: FromRequest + Into<Caller> + 'static,
    {
        let api: ManagementApi = api.into();
        let handler = move |_: PlainMount, caller: C, request: HttpRequest, body: Received| {
            let api = api.clone();
            async move {
                let (caller, verified) = (caller.into(), request.extensions().get().cloned());
                let verified: Option<Verified> = verified;
                receive(&request, body, async |_, received| {
                    api.handle_behind_guard(verified.as_ref(), &caller, received).await
                })
                .await
            }
        };
        move |config| {
            for path in ["api-keys", "api-keys/", "audit", "audit.jsonl", "audit.csv", "introspect"]
            {
                config.service(resource(path).to(handler.clone()));
            }
        }
    }

    /// Adds the routes of [`SignIn`] to an app or a scope, by `configure`.
    pub fn sign_in(sign_in: SignIn) -> impl FnOnce(&mut ServiceConfig) {
        let handler = move |_: PlainMount, request: HttpRequest, body: Received| {
            let sign_in = sign_in.clone();
            async move {
                receive(&request, body, async |head, received| {
                    sign_in.handle(head, received).await.map(ManageBody::from)
                })
                .await
            }
        };
        move |config| {
            for path in ["auth/otp", "auth/otp/verify", "auth/key"] {
                config.service(resource(path).to(handler.clone()));
            }
        }
    }

    /// Creates a resource for a path, or for every path that begins with it if it ends with a slash. Its last parameter is
    /// the path below the mount.
    ///
    /// actix-web decodes a path before it matches it, and axum does not: a path whose names are percent-encoded is not
    /// found in either.
    fn resource(path: &'static str) -> Resource {
        let names = format!("/{path}");
        let pattern = path.replace('.', r"\.") + if path.ends_with('/') { ".*" } else { "" };
        let is_plain = move |context: &GuardContext<'_>| {
            let sent = context.head().uri.path();
            if path.ends_with('/') { sent.contains(&names) } else { sent.ends_with(&names) }
        };
        web::resource(format!("/{{path:{pattern}}}"))
            .guard(fn_guard(is_plain))
            .app_data(PayloadConfig::new(MAX_BODY))
    }

    type Received = Result<Bytes, Error>;

    /// Extracted from a request that does not percent-encode the names of the scopes around the routes. Other requests
    /// are not found, as in axum.
    struct PlainMount;

    impl FromRequest for PlainMount {
        type Error = Error;
        type Future = Ready<Result<Self, Error>>;

        fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
            let pattern = request.match_pattern().unwrap_or_default();
            let mount = pattern.rsplit_once("/{path:").map_or("", |(mount, _)| mount);
            let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let mut segments = mount.split('/').zip(request.path().split('/'));
            let is_encoded =
                segments.any(|(name, sent)| sent.contains('%') && name.bytes().all(is_unreserved));
            ready(if is_encoded { Err(ErrorNotFound("")) } else { Ok(Self) })
        }
    }

    async fn receive(
        request: &HttpRequest,
        body: Received,
        respond: impl AsyncFnOnce(&RequestHead<'_>, &ManageRequest<'_>) -> http::Response<ManageBody>,
    ) -> HttpResponse {
        let body = match body {
            Ok(body) => body,
            Err(error) => return into_actix_response(unreadable_body(&error, MAX_BODY)),
        };
        let Ok(method) = http::Method::from_bytes(request.method().as_str().as_bytes()) else {
            return HttpResponse::new(StatusCode::METHOD_NOT_ALLOWED);
        };
        let mut head = request_head(request);
        head.path = sent_path(request).unwrap_or_default();
        let request = ManageRequest::received(&method, &head, &body);
        into_actix_response(respond(&head, &request).await.map(|body| match body.into_complete() {
            Ok(text) => BoxBody::new(text),
            Err(rest) => BoxBody::new(BodyStream::new(rest.into_stream().map_ok(Bytes::from))),
        }))
    }

    /// Returns the path below the mount, as it was sent. actix-web matches it after decoding, but never decodes `%2F`, so
    /// both have the same number of segments.
    fn sent_path(request: &HttpRequest) -> Option<&str> {
        let (_, decoded) = request.match_info().iter().last()?;
        let (start, _) = request.path().rmatch_indices('/').nth(decoded.matches('/').count())?;
        Some(&request.path()[start + 1..])
    }
}

/// The leak receiver as a resource.
#[cfg(feature = "leaks")]
pub mod leaks {
    use actix_web::{
        Error, HttpRequest, Resource,
        web::{self, Bytes, PayloadConfig},
    };

    use super::{into_actix_response, unreadable_body};
    use crate::http::leaks::{LeakReceiver, LeakReport, MAX_BODY};

    /// Creates a resource that receives reports by `POST`. Only GitHub needs to know its path, such as `/leaks/github`.
    pub fn resource(path: &str, receiver: LeakReceiver) -> Resource {
        let handler = move |request: HttpRequest, body: Result<Bytes, Error>| {
            let receiver = receiver.clone();
            async move {
                let body = match body {
                    Ok(body) => body,
                    Err(error) => return into_actix_response(unreadable_body(&error, MAX_BODY)),
                };
                let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
                let report = LeakReport::received(&body, header);
                into_actix_response(receiver.receive(&report).await)
            }
        };
        web::resource(path).app_data(PayloadConfig::new(MAX_BODY)).route(web::post().to(handler))
    }
}
