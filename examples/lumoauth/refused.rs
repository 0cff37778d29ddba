//! How a registration is refused (RFC 7591, section 3.2.2).

use axum::{
    Json,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Why a client is not registered. What is said is ASCII, and repeats nothing that was sent but the names
/// of what LumoAuth knows.
#[derive(Debug)]
pub enum Refused {
    RedirectUri(String),
    Metadata(String),
    InvalidStatement(&'static str),
    UnapprovedStatement(&'static str),
    /// Nobody's fault but that of this server.
    Unavailable,
}

impl Refused {
    pub fn metadata(why: impl Into<String>) -> Self {
        Self::Metadata(why.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (error, description) = match self {
            Self::RedirectUri(why) => ("invalid_redirect_uri", why),
            Self::Metadata(why) => ("invalid_client_metadata", why),
            Self::InvalidStatement(why) => ("invalid_software_statement", why.to_owned()),
            Self::UnapprovedStatement(why) => ("unapproved_software_statement", why.to_owned()),
            Self::Unavailable => {
                return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")]).into_response();
            }
        };
        let body = json!({ "error": error, "error_description": description });
        (StatusCode::BAD_REQUEST, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }
}
