//! The key format. Keys have no scopes of their own: they have the permissions of their account.

use axum::{
    body::{Body, Bytes},
    extract::{Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
    middleware::Next,
    response::Response,
};
use keyward::{KeyFormat, secret::FormatError};
use serde_json::Value;

use super::ApiError;

/// Keys start with `lm_dev_` and have 64 characters.
pub fn format() -> Result<KeyFormat, FormatError> {
    KeyFormat::builder("lm").environment("dev").total_len(64).build()
}

/// Rejects requests for scopes, which would otherwise be ignored silently.
pub async fn without_scopes(
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
    next: Next,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        _ => ApiError(StatusCode::BAD_REQUEST, "malformed_body"),
    })?;
    let json = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    if json.get("scopes").is_some() {
        return Err(ApiError(StatusCode::BAD_REQUEST, "no_scopes_per_key"));
    }
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

/// The body limit of the management API.
pub const MAX_BODY: usize = 64 * 1024;
