//! What a refused request is told, the same in every framework.

mod code;
mod fields;
mod problem;

use std::time::Duration;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

pub use code::ErrorCode;
pub use fields::rate_limit_headers;
pub(crate) use problem::{PROBLEM_JSON, problem};

use crate::verify::{Limited, QuotaStates, RateStates, whole_seconds};

/// A request that was refused, and all that its sender is told.
///
/// # Examples
/// ```
/// # use keyward::http::Rejection;
/// /// A body of the host's own instead of the problem, with everything else as it was.
/// fn answer(refusal: Rejection) -> http::Response<String> {
///     let text = format!("no: {}", refusal.code());
///     refusal.into_response::<String>().map(|_| text)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Rejection {
    code: ErrorCode,
    challenge: Option<HeaderValue>,
    retry_after: Option<Duration>,
    rates: RateStates,
    quotas: QuotaStates,
}

/// Turns refusals into responses of a service's own kind.
pub trait RejectionHandler<B>: Clone {
    /// The whole response.
    fn respond(&self, refusal: Rejection) -> Response<B>;
}

/// Statuses and problems of HTTP: for bodies that can be made of text, as those of axum.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemResponses;

/// Statuses of gRPC, in the header of a response without a body: for tonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcResponses;

impl<B: From<String>> RejectionHandler<B> for ProblemResponses {
    fn respond(&self, refusal: Rejection) -> Response<B> {
        refusal.into_response()
    }
}

impl<B: Default> RejectionHandler<B> for GrpcResponses {
    fn respond(&self, refusal: Rejection) -> Response<B> {
        refusal.into_grpc()
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code.detail())
    }
}

impl std::error::Error for Rejection {}

impl Rejection {
    pub(crate) fn new(code: ErrorCode) -> Self {
        Self {
            code,
            challenge: None,
            retry_after: None,
            rates: RateStates::default(),
            quotas: QuotaStates::default(),
        }
    }

    pub(crate) fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn limited(limited: &Limited) -> Self {
        let &Limited { reason, retry_after, rates, quotas, .. } = limited;
        Self { retry_after, rates, quotas, ..Self::new(ErrorCode::of_limit(reason)) }
    }

    /// What was wrong, as far as the sender is told.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The status of HTTP.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The problem of RFC 9457.
    pub fn body(&self) -> String {
        problem(self.status(), self.code.as_str(), self.code.detail(), &[])
    }

    /// The header fields, all but that of the body's type.
    pub fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut all = vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        all.extend(self.challenge.clone().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        let wait = self.retry_after.map(|wait| whole_seconds(wait).max(1));
        all.extend(wait.map(|seconds| (RETRY_AFTER, seconds.into())));
        all.extend(fields::limit_fields(&self.rates, &self.quotas).into_iter().flatten());
        all
    }

    /// The response that HTTP has for it.
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body()));
        *response.status_mut() = self.status();
        response.headers_mut().extend(self.fields());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }

    /// The response that gRPC has for it, whose status stands in the header fields.
    pub fn into_grpc<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        let fields = response.headers_mut();
        fields.extend(self.fields());
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert("grpc-status", self.code.grpc().into());
        fields.insert("grpc-message", HeaderValue::from_static(self.code.detail()));
        response
    }
}
