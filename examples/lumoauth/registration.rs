//! Dynamic client registration (RFC 7591), with an API key as the initial access token.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA},
    },
    response::IntoResponse,
    routing::{get, post},
};
use keyward::{KeyFormat, Secret, Verified, tower::ApiKeyLayer};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::{
    App,
    clients::Client,
    error::RegistrationError,
    metadata::{AUTH_METHODS, ClientMetadata, GRANT_TYPES, RESPONSE_TYPES, SCOPES},
};

pub fn routes(register_layer: ApiKeyLayer, read_layer: ApiKeyLayer) -> Router<App> {
    let register_route =
        post(register).layer(DefaultBodyLimit::max(MAX_BODY)).route_layer(register_layer);
    Router::new()
        .route("/t/{tenantSlug}/register", register_route)
        .route("/t/{tenantSlug}/api/v1/admin/clients", get(list).route_layer(read_layer))
        .route("/.well-known/oauth-authorization-server/t/{tenantSlug}", get(metadata))
}

async fn register(
    State(app): State<App>,
    verified: Verified,
    fields: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<impl IntoResponse, RegistrationError> {
    let tenant = verified.owner().tenant().to_owned();
    let body =
        body.map_err(|_| RegistrationError::metadata("the body is too large or incomplete"))?;
    let mut request = object(&fields, &body)?;
    let metadata = match request.remove("software_statement") {
        None | Some(Value::Null) => ClientMetadata::read(request)?,
        Some(Value::String(statement)) => {
            // The publisher's claims take precedence.
            request.extend(app.publisher.claims(
                &statement,
                &app.issuer(&tenant),
                verified.at(),
            )?);
            ClientMetadata::read(request)?.with_statement(statement)
        }
        Some(_) => return Err(RegistrationError::InvalidStatement("it is not a string")),
    };
    let client_id = secret("lumo_client")?.expose().to_owned();
    let client_secret = metadata.needs_secret().then(|| secret("lumo_secret")).transpose()?;
    let client_id_issued_at = verified.at().as_unix_micros() / 1_000_000;
    let client = Client { client_id, client_id_issued_at, metadata };

    let mut response = serde_json::to_value(&client).map_err(|_| RegistrationError::Unavailable)?;
    if let Some(secret) = &client_secret {
        response["client_secret"] = secret.expose().into();
        response["client_secret_expires_at"] = 0.into();
    }
    let added = spawn_blocking(move || app.clients.add(&tenant, client, client_secret.as_ref()));
    added.await.ok().and_then(Result::ok).ok_or(RegistrationError::Unavailable)?;
    let private = [(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
    Ok((StatusCode::CREATED, private, Json(response)))
}

async fn list(State(app): State<App>, verified: Verified) -> Json<Value> {
    Json(json!({ "clients": app.clients.of_tenant(verified.owner().tenant()) }))
}

/// Authorization server metadata (RFC 8414), which names the registration endpoint. The example has no token
/// endpoints.
async fn metadata(
    State(app): State<App>,
    Path(slug): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    if !app.tenants.contains(&slug) {
        return Err(StatusCode::NOT_FOUND);
    }
    let issuer = app.issuer(&slug);
    Ok(Json(json!({
        "registration_endpoint": format!("{issuer}/register"),
        "issuer": issuer,
        "scopes_supported": SCOPES,
        "response_types_supported": RESPONSE_TYPES,
        "grant_types_supported": GRANT_TYPES,
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
    })))
}

fn object(fields: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, RegistrationError> {
    let kind = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(RegistrationError::metadata("send Content-Type: application/json"));
    }
    let object = serde_json::from_slice(body);
    object.map_err(|_| RegistrationError::metadata("the body is not a JSON object"))
}

/// Generates a secret. It fails only if the operating system has no randomness.
fn secret(prefix: &str) -> Result<Secret, RegistrationError> {
    let format = KeyFormat::builder(prefix).build().map_err(|_| RegistrationError::Unavailable)?;
    format.generate().map_err(|_| RegistrationError::Unavailable)
}

const MAX_BODY: usize = 64 * 1024;
