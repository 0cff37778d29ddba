//! Responses to rejected requests, the same for every framework.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{
    error::Error,
    model::{Period, named, push_json_string},
    verify::{
        Limited, LimitedReason, QuotaState, QuotaStates, RateState, RateStates, Verified,
        seconds_to_wait, whole_seconds,
    },
};

/// A rejected request, with everything that is sent to the client.
///
/// # Examples
/// ```
/// # use keyward::http::Rejection;
/// /// Replaces the problem details by the host's own body; status and headers stay.
/// fn respond(rejection: Rejection) -> http::Response<String> {
///     let text = format!("error: {}", rejection.code());
///     rejection.into_response::<String>().map(|_| text)
/// }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", detail(.code, .header))]
pub struct Rejection {
    code: ErrorCode,
    pub(super) challenge: Option<HeaderValue>,
    /// Where the guard takes the key, if not from `Authorization`.
    pub(super) header: Option<HeaderName>,
    retry_after: Option<Duration>,
    rates: RateStates,
    quotas: QuotaStates,
}

named! {
/// Stable error codes for rejected requests, for use by programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request contains no key.
    MissingKey = "missing_key",
    /// The credential is not a valid key. The exact reason is only written to the audit log.
    InvalidKey = "invalid_key",
    /// The key lacks a required scope.
    InsufficientScope = "insufficient_scope",
    /// The request contains more than one credential.
    RepeatedCredentials = "repeated_credentials",
    /// The key or its network exceeds a rate limit.
    RateLimited = "rate_limited",
    /// A quota of the key or its owner is used up.
    QuotaExhausted = "quota_exhausted",
    /// The key cannot be checked at the moment.
    Unavailable = "unavailable",
    /// A handler extracts a verified key, but its route has no layer that requires one. The log says what to change.
    Misconfigured = "misconfigured",
}
}

/// Builds responses from rejections, in the host's own format.
pub trait RejectionHandler<B>: Clone {
    /// Returns the complete response.
    fn respond(&self, rejection: Rejection) -> Response<B>;
}

/// Responds with an HTTP status and problem details (RFC 9457). The body type must be `From<String>`, as axum's is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemResponses;

/// Responds with a gRPC status in the headers and an empty body, for tonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcResponses;

impl Rejection {
    pub(crate) fn new(code: ErrorCode) -> Self {
        Self {
            code,
            challenge: None,
            header: None,
            retry_after: (code == ErrorCode::Unavailable).then_some(RETRY_AFTER_UNAVAILABLE),
            rates: RateStates::default(),
            quotas: QuotaStates::default(),
        }
    }

    pub(super) fn unavailable(error: &Error) -> Self {
        Self { retry_after: Some(retry_after(error)), ..Self::new(ErrorCode::Unavailable) }
    }

    pub(super) fn limited(limited: &Limited) -> Self {
        let &Limited { reason, retry_after, rates, quotas, .. } = limited;
        let code = match reason {
            LimitedReason::Quota => ErrorCode::QuotaExhausted,
            LimitedReason::Rate | LimitedReason::Network => ErrorCode::RateLimited,
        };
        Self { retry_after, rates, quotas, ..Self::new(code) }
    }

    /// Returns the error code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Returns the problem details (RFC 9457) as JSON.
    pub fn body(&self) -> String {
        problem_json(self.status(), self.code.as_str(), &self.to_string(), &[])
    }

    /// Returns all headers except `Content-Type`.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut all = vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        all.extend(self.challenge.clone().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        let wait = self.retry_after.map(seconds_to_wait);
        all.extend(wait.map(|seconds| (RETRY_AFTER, seconds.into())));
        let limits = limit_headers(&self.rates, &self.quotas, self.retry_after);
        all.extend(limits.into_iter().flatten());
        all
    }

    /// Builds the HTTP response.
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body()));
        *response.status_mut() = self.status();
        response.headers_mut().extend(self.headers());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }

    /// Builds the gRPC response, with its status in the headers.
    pub fn into_grpc_response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.extend(self.headers());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", self.code.grpc_status().into());
        let message = HeaderValue::try_from(self.to_string());
        headers.extend(message.map(|message| (HeaderName::from_static("grpc-message"), message)));
        response
    }
}

/// Returns a sentence for people that says what is wrong and what to do. `header` is where the guard takes the key, if
/// not from `Authorization`.
fn detail(code: &ErrorCode, header: &Option<HeaderName>) -> Cow<'static, str> {
    match (code, header) {
        (ErrorCode::MissingKey, Some(name)) => {
            format!("an API key is required: send it in the header {name}").into()
        }
        (code, _) => code.detail().into(),
    }
}

impl ErrorCode {
    /// Returns the HTTP status.
    pub fn status(self) -> StatusCode {
        self.statuses().0
    }

    /// Returns the numeric gRPC status.
    pub fn grpc_status(self) -> u16 {
        self.statuses().1
    }

    /// Returns the error code of RFC 6750 for the challenge, if it defines one.
    pub(super) fn challenge_error(self) -> Option<&'static str> {
        self.statuses().2
    }

    /// Returns the HTTP status, the gRPC status and the error code of RFC 6750.
    fn statuses(self) -> (StatusCode, u16, Option<&'static str>) {
        match self {
            Self::MissingKey => (StatusCode::UNAUTHORIZED, 16, None),
            Self::InvalidKey => (StatusCode::UNAUTHORIZED, 16, Some("invalid_token")),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, 7, Some("insufficient_scope")),
            Self::RepeatedCredentials => (StatusCode::BAD_REQUEST, 16, Some("invalid_request")),
            Self::RateLimited | Self::QuotaExhausted => (StatusCode::TOO_MANY_REQUESTS, 8, None),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, 14, None),
            Self::Misconfigured => (StatusCode::INTERNAL_SERVER_ERROR, 13, None),
        }
    }

    /// Returns a sentence for people that says what is wrong and what to do.
    fn detail(self) -> &'static str {
        match self {
            Self::MissingKey => "an API key is required: send it as Authorization: Bearer",
            Self::InvalidKey => "the API key is not valid",
            Self::InsufficientScope => "the API key lacks a required scope",
            Self::RepeatedCredentials => {
                "the request contains more than one credential: send only one"
            }
            Self::RateLimited => "too many requests: try again later",
            Self::QuotaExhausted => "the quota of the API key or of its account is used up",
            Self::Unavailable => {
                "API keys cannot be checked at the moment: try again later with the same key"
            }
            Self::Misconfigured => "the service is misconfigured: contact its operator",
        }
    }
}

impl<B: From<String>> RejectionHandler<B> for ProblemResponses {
    fn respond(&self, rejection: Rejection) -> Response<B> {
        rejection.into_response()
    }
}

impl<B: Default> RejectionHandler<B> for GrpcResponses {
    fn respond(&self, rejection: Rejection) -> Response<B> {
        rejection.into_grpc_response()
    }
}

/// Returns the `RateLimit` headers for the response to a verified request: what remains of its rates and quotas.
pub fn rate_limit_headers(verified: &Verified) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    limit_headers(&verified.rates(), &verified.quotas(), None).into_iter().flatten()
}

/// Returns `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) if a limit applies. Numbers of more
/// than 15 digits are capped.
///
/// A rate regains uses continuously. A client that was limited can therefore return after `Retry-After`, before the whole
/// burst is regained, so the reset is never later than that.
fn limit_headers(
    rates: &RateStates,
    quotas: &QuotaStates,
    retry_after: Option<Duration>,
) -> Option<[(HeaderName, HeaderValue); 2]> {
    // The uses that are allowed and remain, the window in seconds, and the time until the reset.
    let of_rate = |state: RateState| {
        let RateState { rate, remaining, reset, .. } = state;
        let reset = retry_after.map_or(reset, |wait| reset.min(wait));
        let window = Some(whole_seconds(rate.period).max(1));
        (u64::from(rate.uses.get()), u64::from(remaining), window, Some(reset))
    };
    // Only a daily quota has a window: months differ in length, and a total quota never resets.
    let of_quota = |state: QuotaState| {
        let QuotaState { quota, remaining, reset, .. } = state;
        (quota.uses(), remaining, (quota.period() == Period::Day).then_some(86_400), reset)
    };
    let limits = [
        ("key", rates.key.map(of_rate)),
        ("owner", rates.owner.map(of_rate)),
        ("key-quota", quotas.key.map(of_quota)),
        ("owner-quota", quotas.owner.map(of_quota)),
    ];
    let (mut policies, mut states) = (String::new(), String::new());
    for (name, limit) in limits {
        let Some((allowed, remaining, window, reset)) = limit else { continue };
        let comma = if policies.is_empty() { "" } else { ", " };
        let capped = |number: u64| number.min(MAX_INTEGER);
        // Writing to a String cannot fail.
        let _ = write!(policies, "{comma}\"{name}\";q={}", capped(allowed));
        let _ = window.map(|window| write!(policies, ";w={}", capped(window)));
        let _ = write!(states, "{comma}\"{name}\";r={}", capped(remaining));
        let _ = reset.map(|reset| write!(states, ";t={}", capped(whole_seconds(reset))));
    }
    let value = |text: String| HeaderValue::try_from(text).ok().filter(|text| !text.is_empty());
    Some([
        (const { HeaderName::from_static("ratelimit-policy") }, value(policies)?),
        (const { HeaderName::from_static("ratelimit") }, value(states)?),
    ])
}

/// Builds a response that caches must not store.
#[cfg(any(feature = "leaks", feature = "manage"))]
pub(super) fn no_store_response(
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Builds a response with problem details.
#[cfg(any(feature = "leaks", feature = "manage"))]
pub(super) fn problem_response(
    status: StatusCode,
    code: &str,
    detail: &str,
    numbers: &[(&str, u64)],
) -> Response<String> {
    no_store_response(status, PROBLEM_JSON, problem_json(status, code, detail, numbers))
}

/// Returns the response to a body larger than an adapter reads.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) fn too_large(max_bytes: usize) -> Response<String> {
    let detail = format!("the body is too large: send at most {} KiB", max_bytes / 1024);
    problem_response(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail, &[])
}

/// Returns the response to a body that ended early or could not be read.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) fn malformed_body() -> Response<String> {
    let detail = "the body is incomplete or malformed: send the request again";
    problem_response(StatusCode::BAD_REQUEST, "malformed_body", detail, &[])
}

/// Returns problem details (RFC 9457) as JSON. Programs read the extension `code`; `numbers` are further extensions.
fn problem_json(status: StatusCode, code: &str, detail: &str, numbers: &[(&str, u64)]) -> String {
    let mut body = String::with_capacity(160);
    let title = status.canonical_reason().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ =
        write!(body, r#"{{"type":"about:blank","title":"{title}","status":{}"#, status.as_u16());
    body.push_str(",\"code\":");
    push_json_string(&mut body, code);
    body.push_str(",\"detail\":");
    push_json_string(&mut body, detail);
    for (name, number) in numbers {
        let _ = write!(body, r#","{name}":{number}"#);
    }
    body.push('}');
    body
}

/// Long enough for a connection pool to reconnect, short enough that clients return soon.
/// Returns when a client should repeat a request that failed by an error of the store or of the host's accounts.
pub(super) fn retry_after(error: &Error) -> Duration {
    error.retry_after().unwrap_or(RETRY_AFTER_UNAVAILABLE)
}

const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(5);
/// The largest integer of a structured field (RFC 9651).
const MAX_INTEGER: u64 = 999_999_999_999_999;
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
