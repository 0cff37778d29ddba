use std::{net::IpAddr, sync::Arc};

use http::Extensions;
use tower_layer::Layer;

use super::service::{ApiKeyService, PeerOf};
use crate::http::{GrpcResponses, Guard, ProblemResponses};

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
    pub fn peer(mut self, peer: fn(&Extensions) -> Option<IpAddr>) -> Self {
        self.peer = peer;
        self
    }
}

impl<S, H: Clone> Layer<S> for ApiKeyLayer<H> {
    type Service = ApiKeyService<S, H>;

    fn layer(&self, inner: S) -> Self::Service {
        let (guard, rejection_handler) = (self.guard.clone(), self.rejection_handler.clone());
        ApiKeyService { inner, guard, rejection_handler, peer: self.peer }
    }
}
