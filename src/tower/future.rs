use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header::CACHE_CONTROL};
use tower_service::Service;

use crate::{
    http::{RejectionHandler, Guard, Rejection, guard::Pending, rate_limit_headers},
    verify::Verified,
};

/// The response of an [`ApiKeyService`](super::ApiKeyService).
///
/// Everything that is polled is boxed: to reach it otherwise, a crate of its own or unsafe code
/// would be needed.
pub struct ResponseFuture<S: Service<Request<B>>, A, B, R> {
    state: State<S, A, B, R>,
}

enum State<S: Service<Request<B>>, A, B, R> {
    Answered(Option<Box<Response<R>>>),
    Verifying(Verification, Option<Box<Waiting<S, A, B>>>),
    Calling(Pin<Box<S::Future>>, Option<Verified>),
}

type Verification = Pin<Box<dyn Future<Output = Result<Verified, Rejection>> + Send>>;

/// What is needed when the verification is done. The handler is not called before.
struct Waiting<S, A, B> {
    request: Request<B>,
    inner: S,
    answers: A,
    guard: Arc<Guard>,
}

impl<S: Service<Request<B>>, A, B, R> ResponseFuture<S, A, B, R> {
    pub(super) fn answered(response: Response<R>) -> Self {
        Self { state: State::Answered(Some(Box::new(response))) }
    }

    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling(Box::pin(future), None) }
    }

    pub(super) fn verifying(
        guard: Arc<Guard>,
        pending: Pending,
        request: Request<B>,
        inner: S,
        answers: A,
    ) -> Self {
        let rules = guard.clone();
        let verification = Box::pin(async move { rules.verify(pending).await });
        let waiting = Waiting { request, inner, answers, guard };
        Self { state: State::Verifying(verification, Some(Box::new(waiting))) }
    }
}

impl<S, A, B, R> Future for ResponseFuture<S, A, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    A: RejectionHandler<R>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.state {
                State::Answered(response) => {
                    let response = response.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(*response));
                }
                State::Verifying(verification, waiting) => {
                    let answer = ready!(verification.as_mut().poll(cx));
                    let waiting = waiting.take().expect("polled after it panicked");
                    self.state = waiting.go_on(answer);
                }
                State::Calling(future, verified) => {
                    let mut response = ready!(future.as_mut().poll(cx))?;
                    if let Some(verified) = verified {
                        let fields = response.headers_mut();
                        fields.extend(rate_limit_headers(verified));
                        // A shared cache knows that answers to `Authorization` are not for
                        // everyone; of other fields it knows nothing.
                        let private = || HeaderValue::from_static("no-store");
                        fields.entry(CACHE_CONTROL).or_insert_with(private);
                    }
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}

impl<S, A, B> Waiting<S, A, B> {
    fn go_on<R>(mut self, answer: Result<Verified, Rejection>) -> State<S, A, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
        A: RejectionHandler<R>,
    {
        match answer {
            Err(refusal) => State::Answered(Some(Box::new(self.answers.respond(refusal)))),
            Ok(verified) => {
                let extensions = self.request.extensions_mut();
                extensions.insert(self.guard.mark(&verified));
                extensions.insert(verified.clone());
                State::Calling(Box::pin(self.inner.call(self.request)), Some(verified))
            }
        }
    }
}
