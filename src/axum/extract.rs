use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    http::{ErrorCode, Rejection, guard::Looked},
    verify::Verified,
};

/// The key that the layer has verified. Without the layer the answer is 500 and names the fix; with
/// an optional one, use `Option<Verified>`.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Rejection::new(ErrorCode::MissingLayer))
    }
}

/// Nobody, where an optional layer let a request without a key pass. Without any layer it is 500,
/// too: else everyone would be nobody, and no one would notice.
impl<S: Sync> OptionalFromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        let verified = parts.extensions.get::<Self>().cloned();
        if verified.is_none() && parts.extensions.get::<Looked>().is_none() {
            return Err(Rejection::new(ErrorCode::MissingLayer));
        }
        Ok(verified)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        Rejection::into_response(self)
    }
}
