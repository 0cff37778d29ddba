use std::borrow::Cow;

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};

use super::reply::response;
use crate::{
    error::{Error, ErrorKind},
    http::{ErrorCode, PROBLEM_JSON, problem},
    model::Invalid,
    verify::{Limited, whole_seconds},
};

/// A call that was not done, and all that its sender is told.
pub(super) struct ManageError {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    /// What else the problem tells.
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

    /// One and the same for what does not exist and for what belongs to others.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such key here")
    }

    pub(super) fn no_such_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_page", "there is nothing under this path")
    }

    pub(super) fn method(allowed: String) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let failure = Self::new(status, "method_not_allowed", format!("use {allowed}"));
        Self { allow: Some(allowed), ..failure }
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub(super) fn media_type(detail: &'static str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail)
    }

    /// What is wrong with a body. The words are those of the parser, which repeat what was sent to
    /// nobody but its sender.
    pub(super) fn body(error: &serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::invalid(error.to_string()),
            _ => Self::new(StatusCode::BAD_REQUEST, "malformed_body", error.to_string()),
        }
    }

    pub(super) fn reused() -> Self {
        let detail = "this Idempotency-Key belongs to an earlier request that cannot be repeated: \
                      it asked for something else, or its key is in use or gone";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
    }

    pub(super) fn in_progress() -> Self {
        let detail = "a request with this Idempotency-Key is under way: try again";
        Self::new(StatusCode::CONFLICT, "conflict", detail).later(1)
    }

    pub(super) fn limited(limited: &Limited) -> Self {
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, ErrorCode::of_limit(limited.reason));
        let retry_after = limited.retry_after.map(whole_seconds);
        Self { retry_after, ..Self::new(status, code.as_str(), limited.to_string()) }
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this cannot be told now")
    }

    pub(super) fn later(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn into_response(self) -> Response<String> {
        let body = problem(self.status, self.code, &self.detail, &self.numbers);
        let mut response = response(self.status, PROBLEM_JSON, body);
        let allow =
            self.allow.and_then(|methods| Some((ALLOW, HeaderValue::try_from(methods).ok()?)));
        let retry_after = self.retry_after.map(|seconds| (RETRY_AFTER, seconds.into()));
        response.headers_mut().extend(allow.into_iter().chain(retry_after));
        response
    }
}

impl From<Error> for ManageError {
    fn from(error: Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::NotFound => return Self::not_found(),
            ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            ErrorKind::LimitReached => (StatusCode::CONFLICT, "limit_reached"),
            ErrorKind::Forbidden if error.limit().is_some() => {
                (StatusCode::UNPROCESSABLE_ENTITY, "lifetime_limit")
            }
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "beyond_reach"),
            ErrorKind::SecondFactorRequired => (StatusCode::FORBIDDEN, "second_factor_required"),
            ErrorKind::Suspended => (StatusCode::FORBIDDEN, "suspended"),
            ErrorKind::NotLive => (StatusCode::CONFLICT, "not_live"),
            ErrorKind::AlreadyExists | ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            ErrorKind::Corrupt => return Self::internal(),
            ErrorKind::OutcomeUnknown => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown"),
            ErrorKind::Unconfirmed => (StatusCode::SERVICE_UNAVAILABLE, "unconfirmed"),
            ErrorKind::Unavailable | ErrorKind::Entropy => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
        };
        let failure = Self::new(status, code, error.to_string());
        let limit = error.limit().map(|limit| ("limit", limit));
        let max_age = error.max_age().map(|age| ("maxAge", age.as_secs()));
        let failure = Self { numbers: limit.into_iter().chain(max_age).collect(), ..failure };
        if status == StatusCode::SERVICE_UNAVAILABLE { failure.later(5) } else { failure }
    }
}

impl From<Invalid> for ManageError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}
