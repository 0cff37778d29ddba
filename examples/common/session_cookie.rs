//! The cookie of a browser session.

use axum::http::{HeaderMap, header::COOKIE};

/// Returns the cookie `session`. HTTP/2 clients may send each cookie in a header field of its own.
pub fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = fields.flat_map(|field| field.split("; "));
    cookies.find_map(|cookie| cookie.strip_prefix("session="))
}
