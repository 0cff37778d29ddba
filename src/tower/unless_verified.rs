use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::verify::Verified;

/// Applies another layer only to requests without a verified API key.
///
/// Protection against cross-site requests (CSRF) concerns credentials that browsers add on their
/// own: cookies. Browsers never add an API key, so a request with a key does not need this protection,
/// and often cannot satisfy it. Put this layer inside the layer that verifies keys.
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
    /// Applies `layer` to requests without a verified key.
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
        match self.wrapped.poll_ready(cx) {
            Poll::Ready(Ok(())) => self.bare.poll_ready(cx),
            other => other,
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.extensions().get::<Verified>().is_some() {
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
