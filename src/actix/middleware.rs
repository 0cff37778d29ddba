use std::{
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform},
    http::header::{HeaderMap, HeaderName},
};

use super::response::add_verified_headers;
use crate::{
    http::{
        ErrorCode, Guard, Rejection, RequestHead,
        guard::{CheckedWithoutKey, OuterCheck, Precheck},
        request::Headers,
    },
    verify::Verified,
};

/// Applies a [`Guard`] to an app, a scope or a resource.
///
/// A middleware inside another one with the same [`ApiKeys`](crate::api::ApiKeys) does not verify the
/// key again. It only checks its own tenant and scopes, so that a request counts once against rates
/// and quotas. Put middleware that logs headers inside this one: it marks the header with the secret
/// as sensitive.
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

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let (guard, inner) = (self.guard.clone(), self.inner.clone());
        request.headers_mut().retain(|name, value| {
            if guard.sensitive_headers().any(|sensitive| sensitive.as_str() == name.as_str()) {
                value.set_sensitive(true);
            }
            true
        });
        let precheck = precheck(&guard, &request);
        Box::pin(async move {
            let rejection = match precheck {
                Precheck::Rejected(rejection) => rejection,
                Precheck::AlreadyVerified => {
                    return Ok(inner.call(request).await?.map_into_left_body());
                }
                Precheck::NoKey => {
                    request.extensions_mut().insert(CheckedWithoutKey);
                    return Ok(inner.call(request).await?.map_into_left_body());
                }
                Precheck::Presented(presented) => match guard.verify(presented).await {
                    Err(rejection) => rejection,
                    Ok(verified) => {
                        request.extensions_mut().insert(guard.outer_check(&verified));
                        request.extensions_mut().insert(verified.clone());
                        let mut response = inner.call(request).await?.map_into_left_body();
                        add_verified_headers(response.headers_mut(), &verified);
                        return Ok(response);
                    }
                },
            };
            Ok(request.into_response(rejection.error_response()).map_into_right_body())
        })
    }
}

/// Extracts the key that the middleware verified. Without the middleware, the response is 500 and
/// names the fix. With an optional guard, use [`MaybeVerified`].
impl FromRequest for Verified {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let verified = request.extensions().get::<Self>().cloned();
        ready(verified.ok_or_else(|| Rejection::new(ErrorCode::MissingLayer)))
    }
}

/// Extracts the verified key, or `None` if an optional guard accepted a request without a key.
///
/// Use this instead of `Option<Verified>`: actix-web turns every extraction error into `None`, also
/// the error about a forgotten middleware.
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
        let verified = extensions.get::<Verified>().cloned();
        let checked = verified.is_some() || extensions.get::<CheckedWithoutKey>().is_some();
        ready(if checked {
            Ok(Self(verified))
        } else {
            Err(Rejection::new(ErrorCode::MissingLayer))
        })
    }
}

fn precheck(guard: &Guard, request: &ServiceRequest) -> Precheck {
    let query = Some(request.query_string()).filter(|query| !query.is_empty());
    let peer = request.peer_addr().map(|peer| peer.ip());
    let head = RequestHead::new(request.headers(), request.path(), query, peer);
    guard.precheck(&head, request.extensions().get::<OuterCheck>())
}

impl Headers for HeaderMap {
    fn each_value<'a>(&'a self, name: &http::HeaderName, visit: &mut dyn FnMut(&'a [u8])) {
        // Both crates store header names in lower case.
        if let Ok(name) = HeaderName::from_lowercase(name.as_str().as_bytes()) {
            self.get_all(name).for_each(|value| visit(value.as_bytes()));
        }
    }
}
