//! The API by which users of a service manage their own keys, independent of the web framework.
//!
//! [`ManagementApi`] takes a [`ManageRequest`] and the [`Caller`] that the host has authenticated, and returns the
//! response. The adapters mount it in a router. Paths are relative to where it is mounted.
//!
//! | request | effect |
//! |---|---|
//! | `POST /api-keys` | creates a key: 201; the response is the only one that contains the secret |
//! | `GET /api-keys?status=&limit=&cursor=` | lists keys, newest first |
//! | `GET /api-keys/{id}` | returns a key |
//! | `PATCH /api-keys/{id}` | changes name, scopes, networks, metadata |
//! | `DELETE /api-keys/{id}` | revokes the key; its record stays |
//! | `DELETE /api-keys/{id}/record` | deletes the key and its record |
//! | `POST /api-keys/{id}/rotate` | issues a new secret, contained only in this response |
//! | `POST /api-keys/{id}/disable`, `…/enable` | disables the key, and enables it again |
//! | `GET /api-keys/{id}/events` | lists the audit events of the key |
//! | `GET /audit?event=&from=&until=&limit=&cursor=` | lists the audit events of all keys |
//! | `GET /audit.jsonl?event=&from=&until=`, `/audit.csv?…` | exports the audit events as a file of any length |
//! | `POST /introspect` | token introspection (RFC 7662): whether a secret is valid |
//!
//! | body | fields |
//! |---|---|
//! | of a new key | `name`; optional: `scopes`, `expiresInDays` or `expiresAt`, `allowedNetworks`, `metadata` |
//! | of a change | optional: `name`, `scopes`, `allowedNetworks`, `metadata` |
//! | of a rotation | optional: `overlapSeconds`, 0 by default |
//!
//! [The manual](crate::manual::management_api) has every field with its bounds and default, every response and every error.
//!
//! A caller sees and changes its own keys, or those of its tenant if it is an administrator. The response for the id of
//! any other key is the same as for an id that does not exist. No request can name another owner. Errors are problem
//! details (RFC 9457) with a stable `code`. `HEAD` is answered where `GET` is, with the same headers; servers omit the
//! body. Paths are compared as they were sent: a percent-encoded path names no route.
//!
//! Introspection does not use the key: it charges no rate and no quota, and records neither a use nor a denial. `exp` is
//! the expiry of the key, or the earlier end of a replaced secret. The parameter `client_ip` is the address of the client
//! that presented the secret; without it, the networks of the key do not matter. The response is `active: false` for
//! every key that the caller may not see, whatever its state. A caller that presents more than 20 secrets per second that
//! are not active, after a burst of 200, gets 429.
//!
//! A change that widens what a key may do requires a second factor if the host's [`StepUp`](crate::accounts::StepUp)
//! policy says so. The response is then `second_factor_required` (403), with its maximum age in seconds as `maxAge`.
//! The host records it with [`Actor::second_factor_at`](crate::model::Actor::second_factor_at), and the client retries.
//!
//! `Idempotency-Key` makes it safe to repeat a create or rotate request whose response was lost: the repetition returns
//! the same key with a new secret in place of the lost one. No secret is stored for that.
//! - All requests with the same value create one key, or rotate once. In the first 10 seconds after that, a repetition
//!   gets 409 `conflict` with `Retry-After`: the response to another request may be on its way.
//! - A repetition gets 422 `idempotency_key_reused` if it asks for something else, or if the secret was used or no longer
//!   exists. A use on another node is known once that node has written it: the first use of a secret immediately, others
//!   within 5 seconds, unless the store fails.
//! - A value is valid for one owner or key for one day: from the creation of the key, or from the last rotation with this
//!   value. If the key was rotated with another value, the first value rotates it again.
//!
//! [`NewKey::token`](crate::NewKey::token) and [`Rotation::token`](crate::manage::Rotation::token) do the same.
//!
//! If callers are browser sessions, the host MUST add its own protection against cross-site requests (CSRF): see
//! [`Verified::is_csrf_exempt`](crate::Verified::is_csrf_exempt). [`SignIn`] lets people without a session sign in by
//! e-mail.

mod requests;
mod responses;
mod sign_in;

use std::{net::IpAddr, str::FromStr, time::Duration};

use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_DISPOSITION};
use serde_json::Value;

pub use self::{
    requests::{Caller, ManageRequest, NewKeyDefaults},
    responses::ManageBody,
    sign_in::SignIn,
};
use self::{
    requests::{ChangeBody, CreateBody, Parameters, RotateBody},
    responses::{
        ManageError, ManageResult, event_json, introspection_json, json_response, key_json,
        message_json, page_json,
    },
};
use crate::{
    api::ApiKeys,
    audit::{AuditQuery, ExportFormat},
    http::responses::{Rejection, no_store_response},
    manage::{Issued, Page, Rotation},
    model::{Key, KeyId, Status},
    verify::{Introspection, VerifyRequest},
};
#[cfg(any(feature = "axum", feature = "actix"))]
use crate::{http::responses::ErrorCode, verify::Verified};

/// The management API of an [`ApiKeys`].
///
/// # Examples
/// ```
/// # use keyward::{Actor, Owner, testing::TestKeys};
/// use http::Method;
/// use keyward::http::manage::{Caller, ManageRequest, ManagementApi};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = TestKeys::new().keys;
/// let ada = Caller::new(Owner::new("acme", "ada")?, Actor::account("ada@acme.example"));
/// let request = ManageRequest::new(&Method::POST, "/api-keys").json(br#"{"name": "ci-pipeline"}"#);
/// let mut response = ManagementApi::new(keys).handle(&ada, &request).await;
/// assert_eq!(response.status(), 201);
/// while let Some(chunk) = response.body_mut().next_chunk().await? {
///     assert!(chunk.contains("ci-pipeline"));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ManagementApi {
    keys: ApiKeys,
    defaults: NewKeyDefaults,
}

/// The operations of the API. The router and the OpenAPI document are built from [`ROUTES`], so they cannot disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    ListKeys,
    CreateKey,
    GetKey,
    ChangeKey,
    RevokeKey,
    DeleteKey,
    RotateKey,
    DisableKey,
    EnableKey,
    KeyEvents,
    Audit,
    ExportAudit(ExportFormat),
    Introspect,
}

/// The method and the path of each route.
pub(crate) static ROUTES: [(Method, &str, Route); 14] = [
    (Method::GET, "/api-keys", Route::ListKeys),
    (Method::POST, "/api-keys", Route::CreateKey),
    (Method::GET, "/api-keys/{id}", Route::GetKey),
    (Method::PATCH, "/api-keys/{id}", Route::ChangeKey),
    (Method::DELETE, "/api-keys/{id}", Route::RevokeKey),
    (Method::DELETE, "/api-keys/{id}/record", Route::DeleteKey),
    (Method::POST, "/api-keys/{id}/rotate", Route::RotateKey),
    (Method::POST, "/api-keys/{id}/disable", Route::DisableKey),
    (Method::POST, "/api-keys/{id}/enable", Route::EnableKey),
    (Method::GET, "/api-keys/{id}/events", Route::KeyEvents),
    (Method::GET, "/audit", Route::Audit),
    (Method::GET, "/audit.jsonl", Route::ExportAudit(ExportFormat::JsonLines)),
    (Method::GET, "/audit.csv", Route::ExportAudit(ExportFormat::Csv)),
    (Method::POST, "/introspect", Route::Introspect),
];

impl ManagementApi {
    /// Creates the API for these keys.
    pub fn new(keys: ApiKeys) -> Self {
        Self { keys, defaults: NewKeyDefaults::new() }
    }

    /// Sets what a new key gets where a request does not say. By default, it does not expire, and may do all that its
    /// owner may do.
    #[must_use]
    pub fn new_key_defaults(self, defaults: NewKeyDefaults) -> Self {
        Self { defaults, ..self }
    }

    /// Handles a request.
    pub async fn handle(
        &self,
        caller: &Caller,
        request: &ManageRequest<'_>,
    ) -> Response<ManageBody> {
        let Self { keys, defaults } = self;
        let result = Call { keys, defaults: *defaults, caller, request }.dispatch().await;
        result.unwrap_or_else(|error| error.into_response().map(ManageBody::from))
    }

    /// Handles a request that an adapter received. If a guard in front of the routes has verified a key, the caller MUST
    /// be that key, or the request is rejected.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) async fn handle_behind_guard(
        &self,
        verified: Option<&Verified>,
        caller: &Caller,
        request: &ManageRequest<'_>,
    ) -> Response<ManageBody> {
        if verified.is_some_and(|key| caller.actor.key_id != Some(key.key_id())) {
            return Rejection::new(ErrorCode::RepeatedCredentials).into_response();
        }
        self.handle(caller, request).await
    }
}

impl From<ApiKeys> for ManagementApi {
    fn from(keys: ApiKeys) -> Self {
        Self::new(keys)
    }
}

impl Route {
    /// Returns the route, and the segment of the path in place of `{id}`. `HEAD` has the routes of `GET`.
    fn find<'a>(method: &Method, path: &'a str) -> Result<(Self, &'a str), ManageError> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let mut allowed = Vec::new();
        for (known, template, route) in &ROUTES {
            let Some(id) = match_path(path, template) else { continue };
            if known == method {
                return Ok((*route, id));
            }
            allowed.push(known.as_str());
            allowed.extend((*known == Method::GET).then_some("HEAD"));
        }
        Err(match allowed.join(", ").as_str() {
            "" => ManageError::unknown_path(),
            allowed => ManageError::method_not_allowed(allowed),
        })
    }
}

/// Returns the segment in place of `{id}` if the path matches the template; empty if the template has no `{id}`.
fn match_path<'a>(path: &'a str, template: &str) -> Option<&'a str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let template = template.strip_prefix('/')?;
    let Some((before, after)) = template.split_once("{id}") else {
        return (path == template).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// A request that is being handled.
struct Call<'a> {
    keys: &'a ApiKeys,
    defaults: NewKeyDefaults,
    caller: &'a Caller,
    request: &'a ManageRequest<'a>,
}

impl Call<'_> {
    async fn dispatch(&self) -> ManageResult<Response<ManageBody>> {
        let &Self { keys, caller, request, .. } = self;
        let (route, segment) = Route::find(request.method, request.path)?;
        // A malformed id gets the same response as an unknown one.
        let id = || segment.parse::<KeyId>().map_err(|_| ManageError::not_found());
        let (owners, actor) = (caller.owner_scope(), &caller.actor);
        if let Route::ChangeKey | Route::RotateKey | Route::KeyEvents = route {
            // Checks the id before the body and the query, so that an invalid one gets the same response for keys of
            // other owners and for keys that do not exist.
            keys.get(owners, id()?).await?;
        }
        let mut status = StatusCode::OK;
        let body = match route {
            Route::ExportAudit(format) => return self.export(format).await,
            Route::ListKeys => self.list().await?,
            Route::CreateKey => {
                status = StatusCode::CREATED;
                self.issued_json(&self.create().await?)
            }
            Route::GetKey => self.key_json(&*keys.get(owners, id()?).await?),
            Route::ChangeKey => {
                let change = request.parse_json::<ChangeBody>()?.into_change()?;
                self.key_json(&*keys.update(owners, id()?, &change, actor).await?)
            }
            Route::RevokeKey => {
                keys.revoke(owners, id()?, "", actor).await?;
                message_json("API key revoked")
            }
            Route::DeleteKey => {
                keys.delete(owners, id()?, actor).await?;
                message_json("API key record deleted")
            }
            Route::RotateKey => self.issued_json(&self.rotate(id()?).await?),
            Route::DisableKey => self.key_json(&*keys.disable(owners, id()?, actor).await?),
            Route::EnableKey => self.key_json(&*keys.enable(owners, id()?, actor).await?),
            Route::KeyEvents => {
                let parameters = request.query_parameters(&["limit", "cursor"])?;
                self.event_page(AuditQuery::new(owners).key(id()?), &parameters).await?
            }
            Route::Audit => {
                let known = ["event", "from", "until", "limit", "cursor"];
                let parameters = request.query_parameters(&known)?;
                self.event_page(self.audit_query(&parameters)?, &parameters).await?
            }
            Route::Introspect => self.introspect().await?,
        };
        Ok(json_response(status, &body).map(ManageBody::from))
    }

    async fn list(&self) -> ManageResult<Value> {
        let parameters = self.request.query_parameters(&["status", "limit", "cursor"])?;
        let mut page = Page::first().limit(parse_limit(&parameters)?);
        page.after = parse_cursor(&parameters)?;
        if let Some(text) = parameters.get("status") {
            page.status = Status::ALL.into_iter().find(|status| status.as_str() == *text);
            let expected = "status must be active, disabled, revoked or expired";
            page.status.ok_or_else(|| ManageError::invalid(expected))?;
        }
        let page = self.keys.list(self.caller.owner_scope(), page).await?;
        let keys = page.keys.iter().map(|key| self.key_json(key));
        let mut json = page_json("keys", keys.collect(), page.next);
        if !page.damaged.is_empty() {
            json["damaged"] = page.damaged.iter().map(ToString::to_string).collect();
        }
        Ok(json)
    }

    async fn rotate(&self, id: KeyId) -> ManageResult<Issued> {
        let &Self { keys, caller, request, .. } = self;
        let RotateBody { overlap_seconds } =
            if request.body.is_empty() { RotateBody::default() } else { request.parse_json()? };
        let mut rotation = Rotation::overlap(Duration::from_secs(overlap_seconds.into()));
        if let Some(token) = request.idempotency_token()? {
            rotation = rotation.token(token);
        }
        Ok(keys.rotate(caller.owner_scope(), id, rotation, &caller.actor).await?)
    }

    fn key_json(&self, key: &Key) -> Value {
        key_json(key, None, self.caller.owner_scope(), self.keys.now())
    }

    fn issued_json(&self, Issued { key, secret }: &Issued) -> Value {
        key_json(key, Some(secret), self.caller.owner_scope(), self.keys.now())
    }

    /// Looks at the key and does not use it. The address of the caller itself says nothing about the client that
    /// presented the secret, so only an address in the form is compared with the networks of the key.
    async fn introspect(&self) -> ManageResult<Value> {
        let &Self { keys, caller, request, .. } = self;
        let form = request.form_parameters()?;
        let expected = || ManageError::invalid("send the form parameter `token`");
        let token = form.get("token").ok_or_else(expected)?;
        let address = form.get("client_ip").map(|text| text.parse::<IpAddr>()).transpose();
        let expected = |_| ManageError::invalid("client_ip must be an IP address: 192.0.2.7");
        let ip = address.map_err(expected)?;
        let tenant = Some(caller.owner.tenant());
        let looks = VerifyRequest { tenant, ip, any_network: ip.is_none(), ..VerifyRequest::new() };
        match keys.introspect(token, &caller.owner, caller.owner_scope(), &looks).await? {
            Introspection::Active(key) => Ok(introspection_json(Some(&key))),
            Introspection::Inactive => Ok(introspection_json(None)),
            Introspection::Limited(limited) => Err(Rejection::limited(&limited).into()),
        }
    }

    async fn create(&self) -> ManageResult<Issued> {
        let body = self.request.parse_json::<CreateBody>()?;
        let new = body.into_new_key(&self.caller.owner, self.defaults)?;
        let new = match self.request.idempotency_token()? {
            Some(token) => new.token(token),
            None => new,
        };
        Ok(self.keys.issue(new, &self.caller.actor).await?)
    }

    fn audit_query(&self, parameters: &Parameters<'_>) -> ManageResult<AuditQuery<'_>> {
        let instant = |name: &str| parameters.get(name).map(|text| text.parse()).transpose();
        let mut query = AuditQuery::new(self.caller.owner_scope());
        query.kind = parameters.get("event").map(|text| text.parse()).transpose()?;
        (query.from, query.until) = (instant("from")?, instant("until")?);
        Ok(query)
    }

    async fn event_page(
        &self,
        mut query: AuditQuery<'_>,
        parameters: &Parameters<'_>,
    ) -> ManageResult<Value> {
        let limit = parse_limit(parameters)?;
        query.after = parse_cursor(parameters)?;
        // Reads one more event than the page holds, to learn whether there is a next page.
        let mut events = self.keys.events(query.limit(limit + 1)).await?;
        let has_more = events.len() > limit as usize;
        events.truncate(limit as usize);
        let next = events.last().filter(|_| has_more).map(|event| event.id);
        Ok(page_json("events", events.iter().map(event_json).collect(), next))
    }

    async fn export(&self, format: ExportFormat) -> ManageResult<Response<ManageBody>> {
        let parameters = self.request.query_parameters(&["event", "from", "until"])?;
        let query = self.audit_query(&parameters)?.limit(EXPORT_PAGE_SIZE);
        let body = ManageBody::export(self.keys.export(query, format)).await?;
        let mut response = no_store_response(StatusCode::OK, format.media_type(), String::new());
        // The export contains text chosen by users: browsers must save it, not render it in the origin of a dashboard.
        let attachment = HeaderValue::from_static("attachment");
        response.headers_mut().insert(CONTENT_DISPOSITION, attachment);
        Ok(response.map(|_| body))
    }
}

/// Parses the size of a page: 1 to 200. Defaults to 50.
fn parse_limit(parameters: &Parameters<'_>) -> ManageResult<u32> {
    let Some(text) = parameters.get("limit") else { return Ok(50) };
    let number = text.parse().ok().filter(|number| (1..=200).contains(number));
    number.ok_or_else(|| ManageError::invalid("limit must be a number from 1 to 200"))
}

fn parse_cursor<T: FromStr>(parameters: &Parameters<'_>) -> ManageResult<Option<T>> {
    let detail = "cursor must be the value of `next` from the previous page";
    let cursor = parameters.get("cursor").map(|text| text.parse()).transpose();
    cursor.map_err(|_| ManageError::invalid(detail))
}

/// The largest body that an adapter reads: 64 KiB.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) const MAX_BODY: usize = 64 * 1024;
/// The number of audit events that an export reads from the store at a time.
const EXPORT_PAGE_SIZE: u32 = 500;
