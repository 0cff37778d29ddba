use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    http::{Code, Refusal, guard::Looked},
    verify::Verified,
};

/// The key that the layer has verified. Without the layer the answer is 500 and names the fix; with
/// an optional one, use `Option<Verified>`.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::new(Code::MissingLayer))
    }
}

/// Nobody, where an optional layer let a request without a key pass. Without any layer it is 500,
/// too: else everyone would be nobody, and no one would notice.
impl<S: Sync> OptionalFromRequestParts<S> for Verified {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refusal> {
        let verified = parts.extensions.get::<Self>().cloned();
        if verified.is_none() && parts.extensions.get::<Looked>().is_none() {
            return Err(Refusal::new(Code::MissingLayer));
        }
        Ok(verified)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Refusal::into_response(self)
    }
}
