//! What keys look like, and that they are no narrower than their account.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use keyward::{KeyFormat, secret::FormatError};
use serde_json::Value;

use super::Refused;

/// `lm_dev_` and so much that the whole has 64 characters.
pub fn format() -> Result<KeyFormat, FormatError> {
    KeyFormat::builder("lm").environment("dev").total_len(64).build()
}

/// Whoever asks for scopes shall not believe to have got them.
pub async fn without_scopes(request: Request, next: Next) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await;
    let body = body.map_err(|_| Refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large"))?;
    let said = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    if said.get("scopes").is_some() {
        return Err(Refused(StatusCode::BAD_REQUEST, "no_scopes_per_key"));
    }
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

/// As much as the management API reads.
const MAX_BODY: usize = 64 * 1024;
