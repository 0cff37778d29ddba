//! Dynamic client registration (RFC 7591), with an API key as initial access token.

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
    metadata::{AUTH_METHODS, ClientMetadata, GRANT_TYPES, RESPONSE_TYPES, SCOPES},
    refused::Refused,
};

pub fn routes(registers: ApiKeyLayer, reads: ApiKeyLayer) -> Router<App> {
    let registering = post(register).layer(DefaultBodyLimit::max(MAX_BODY)).route_layer(registers);
    Router::new()
        .route("/t/{tenantSlug}/register", registering)
        .route("/t/{tenantSlug}/api/v1/admin/clients", get(list).route_layer(reads))
        .route("/.well-known/oauth-authorization-server/t/{tenantSlug}", get(metadata))
}

async fn register(
    State(app): State<App>,
    verified: Verified,
    fields: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<impl IntoResponse, Refused> {
    let tenant = verified.owner().tenant().to_owned();
    let body = body.map_err(|_| Refused::metadata("the body is too large or did not arrive"))?;
    let mut asked = object(&fields, &body)?;
    let metadata = match asked.remove("software_statement") {
        None | Some(Value::Null) => ClientMetadata::read(asked)?,
        Some(Value::String(statement)) => {
            // What the publisher says takes precedence.
            asked.extend(app.publisher.claims(&statement, &app.issuer(&tenant), verified.at())?);
            ClientMetadata::read(asked)?.with_statement(statement)
        }
        Some(_) => return Err(Refused::InvalidStatement("it is not a text")),
    };
    let client_id = secret("lumo_client")?.expose().to_owned();
    let client_secret = metadata.needs_secret().then(|| secret("lumo_secret")).transpose()?;
    let client_id_issued_at = verified.at().as_unix_micros() / 1_000_000;
    let client = Client { client_id, client_id_issued_at, metadata };

    let mut told = serde_json::to_value(&client).map_err(|_| Refused::Unavailable)?;
    if let Some(secret) = &client_secret {
        told["client_secret"] = secret.expose().into();
        told["client_secret_expires_at"] = 0.into();
    }
    let added = spawn_blocking(move || app.clients.add(&tenant, client, client_secret.as_ref()));
    added.await.ok().and_then(Result::ok).ok_or(Refused::Unavailable)?;
    let private = [(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
    Ok((StatusCode::CREATED, private, Json(told)))
}

async fn list(State(app): State<App>, verified: Verified) -> Json<Value> {
    Json(json!({ "clients": app.clients.of(verified.owner().tenant()) }))
}

/// Where clients learn how to register (RFC 8414). The endpoints at which tokens are issued are not part
/// of the example.
async fn metadata(
    State(app): State<App>,
    Path(slug): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    if !app.tenants.has(&slug) {
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

fn object(fields: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Refused> {
    let kind = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refused::metadata("send Content-Type: application/json"));
    }
    let object = serde_json::from_slice(body);
    object.map_err(|_| Refused::metadata("the body is no JSON object"))
}

/// Without randomness there are no clients, and that is no fault of who asks.
fn secret(prefix: &str) -> Result<Secret, Refused> {
    let format = KeyFormat::builder(prefix).build().map_err(|_| Refused::Unavailable)?;
    format.generate().map_err(|_| Refused::Unavailable)
}

const MAX_BODY: usize = 64 * 1024;
