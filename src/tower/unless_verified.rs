use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::verify::Verified;

/// Applies another layer only to requests that no API key authenticated.
///
/// A check against cross-site requests guards what a browser adds by itself: cookies. It never adds
/// an API key, so a request with one needs no such check, and often cannot pass it. Put this inside
/// the layer that verifies keys.
///
/// # Examples
/// ```
/// use keyward::{http::Guard, tower::{ApiKeyLayer, UnlessVerifiedLayer}};
/// use tower_http::csrf::CsrfLayer;
///
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let layers = (
///     ApiKeyLayer::new(Guard::new(keys).optional()), // sessions come without a key
///     UnlessVerifiedLayer::new(CsrfLayer::new()),
/// );
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct UnlessVerifiedLayer<L>(L);

/// A service with and without another layer; made by [`UnlessVerifiedLayer`].
#[derive(Clone, Copy, Debug)]
pub struct UnlessVerified<W, S> {
    wrapped: W,
    bare: S,
}

impl<L> UnlessVerifiedLayer<L> {
    /// Applies `layer` to all others.
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
        // Which of them will be called is not known yet.
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

/// The one future or the other.
pub enum Either<W, S> {
    /// With the layer.
    Wrapped(std::pin::Pin<Box<W>>),
    /// Without it.
    Bare(std::pin::Pin<Box<S>>),
}

impl<W: Future, S: Future<Output = W::Output>> Future for Either<W, S> {
    type Output = W::Output;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Wrapped(future) => future.as_mut().poll(cx),
            Self::Bare(future) => future.as_mut().poll(cx),
        }
    }
}
