//! A tower layer for services that take an [`http::Request`]: hyper, axum, tonic.
//!
//! The layer verifies the key of each request and puts [`Verified`] into the extensions, or responds itself. A layer
//! inside another layer with the same [`ApiKeys`](crate::api::ApiKeys) does not verify the key again. It only checks
//! its own tenant and scopes, so that a request counts once against rates and quotas.
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

use std::{
    mem,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Extensions, HeaderValue, Request, Response, header::CACHE_CONTROL};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    http::{
        GrpcResponses, Guard, ProblemResponses, Rejection, RejectionHandler, guard::Precheck,
        rate_limit_headers,
    },
    verify::Verified,
};

/// Applies a [`Guard`] to every request of a service.
///
/// Put layers that log headers inside this layer: it marks the header with the secret as sensitive.
#[derive(Clone, Debug)]
#[must_use]
pub struct ApiKeyLayer<H = ProblemResponses> {
    guard: Arc<Guard>,
    rejection_handler: H,
    peer: PeerOf,
}

/// Reads the address of the peer from the extensions of a request.
type PeerOf = fn(&Extensions) -> Option<IpAddr>;

impl ApiKeyLayer {
    /// Responds to rejected requests with an HTTP status and problem details (RFC 9457).
    pub fn new(guard: Guard) -> Self {
        Self::with_rejection_handler(guard, ProblemResponses)
    }
}

impl ApiKeyLayer<GrpcResponses> {
    /// Responds to rejected requests with a gRPC status.
    pub fn grpc(guard: Guard) -> Self {
        Self::with_rejection_handler(guard, GrpcResponses)
    }
}

impl<H> ApiKeyLayer<H> {
    /// Responds to rejected requests with the host's own handler.
    pub fn with_rejection_handler(guard: Guard, rejection_handler: H) -> Self {
        let peer = |extensions: &Extensions| extensions.get::<IpAddr>().copied();
        Self { guard: Arc::new(guard), rejection_handler, peer }
    }

    /// Sets how to read the address of the peer. Defaults to an [`IpAddr`] in the extensions.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::Guard, testing::TestKeys, tower::ApiKeyLayer};
    /// # #[derive(Clone)]
    /// # struct MyConnection { remote: std::net::SocketAddr }
    /// # let guard = Guard::new(TestKeys::new().keys);
    /// let layer = ApiKeyLayer::new(guard)
    ///     .peer(|extensions| Some(extensions.get::<MyConnection>()?.remote.ip()));
    /// ```
    pub fn peer(self, peer: fn(&Extensions) -> Option<IpAddr>) -> Self {
        Self { peer, ..self }
    }
}

impl<S, H: Clone> Layer<S> for ApiKeyLayer<H> {
    type Service = ApiKeyService<S, H>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiKeyService { inner, layer: self.clone() }
    }
}

/// A service behind a [`Guard`]; created by [`ApiKeyLayer`].
#[derive(Clone, Debug)]
pub struct ApiKeyService<S, H = ProblemResponses> {
    inner: S,
    layer: ApiKeyLayer<H>,
}

impl<S, H, B, R> Service<Request<B>> for ApiKeyService<S, H>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    H: RejectionHandler<R>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, H, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ApiKeyLayer { guard, rejection_handler, peer } = &self.layer;
        let (mut head, body) = request.into_parts();
        let peer = peer(&head.extensions);
        let precheck = guard.precheck_parts(&mut head, peer);
        let request = Request::from_parts(head, body);
        let state = match precheck {
            Precheck::Rejected(rejection) => State::rejected(rejection_handler, rejection),
            Precheck::NoKey | Precheck::AlreadyVerified => {
                State::Calling(Box::pin(self.inner.call(request)), None)
            }
            Precheck::Presented(presented) => {
                let verifier = guard.clone();
                let verification = Box::pin(async move { verifier.verify(presented).await });
                // `poll_ready` was called on the current service, not its clone, so the current one gets the request.
                let clone = self.clone();
                let service = mem::replace(self, clone);
                State::Verifying(verification, Some(Box::new((service, request))))
            }
        };
        ResponseFuture(state)
    }
}

/// The response future of an [`ApiKeyService`].
///
/// The futures it polls are boxed, because pinning them in place would require unsafe code or another dependency.
pub struct ResponseFuture<S: Service<Request<B>>, H, B, R>(State<S, H, B, R>);

enum State<S: Service<Request<B>>, H, B, R> {
    Rejected(Option<Box<Response<R>>>),
    Verifying(Verification, Option<Box<PendingCall<S, H, B>>>),
    Calling(Pin<Box<S::Future>>, Option<Verified>),
}

/// The service and the request, until the key is verified.
type PendingCall<S, H, B> = (ApiKeyService<S, H>, Request<B>);

type Verification = Pin<Box<dyn Future<Output = Result<Verified, Rejection>> + Send>>;

impl<S: Service<Request<B>>, H: RejectionHandler<R>, B, R> State<S, H, B, R> {
    fn rejected(handler: &H, rejection: Rejection) -> Self {
        Self::Rejected(Some(Box::new(handler.respond(rejection))))
    }
}

impl<S, H, B, R> Future for ResponseFuture<S, H, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    H: RejectionHandler<R>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Rejected(response) => {
                    let response = response.take().expect("polled after completion");
                    return Poll::Ready(Ok(*response));
                }
                State::Verifying(verification, call) => {
                    let result = ready!(verification.as_mut().poll(cx));
                    let (mut service, mut request) = *call.take().expect("polled after a panic");
                    let ApiKeyLayer { guard, rejection_handler, .. } = &service.layer;
                    self.0 = match result {
                        Err(rejection) => State::rejected(rejection_handler, rejection),
                        Ok(verified) => {
                            guard.accept(request.extensions_mut(), &verified);
                            let future = service.inner.call(request);
                            State::Calling(Box::pin(future), Some(verified))
                        }
                    };
                }
                State::Calling(future, verified) => {
                    let mut response = ready!(future.as_mut().poll(cx))?;
                    if let Some(verified) = verified {
                        let headers = response.headers_mut();
                        headers.extend(rate_limit_headers(verified));
                        // Shared caches do not store responses to requests with `Authorization`,
                        // but do not know the other headers that can contain a key.
                        let no_store = || HeaderValue::from_static("no-store");
                        headers.entry(CACHE_CONTROL).or_insert_with(no_store);
                    }
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}

/// Applies another layer, unless the caller is identified by a verified API key alone.
///
/// Protection against cross-site requests (CSRF) concerns credentials that browsers add on their own, such as cookies.
/// Browsers add no API key, so a request with nothing but a key does not need this protection, and often cannot satisfy
/// it. [`Verified::is_csrf_exempt`] decides: the other layer is applied also to a request with a key in the query string,
/// and to one with a key and cookies. Put this layer inside the layer that verifies keys.
///
/// A handler that accepts a key or a session MUST take the caller from one of them. If the request has a [`Verified`],
/// that is the caller, and the cookie of a session is ignored or the request rejected.
///
/// # Examples
/// ```
/// use keyward::{http::Guard, tower::{ApiKeyLayer, UnlessVerifiedLayer}};
/// use tower_http::csrf::CsrfLayer;
///
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let layers = (
///     ApiKeyLayer::new(Guard::builder(keys).optional().build()?), // sessions have no key
///     UnlessVerifiedLayer::new(CsrfLayer::new()),
/// );
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct UnlessVerifiedLayer<L>(L);

/// A service with and without another layer; created by [`UnlessVerifiedLayer`].
#[derive(Clone, Copy, Debug)]
pub struct UnlessVerified<W, S> {
    wrapped: W,
    bare: S,
}

impl<L> UnlessVerifiedLayer<L> {
    /// Applies `layer` to requests that are not [exempt](Verified::is_csrf_exempt).
    pub fn new(layer: L) -> Self {
        Self(layer)
    }
}

impl<L: Layer<S>, S: Clone> Layer<S> for UnlessVerifiedLayer<L> {
    type Service = UnlessVerified<L::Service, S>;

    fn layer(&self, inner: S) -> Self::Service {
        UnlessVerified { wrapped: self.0.layer(inner.clone()), bare: inner }
    }
}

impl<W, S, B> Service<Request<B>> for UnlessVerified<W, S>
where
    S: Service<Request<B>>,
    W: Service<Request<B>, Response = S::Response, Error = S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<W::Future, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // The request is not known yet, so both services must be ready.
        ready!(self.wrapped.poll_ready(cx))?;
        self.bare.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.extensions().get().is_some_and(Verified::is_csrf_exempt) {
            Either::Bare(Box::pin(self.bare.call(request)))
        } else {
            Either::Wrapped(Box::pin(self.wrapped.call(request)))
        }
    }
}

/// The response future of [`UnlessVerified`].
pub enum Either<W, S> {
    /// The future of the service with the layer.
    Wrapped(Pin<Box<W>>),
    /// The future of the service without the layer.
    Bare(Pin<Box<S>>),
}

impl<W: Future, S: Future<Output = W::Output>> Future for Either<W, S> {
    type Output = W::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Wrapped(future) => future.as_mut().poll(cx),
            Self::Bare(future) => future.as_mut().poll(cx),
        }
    }
}
