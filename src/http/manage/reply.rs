use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Serialize;

use super::failure::ManageError;

pub(super) type Answer = Result<Response<String>, ManageError>;

/// A response of JSON, which no cache keeps.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_string(body).map_err(|_| ManageError::internal())?;
    Ok(response(status, "application/json", text))
}

/// A response of one sentence.
pub(super) fn message(text: &str) -> Answer {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    json(StatusCode::OK, &Message { message: text })
}

pub(super) fn response(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
