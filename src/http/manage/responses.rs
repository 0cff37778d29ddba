//! Responses of the management API: JSON in camel case, with instants as RFC 3339 in UTC. Fields without a value are
//! omitted, except three: `scopes` is `null` if the key may do all that its owner may do, `expiresAt` is `null` if it does
//! not expire, and `lastUsedAt` is `null` until the first use. Control characters and characters that reorder
//! text are escaped: names and user agents come from others.

use std::{collections::BTreeMap, time::Duration};

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};
use serde_json::{Value, json};

use crate::{
    audit::{AuditEvent, ExportFormat},
    error::{Error, ErrorKind},
    http::responses::{Rejection, no_store_response, problem_response, retry_after},
    manage::AuditExport,
    model::{
        Access, Invalid, Key, Networks, OwnerScope, Permissions, Timestamp, debug_only,
        needs_escape, push_json_character,
    },
    secret::Secret,
    verify::{ActiveKey, seconds_to_wait},
};

/// The body of a response: complete, or in chunks that are read from the store on demand. For a
/// framework that accepts only complete bodies, concatenate all chunks.
#[must_use]
pub struct ManageBody {
    ready: Option<String>,
    rest: Option<Box<AuditExport>>,
}

impl ManageBody {
    /// Reads the first chunk, so that a failing store is reported by the status of the response.
    pub(super) async fn export(mut export: AuditExport) -> Result<Self, Error> {
        let ready = export.next_page().await?;
        let rest = Some(Box::new(export)).filter(|export| !export.is_over);
        Ok(Self { ready, rest })
    }

    /// Returns the next chunk, or `None` after the last one.
    ///
    /// # Errors
    /// If the store fails. The body is incomplete, and the server MUST abort the connection so that the client notices.
    pub async fn next_chunk(&mut self) -> Result<Option<String>, Error> {
        match (self.ready.take(), &mut self.rest) {
            (Some(chunk), _) => Ok(Some(chunk)),
            (None, Some(export)) => export.next_page().await,
            (None, None) => Ok(None),
        }
    }

    /// Returns the whole body, if it is complete.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn into_complete(self) -> Result<String, Self> {
        if self.rest.is_some() { Err(self) } else { Ok(self.ready.unwrap_or_default()) }
    }

    /// Returns the chunks. Each one is read only when it is polled for.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn into_stream(self) -> impl futures_util::Stream<Item = Result<String, Error>> {
        futures_util::stream::try_unfold(self, async |mut body| {
            let chunk = body.next_chunk().await?;
            Ok(chunk.map(|chunk| (chunk, body)))
        })
    }
}

impl From<String> for ManageBody {
    fn from(text: String) -> Self {
        Self { ready: Some(text), rest: None }
    }
}

debug_only!(ManageBody {});

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<String> {
    no_store_response(status, "application/json", escape_json(body.to_string()))
}

/// Escapes what `serde_json` does not: characters that act on a terminal or reorder text. In JSON, they occur only in
/// strings.
fn escape_json(json: String) -> String {
    if !json.contains(needs_escape) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    json.chars().for_each(|character| push_json_character(&mut escaped, character));
    escaped
}

pub(super) fn message_json(text: &str) -> Value {
    json!({ "message": text })
}

/// Returns a page of items. `next` is omitted on the last page.
pub(super) fn page_json(name: &str, items: Vec<Value>, next: Option<impl ToString>) -> Value {
    omit_null(json!({ name: items, "next": next.map(|next| next.to_string()) }))
}

fn omit_null(mut json: Value) -> Value {
    if let Value::Object(fields) = &mut json {
        fields.retain(|_, value| !value.is_null());
    }
    json
}

/// Returns the view of a caller that may see the keys of `visible`. With the secret, the last use is omitted.
pub(super) fn key_json(
    key: &Key,
    secret: Option<&Secret>,
    visible: OwnerScope<'_>,
    now: Timestamp,
) -> Value {
    let instant = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let is_administrator = matches!(visible, OwnerScope::Tenant(_));
    let metadata: BTreeMap<_, _> = key.metadata.iter().collect();
    let retiring = key.retiring.as_ref().filter(|retiring| retiring.ends_at > now);
    let mut json = omit_null(json!({
        "id": key.id.to_string(),
        "name": key.name.as_str(),
        "prefix": key.hint,
        "createdAt": key.created_at.to_string(),
        "account": is_administrator.then(|| key.owner.account()),
        "metadata": Some(metadata).filter(|metadata| !metadata.is_empty()),
        "disabledAt": instant(key.disabled_at),
        "revokedAt": instant(key.revoked.as_ref().map(|revocation| revocation.at)),
        "rotatedAt": instant(key.rotated_at),
        "retiring": retiring.map(|retiring| {
            json!({ "prefix": retiring.hint, "endsAt": retiring.ends_at.to_string() })
        }),
        "lastUsedIp": key.last_used_ip,
    }));
    json["scopes"] = match &key.access {
        Access::Only(scopes) => scopes.iter().collect(),
        Access::Inherited => Value::Null,
    };
    json["expiresAt"] = instant(key.expires_at).into();
    if let Networks::Only(networks) = &key.networks {
        json["allowedNetworks"] = networks.iter().map(ToString::to_string).collect();
    }
    match secret {
        Some(secret) => json["key"] = secret.expose().into(),
        None => json["lastUsedAt"] = instant(key.last_used_at).into(),
    }
    json
}

/// Returns an event as an export writes it.
pub(super) fn event_json(event: &AuditEvent) -> Value {
    let mut line = String::new();
    ExportFormat::JsonLines.write(&mut line, event);
    serde_json::from_str(&line).expect("an export contains one JSON object per line")
}

/// Returns the response of RFC 7662. Without a valid token that the caller may see, it contains only `active: false`.
pub(super) fn introspection_json(active: Option<&ActiveKey>) -> Value {
    let Some(key) = active else { return json!({ "active": false }) };
    let seconds = |at: Timestamp| at.as_unix_micros() / 1_000_000;
    let scope = match &key.permissions {
        Permissions::Only(scopes) => Some(scopes.to_string()),
        Permissions::All => None,
    };
    omit_null(json!({
        "active": true,
        "scope": scope,
        "sub": key.owner.account(),
        "client_id": key.id.to_string(),
        "token_type": "Bearer",
        "iat": seconds(key.created_at),
        "exp": key.ends_at.map(seconds),
    }))
}

/// The response to a request that failed. Boxed, because a response is large.
pub(super) struct ManageError(Box<Response<String>>);

pub(super) type ManageResult<T = Response<String>> = Result<T, ManageError>;

impl ManageError {
    pub(super) fn new(status: StatusCode, code: &str, detail: &str) -> Self {
        Self(Box::new(problem_response(status, code, detail, &[])))
    }

    /// The same for keys that do not exist and for keys of other owners.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no key with this id")
    }

    pub(super) fn unknown_path() -> Self {
        let detail = "there is no such path: see the API description";
        Self::new(StatusCode::NOT_FOUND, "no_such_page", detail)
    }

    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        let (status, detail) = (StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
        let mut error = Self::new(status, "method_not_allowed", &detail);
        let header = HeaderValue::try_from(allowed).map(|allowed| (ALLOW, allowed));
        error.0.headers_mut().extend(header);
        error
    }

    pub(super) fn repeated_header(name: &str) -> Self {
        let detail = format!("the header {name} is repeated: send it once");
        Self::new(StatusCode::BAD_REQUEST, "repeated_header", &detail)
    }

    pub(super) fn invalid(detail: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub(super) fn internal() -> Self {
        let detail = "internal error: contact the operator of the service";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.headers_mut().insert(RETRY_AFTER, seconds_to_wait(wait).into());
        self
    }

    pub(super) fn into_response(self) -> Response<String> {
        *self.0
    }
}

impl From<Error> for ManageError {
    fn from(error: Error) -> Self {
        let wait = retry_after(&error);
        let unavailable = |code, detail| {
            let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
            error.with_retry_after(wait)
        };
        let (status, code) = match error.kind() {
            // Fixed texts: the error itself may name hosts and addresses of the operator.
            ErrorKind::Unavailable | ErrorKind::Entropy => {
                return unavailable("unavailable", "the service is unavailable: try again later");
            }
            ErrorKind::OutcomeUnknown => return unavailable("outcome_unknown", OUTCOME_UNKNOWN),
            ErrorKind::Unconfirmed => return unavailable("unconfirmed", UNCONFIRMED),
            ErrorKind::Corrupt | ErrorKind::Configuration => return Self::internal(),
            ErrorKind::InProgress => {
                let wait = error.retry_after().unwrap_or_default();
                return Self::new(StatusCode::CONFLICT, "conflict", IN_PROGRESS)
                    .with_retry_after(wait);
            }
            ErrorKind::TokenReused => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Self::new(status, "idempotency_key_reused", TOKEN_REUSED);
            }
            ErrorKind::NotFound => return Self::not_found(),
            ErrorKind::Invalid | ErrorKind::NotSupported => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid")
            }
            ErrorKind::LimitReached => (StatusCode::CONFLICT, "limit_reached"),
            ErrorKind::LifetimeTooLong => (StatusCode::UNPROCESSABLE_ENTITY, "lifetime_limit"),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "beyond_reach"),
            ErrorKind::SecondFactorRequired => (StatusCode::FORBIDDEN, "second_factor_required"),
            ErrorKind::Suspended => (StatusCode::FORBIDDEN, "suspended"),
            ErrorKind::NotLive => (StatusCode::CONFLICT, "not_live"),
            ErrorKind::AlreadyExists | ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        };
        let max_lifetime_days = error.max_lifetime().map(|lifetime| lifetime.as_secs() / 86_400);
        let limit = error.limit().or(max_lifetime_days).map(|limit| ("limit", limit));
        let max_age = error.max_age().map(|age| ("maxAge", age.as_secs()));
        let numbers: Vec<_> = limit.into_iter().chain(max_age).collect();
        Self(Box::new(problem_response(status, code, &error.to_string(), &numbers)))
    }
}

impl From<Rejection> for ManageError {
    fn from(rejection: Rejection) -> Self {
        Self(Box::new(rejection.into_response()))
    }
}

impl From<Invalid> for ManageError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(&invalid.to_string())
    }
}

const IN_PROGRESS: &str =
    "a request with this Idempotency-Key is in progress: try again in a few seconds";
const TOKEN_REUSED: &str = "this Idempotency-Key belongs to an earlier request that cannot be repeated: that request was \
    different, or its secret has been used or is gone; send another Idempotency-Key";
const OUTCOME_UNKNOWN: &str =
    "the change may or may not have been made: read the key before trying again";
const UNCONFIRMED: &str = "the change was made, but is not replicated yet, and a failover could \
    lose it: repeat a revocation until it succeeds";
