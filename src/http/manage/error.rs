use std::borrow::Cow;

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};

use crate::{
    error::{Error, ErrorKind},
    http::responses::{ErrorCode, PROBLEM_JSON, no_store_response, problem_json},
    model::Invalid,
    verify::{Limited, whole_seconds},
};

/// A request that failed, with everything that is sent to the client.
pub(super) struct ManageError {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    /// Numeric extensions of the problem details.
    numbers: Vec<(&'static str, u64)>,
    allow: Option<String>,
    retry_after: Option<u64>,
}

impl ManageError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            numbers: Vec::new(),
            allow: None,
            retry_after: None,
        }
    }

    /// The same for keys that do not exist and for keys of other owners.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no key with this id")
    }

    pub(super) fn unknown_path() -> Self {
        let detail = "there is no such path: see the API description";
        Self::new(StatusCode::NOT_FOUND, "no_such_page", detail)
    }

    pub(super) fn method_not_allowed(allowed: String) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let error = Self::new(status, "method_not_allowed", format!("use {allowed}"));
        Self { allow: Some(allowed), ..error }
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub(super) fn media_type(detail: &'static str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail)
    }

    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(super) fn too_large() -> Self {
        let detail = "the body is too large: send at most 64 KiB";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// The detail is the parser's message. It may quote the body, but only its sender receives it.
    pub(super) fn malformed_body(error: &serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::invalid(error.to_string()),
            _ => Self::new(StatusCode::BAD_REQUEST, "malformed_body", error.to_string()),
        }
    }

    pub(super) fn idempotency_key_reused() -> Self {
        let detail = "this Idempotency-Key belongs to an earlier request that cannot be repeated: \
                      that request was different, or its key has been used or is gone; send another \
                      Idempotency-Key";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
    }

    pub(super) fn in_progress() -> Self {
        let detail = "a request with this Idempotency-Key is in progress: try again";
        Self::new(StatusCode::CONFLICT, "conflict", detail).with_retry_after(1)
    }

    pub(super) fn limited(limited: &Limited) -> Self {
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, ErrorCode::from_limit(limited.reason));
        let retry_after = limited.retry_after.map(whole_seconds);
        Self { retry_after, ..Self::new(status, code.as_str(), limited.to_string()) }
    }

    pub(super) fn internal() -> Self {
        let detail = "internal error: contact the operator of the service";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn with_retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn into_response(self) -> Response<String> {
        let body = problem_json(self.status, self.code, &self.detail, &self.numbers);
        let mut response = no_store_response(self.status, PROBLEM_JSON, body);
        let allow =
            self.allow.and_then(|methods| Some((ALLOW, HeaderValue::try_from(methods).ok()?)));
        let retry_after = self.retry_after.map(|seconds| (RETRY_AFTER, seconds.into()));
        response.headers_mut().extend(allow.into_iter().chain(retry_after));
        response
    }
}

impl From<Error> for ManageError {
    fn from(error: Error) -> Self {
        let unavailable = |code, detail| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
                .with_retry_after(RETRY_AFTER_UNAVAILABLE)
        };
        let (status, code) = match error.kind() {
            // Fixed texts: the error itself may name hosts and addresses of the operator.
            ErrorKind::Unavailable | ErrorKind::Entropy => {
                return unavailable("unavailable", "the service is unavailable: try again later");
            }
            ErrorKind::OutcomeUnknown => return unavailable("outcome_unknown", OUTCOME_UNKNOWN),
            ErrorKind::Unconfirmed => return unavailable("unconfirmed", UNCONFIRMED),
            ErrorKind::Corrupt => return Self::internal(),
            ErrorKind::NotFound => return Self::not_found(),
            ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            ErrorKind::LimitReached => (StatusCode::CONFLICT, "limit_reached"),
            ErrorKind::LifetimeTooLong => (StatusCode::UNPROCESSABLE_ENTITY, "lifetime_limit"),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "beyond_reach"),
            ErrorKind::SecondFactorRequired => (StatusCode::FORBIDDEN, "second_factor_required"),
            ErrorKind::Suspended => (StatusCode::FORBIDDEN, "suspended"),
            ErrorKind::NotLive => (StatusCode::CONFLICT, "not_live"),
            ErrorKind::AlreadyExists | ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        };
        let max_lifetime_days = error.max_lifetime().map(|lifetime| lifetime.as_secs() / 86_400);
        let limit = error.limit().or(max_lifetime_days).map(|limit| ("limit", limit));
        let max_age = error.max_age().map(|age| ("maxAge", age.as_secs()));
        let numbers = limit.into_iter().chain(max_age).collect();
        Self { numbers, ..Self::new(status, code, error.to_string()) }
    }
}

impl From<Invalid> for ManageError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}

/// In seconds.
const RETRY_AFTER_UNAVAILABLE: u64 = 5;
const OUTCOME_UNKNOWN: &str =
    "the change may or may not have been made: read the key before trying again";
const UNCONFIRMED: &str = "the change was made, but is not replicated yet, and a failover could \
    lose it: repeat a revocation until it succeeds";
