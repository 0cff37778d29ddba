//! Error responses of client registration (RFC 7591, section 3.2.2).

use axum::{
    Json,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Why a registration was rejected. Descriptions are ASCII, and repeat nothing from the request except the names of
/// known fields.
#[derive(Debug)]
pub enum RegistrationError {
    RedirectUri(String),
    Metadata(String),
    InvalidStatement(&'static str),
    UnapprovedStatement(&'static str),
    /// This server failed.
    Unavailable,
}

impl RegistrationError {
    pub fn metadata(reason: impl Into<String>) -> Self {
        Self::Metadata(reason.into())
    }
}

impl IntoResponse for RegistrationError {
    fn into_response(self) -> Response {
        let (error, description) = match self {
            Self::RedirectUri(reason) => ("invalid_redirect_uri", reason),
            Self::Metadata(reason) => ("invalid_client_metadata", reason),
            Self::InvalidStatement(reason) => ("invalid_software_statement", reason.to_owned()),
            Self::UnapprovedStatement(reason) => {
                ("unapproved_software_statement", reason.to_owned())
            }
            Self::Unavailable => {
                return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")]).into_response();
            }
        };
        let body = json!({ "error": error, "error_description": description });
        (StatusCode::BAD_REQUEST, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }
}
