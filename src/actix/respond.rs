use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    },
};

use crate::{
    http::{PROBLEM_JSON, Rejection, rate_limit_headers},
    verify::Verified,
};

/// actix-web has the types of `http` 0.2: what is sent is the same, byte for byte.
pub(super) fn respond(refusal: &Rejection) -> HttpResponse {
    let status = StatusCode::from_u16(refusal.status().as_u16());
    let mut response = HttpResponse::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    add(response.headers_mut(), refusal.fields());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response.set_body(actix_web::body::BoxBody::new(refusal.body()))
}

/// A handler's own `Cache-Control` stays; without one, no cache keeps what a key was needed for.
pub(super) fn add_success_fields(fields: &mut HeaderMap, verified: &Verified) {
    add(fields, rate_limit_headers(verified));
    if !fields.contains_key(CACHE_CONTROL) {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn add(
    fields: &mut HeaderMap,
    more: impl IntoIterator<Item = (http::HeaderName, http::HeaderValue)>,
) {
    for (name, value) in more {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.insert(name, value);
        }
    }
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        respond(self).status()
    }

    fn error_response(&self) -> HttpResponse {
        respond(self)
    }
}
