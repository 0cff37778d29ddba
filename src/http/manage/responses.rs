//! Responses of the management API: JSON in camel case, with instants as RFC 3339 in UTC. Fields
//! without a value are omitted, except `lastUsedAt`, which is `null` until the first use.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    audit::AuditEvent,
    error::{Error, ErrorKind},
    http::responses::{ErrorCode, no_store_response, problem_response},
    manage::{AuditExport, Issued},
    model::{Access, Invalid, Key, Networks, OwnerScope, Permissions, RetiringSecret, Timestamp},
    verify::{Limited, Verified, whole_seconds},
};

/// The body of a response: complete, or in chunks that are read from the store on demand.
///
/// # Examples
/// ```
/// # use keyward::{Error, http::manage::ManageBody};
/// /// For a framework that accepts only complete bodies.
/// async fn collect(mut body: ManageBody) -> Result<String, Error> {
///     let mut text = String::new();
///     while let Some(chunk) = body.next_chunk().await? {
///         text += &chunk;
///     }
///     Ok(text)
/// }
/// ```
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
    /// If the store fails. The body is then incomplete, and the server MUST abort the connection so
    /// that the client notices.
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
}

impl From<String> for ManageBody {
    fn from(text: String) -> Self {
        Self { ready: Some(text), rest: None }
    }
}

/// Omits the content, which may contain a secret.
impl std::fmt::Debug for ManageBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManageBody").finish_non_exhaustive()
    }
}

/// A [`ManageBody`] that servers poll. Each chunk is read only when it is polled for.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) struct BodyStream(Option<NextChunk>);

#[cfg(any(feature = "axum", feature = "actix"))]
type NextChunk =
    std::pin::Pin<Box<dyn Future<Output = (ManageBody, Result<Option<String>, Error>)> + Send>>;

#[cfg(any(feature = "axum", feature = "actix"))]
impl BodyStream {
    pub(crate) fn new(mut body: ManageBody) -> Self {
        Self(Some(Box::pin(async move {
            let chunk = body.next_chunk().await;
            (body, chunk)
        })))
    }

    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<String, Error>>> {
        let Some(next) = &mut self.0 else { return std::task::Poll::Ready(None) };
        let (body, chunk) = std::task::ready!(next.as_mut().poll(cx));
        *self = if let Ok(Some(_)) = chunk { Self::new(body) } else { Self(None) };
        std::task::Poll::Ready(chunk.transpose())
    }
}

pub(super) type ManageResult = Result<Response<String>, ManageError>;

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> ManageResult {
    let text = serde_json::to_string(body).map_err(|_| ManageError::internal())?;
    Ok(no_store_response(status, "application/json", text))
}

pub(super) fn message_response(status: StatusCode, text: &str) -> ManageResult {
    json_response(status, &json!({ "message": text }))
}

/// Responds with a page of items. `next` is omitted on the last page.
pub(super) fn page_response(
    name: &str,
    items: Vec<impl Serialize>,
    next: Option<impl ToString>,
) -> ManageResult {
    let mut page = json!({ name: items });
    if let Some(next) = next {
        page["next"] = next.to_string().into();
    }
    json_response(StatusCode::OK, &page)
}

/// A key, with its secret if it was just issued.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyView<'a> {
    id: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    prefix: &'a str,
    created_at: String,
    /// Omitted for a key that was just issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Option<String>>,
    /// The account that owns the key; only shown to administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_at: Option<String>,
    /// The previous secret, until the overlap of the rotation ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    retiring: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_ip: Option<IpAddr>,
}

impl<'a> KeyView<'a> {
    /// Returns the view of a caller that may see the keys of `visible`.
    pub(super) fn new(key: &'a Key, visible: OwnerScope<'_>, now: Timestamp) -> Self {
        let instant = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let is_administrator = matches!(visible, OwnerScope::Tenant(_));
        let retiring = key.retiring.as_ref().filter(|retiring| retiring.ends_at > now);
        Self {
            id: key.id.to_string(),
            name: key.name.as_str(),
            key: None,
            prefix: &key.hint,
            created_at: key.created_at.to_string(),
            last_used_at: Some(instant(key.last_used_at)),
            account: is_administrator.then(|| key.owner.account()),
            scopes: match &key.access {
                Access::Inherited => None,
                Access::Only(scopes) => Some(scopes.iter().collect()),
            },
            allowed_networks: match &key.networks {
                Networks::Any => None,
                Networks::Only(networks) => {
                    Some(networks.iter().map(|net| net.to_string()).collect())
                }
            },
            metadata: key.metadata.iter().collect(),
            expires_at: instant(key.expires_at),
            disabled_at: instant(key.disabled_at),
            revoked_at: instant(key.revoked.as_ref().map(|revocation| revocation.at)),
            rotated_at: instant(key.rotated_at),
            retiring: retiring.map(|RetiringSecret { hint, ends_at, .. }| {
                json!({ "prefix": hint, "endsAt": ends_at.to_string() })
            }),
            last_used_ip: key.last_used_ip,
        }
    }

    pub(super) fn issued(issued: &'a Issued, visible: OwnerScope<'_>, now: Timestamp) -> Self {
        let key = Some(issued.secret.expose());
        Self { key, last_used_at: None, ..Self::new(&issued.key, visible, now) }
    }
}

pub(super) fn event_json(event: &AuditEvent) -> Value {
    json!({
        "id": event.id.to_string(),
        "time": event.at.to_string(),
        "event": event.kind.as_str(),
        "result": event.outcome.as_str(),
        "account": event.account,
        "keyId": event.key_id.map(|id| id.to_string()),
        "actor": event.actor,
        "ip": event.ip,
        "userAgent": event.user_agent,
        "reason": event.reason,
        "count": event.count,
    })
}

/// Returns the response of RFC 7662. Without a valid token that the caller may see, it contains
/// only `active: false`.
pub(super) fn introspection_json(verified: Option<&Verified>) -> Value {
    let Some(verified) = verified else { return json!({ "active": false }) };
    let seconds = |at: Timestamp| at.as_unix_micros() / 1_000_000;
    let mut response = json!({
        "active": true,
        "sub": verified.owner().account(),
        "client_id": verified.key_id().to_string(),
        "token_type": "Bearer",
        "iat": seconds(verified.created_at()),
    });
    if let Permissions::Only(scopes) = verified.permissions() {
        response["scope"] = scopes.to_string().into();
    }
    if let Some(at) = verified.expires_at() {
        response["exp"] = seconds(at).into();
    }
    response
}

/// A request that failed, with everything that is sent to the client.
pub(super) struct ManageError {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    /// Numeric extensions of the problem details.
    numbers: Vec<(&'static str, u64)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ManageError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, detail: detail.into(), numbers: Vec::new(), headers: Vec::new() }
    }

    /// The same for keys that do not exist and for keys of other owners.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no key with this id")
    }

    pub(super) fn unknown_path() -> Self {
        let detail = "there is no such path: see the API description";
        Self::new(StatusCode::NOT_FOUND, "no_such_page", detail)
    }

    pub(super) fn method_not_allowed(allowed: String) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut error = Self::new(status, "method_not_allowed", format!("use {allowed}"));
        error.headers.extend(HeaderValue::try_from(allowed).ok().map(|allowed| (ALLOW, allowed)));
        error
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub(super) fn media_type(detail: &'static str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail)
    }

    /// The detail is the parser's message. It may quote the body, but only its sender receives it.
    pub(super) fn malformed_body(error: &serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::invalid(error.to_string()),
            _ => Self::new(StatusCode::BAD_REQUEST, "malformed_body", error.to_string()),
        }
    }

    pub(super) fn idempotency_key_reused() -> Self {
        let detail = "this Idempotency-Key belongs to an earlier request that cannot be repeated: \
                      that request was different, or its key has been used or is gone; send another \
                      Idempotency-Key";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
    }

    pub(super) fn in_progress() -> Self {
        let detail = "a request with this Idempotency-Key is in progress: try again";
        Self::new(StatusCode::CONFLICT, "conflict", detail).with_retry_after(1)
    }

    pub(super) fn limited(limited: &Limited) -> Self {
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, ErrorCode::from_limit(limited.reason));
        let error = Self::new(status, code.as_str(), limited.to_string());
        match limited.retry_after {
            Some(wait) => error.with_retry_after(whole_seconds(wait)),
            None => error,
        }
    }

    pub(super) fn internal() -> Self {
        let detail = "internal error: contact the operator of the service";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((RETRY_AFTER, seconds.into()));
        self
    }

    pub(super) fn into_response(self) -> Response<String> {
        let mut response = problem_response(self.status, self.code, &self.detail, &self.numbers);
        response.headers_mut().extend(self.headers);
        response
    }
}

/// Returns the response to a body larger than [`MAX_BODY`](super::MAX_BODY).
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) fn too_large() -> Response<String> {
    let detail = "the body is too large: send at most 64 KiB";
    problem_response(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, &[])
}

impl From<Error> for ManageError {
    fn from(error: Error) -> Self {
        let unavailable = |code, detail| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with_retry_after(5)
        };
        let (status, code) = match error.kind() {
            // Fixed texts: the error itself may name hosts and addresses of the operator.
            ErrorKind::Unavailable | ErrorKind::Entropy => {
                return unavailable("unavailable", "the service is unavailable: try again later");
            }
            ErrorKind::OutcomeUnknown => return unavailable("outcome_unknown", OUTCOME_UNKNOWN),
            ErrorKind::Unconfirmed => return unavailable("unconfirmed", UNCONFIRMED),
            ErrorKind::Corrupt => return Self::internal(),
            ErrorKind::NotFound => return Self::not_found(),
            ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
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
        let numbers = limit.into_iter().chain(max_age).collect();
        Self { numbers, ..Self::new(status, code, error.to_string()) }
    }
}

impl From<Invalid> for ManageError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}

const OUTCOME_UNKNOWN: &str =
    "the change may or may not have been made: read the key before trying again";
const UNCONFIRMED: &str = "the change was made, but is not replicated yet, and a failover could \
    lose it: repeat a revocation until it succeeds";
