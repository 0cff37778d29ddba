use std::{net::IpAddr, sync::Arc};

use http::Extensions;
use tower_layer::Layer;

use super::ApiKeyService;
use crate::http::{GrpcResponses, Guard, ProblemResponses};

/// Puts a [`Guard`] in front of a service.
///
/// Layers that log header fields should stand inside it: only from here on the field with the
/// secret is marked as sensitive.
#[derive(Clone, Debug)]
#[must_use]
pub struct ApiKeyLayer<A = ProblemResponses> {
    guard: Arc<Guard>,
    answers: A,
    peer: Peer,
}

/// How a request tells whose connection it came through.
pub(super) type Peer = fn(&Extensions) -> Option<IpAddr>;

impl ApiKeyLayer {
    /// RejectionHandler refusals by statuses of HTTP and problems of RFC 9457.
    pub fn new(guard: Guard) -> Self {
        Self::with_rejection_handler(guard, ProblemResponses)
    }
}

impl ApiKeyLayer<GrpcResponses> {
    /// RejectionHandler refusals by statuses of gRPC.
    pub fn grpc(guard: Guard) -> Self {
        Self::with_rejection_handler(guard, GrpcResponses)
    }
}

impl<A> ApiKeyLayer<A> {
    /// RejectionHandler refusals in the host's own way.
    pub fn with_rejection_handler(guard: Guard, answers: A) -> Self {
        let peer = |extensions: &Extensions| extensions.get::<IpAddr>().copied();
        Self { guard: Arc::new(guard), answers, peer }
    }

    /// How the server tells the address of the peer; by default an [`IpAddr`] among the extensions.
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

impl<S, A: Clone> Layer<S> for ApiKeyLayer<A> {
    type Service = ApiKeyService<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiKeyService::new(inner, self.guard.clone(), self.answers.clone(), self.peer)
    }
}
