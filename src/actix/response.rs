use actix_web::{
    HttpResponse, ResponseError,
    body::MessageBody,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue},
    },
};

use crate::{
    http::{Rejection, rate_limit_headers},
    verify::Verified,
};

/// Converts a response to the types of actix-web, which uses `http` 0.2. The bytes sent are the same.
pub(super) fn into_actix_response(
    response: http::Response<impl MessageBody + 'static>,
) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let mut response = HttpResponse::build(actix_status(parts.status)).body(body);
    insert_headers(response.headers_mut(), &parts.headers);
    response
}

/// Adds the rate limit headers. Adds `Cache-Control: no-store` unless the handler has set
/// `Cache-Control`.
pub(super) fn add_verified_headers(headers: &mut HeaderMap, verified: &Verified) {
    insert_headers(headers, rate_limit_headers(verified));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        actix_status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        into_actix_response(self.clone().into_response::<String>())
    }
}

fn actix_status(status: http::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn insert_headers<N: AsRef<str>, V: AsRef<[u8]>>(
    headers: &mut HeaderMap,
    more: impl IntoIterator<Item = (N, V)>,
) {
    for (name, value) in more {
        let name = HeaderName::from_bytes(name.as_ref().as_bytes());
        let value = HeaderValue::from_bytes(value.as_ref());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
}
