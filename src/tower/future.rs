use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header::CACHE_CONTROL};
use tower_service::Service;

use crate::{
    http::{Guard, Rejection, RejectionHandler, guard::PresentedKey, rate_limit_headers},
    verify::Verified,
};

/// The response future of an [`ApiKeyService`](super::ApiKeyService).
///
/// The futures it polls are boxed, because pinning them in place would require unsafe code or
/// another dependency.
pub struct ResponseFuture<S: Service<Request<B>>, H, B, R> {
    state: State<S, H, B, R>,
}

enum State<S: Service<Request<B>>, H, B, R> {
    Rejected(Option<Box<Response<R>>>),
    Verifying(Verification, Option<Box<PendingCall<S, H, B>>>),
    Calling(Pin<Box<S::Future>>, Option<Verified>),
}

type Verification = Pin<Box<dyn Future<Output = Result<Verified, Rejection>> + Send>>;

/// The call of the inner service, which waits for the verification.
struct PendingCall<S, H, B> {
    request: Request<B>,
    inner: S,
    rejection_handler: H,
    guard: Arc<Guard>,
}

impl<S: Service<Request<B>>, H, B, R> ResponseFuture<S, H, B, R> {
    pub(super) fn rejected(response: Response<R>) -> Self {
        Self { state: State::Rejected(Some(Box::new(response))) }
    }

    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling(Box::pin(future), None) }
    }

    pub(super) fn verifying(
        guard: Arc<Guard>,
        presented: PresentedKey,
        request: Request<B>,
        inner: S,
        rejection_handler: H,
    ) -> Self {
        let verifier = guard.clone();
        let verification = Box::pin(async move { verifier.verify(presented).await });
        let call = PendingCall { request, inner, rejection_handler, guard };
        Self { state: State::Verifying(verification, Some(Box::new(call))) }
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
            match &mut self.state {
                State::Rejected(response) => {
                    let response = response.take().expect("polled after completion");
                    return Poll::Ready(Ok(*response));
                }
                State::Verifying(verification, call) => {
                    let result = ready!(verification.as_mut().poll(cx));
                    let call = call.take().expect("polled after a panic");
                    self.state = call.resume(result);
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

impl<S, H, B> PendingCall<S, H, B> {
    /// Calls the inner service if the key was verified.
    fn resume<R>(mut self, result: Result<Verified, Rejection>) -> State<S, H, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
        H: RejectionHandler<R>,
    {
        match result {
            Err(rejection) => {
                State::Rejected(Some(Box::new(self.rejection_handler.respond(rejection))))
            }
            Ok(verified) => {
                let extensions = self.request.extensions_mut();
                extensions.insert(self.guard.outer_check(&verified));
                extensions.insert(verified.clone());
                State::Calling(Box::pin(self.inner.call(self.request)), Some(verified))
            }
        }
    }
}
