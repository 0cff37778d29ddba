use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{ResponseFuture, layer::Peer};
use crate::http::{
    RejectionHandler, Guard, RequestHead, ProblemResponses,
    guard::{Checked, Earlier, Looked},
    incoming::hide,
};

/// A service behind a [`Guard`]; made by [`ApiKeyLayer`](super::ApiKeyLayer).
#[derive(Clone, Debug)]
pub struct ApiKeyService<S, A = ProblemResponses> {
    inner: S,
    guard: Arc<Guard>,
    answers: A,
    peer: Peer,
}

impl<S, A> ApiKeyService<S, A> {
    pub(super) fn new(inner: S, guard: Arc<Guard>, answers: A, peer: Peer) -> Self {
        Self { inner, guard, answers, peer }
    }
}

impl<S, A, B, R> Service<Request<B>> for ApiKeyService<S, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    A: RejectionHandler<R>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, A, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        for name in self.guard.sensitive() {
            hide(request.headers_mut(), name);
        }
        let uri = request.uri();
        let peer = (self.peer)(request.extensions());
        let incoming = RequestHead::new(request.headers(), uri.path(), uri.query(), peer);
        match self.guard.look(&incoming, request.extensions().get::<Earlier>()) {
            Checked::Refused(refusal) => ResponseFuture::answered(self.answers.respond(refusal)),
            Checked::Nobody => {
                request.extensions_mut().insert(Looked);
                ResponseFuture::calling(self.inner.call(request))
            }
            Checked::Known => ResponseFuture::calling(self.inner.call(request)),
            Checked::Presents(pending) => {
                // The clone need not be ready; the one that is goes with the request.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                let guard = self.guard.clone();
                ResponseFuture::verifying(guard, pending, request, inner, self.answers.clone())
            }
        }
    }
}
