use std::{
    mem,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use crate::http::{
    Guard, ProblemResponses, RejectionHandler, RequestHead,
    guard::{CheckedWithoutKey, OuterCheck, Precheck},
    request::mark_sensitive,
};

/// A service behind a [`Guard`]; created by [`ApiKeyLayer`](super::ApiKeyLayer).
#[derive(Clone, Debug)]
pub struct ApiKeyService<S, H = ProblemResponses> {
    pub(super) inner: S,
    pub(super) guard: Arc<Guard>,
    pub(super) rejection_handler: H,
    pub(super) peer: PeerOf,
}

/// Reads the address of the peer from the extensions of a request.
pub(super) type PeerOf = fn(&Extensions) -> Option<IpAddr>;

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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        for name in self.guard.sensitive_headers() {
            mark_sensitive(request.headers_mut(), name);
        }
        let uri = request.uri();
        let peer = (self.peer)(request.extensions());
        let head = RequestHead::new(request.headers(), uri.path(), uri.query(), peer);
        match self.guard.precheck(&head, request.extensions().get::<OuterCheck>()) {
            Precheck::Rejected(rejection) => {
                ResponseFuture::rejected(self.rejection_handler.respond(rejection))
            }
            Precheck::NoKey => {
                request.extensions_mut().insert(CheckedWithoutKey);
                ResponseFuture::calling(self.inner.call(request))
            }
            Precheck::AlreadyVerified => ResponseFuture::calling(self.inner.call(request)),
            Precheck::Presented(presented) => {
                // `poll_ready` was called on the current service, not on its clone, so the current
                // one handles the request.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                let (guard, handler) = (self.guard.clone(), self.rejection_handler.clone());
                ResponseFuture::verifying(guard, presented, request, inner, handler)
            }
        }
    }
}
