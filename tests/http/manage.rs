//! The management API in an axum router, with sessions simulated by a header.

mod defaults;
mod errors;
mod idempotency;
mod others;
mod shapes;
mod step_up;
mod tokens;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::FromRequestParts,
    http::{Request, StatusCode, request::Parts},
};
use keyward::{
    Actor, ApiKeys, Owner,
    http::{
        manage::{Caller, ManagementApi},
        openapi::{CallerAuth, document},
    },
    model::{Permissions, Scopes},
    testing::ManualClock,
};
use serde_json::Value;
use tower::ServiceExt;
use utoipa::openapi::{
    OpenApi,
    security::{ApiKey, ApiKeyValue, SecurityScheme},
};

use super::declared::{Document, Seen};

/// The caller in the header `x-session`: `tenant/account`, `tenant/account/administrator`,
/// `tenant/account/confirmed` with a second factor, or `tenant/account/scope` for a session that can
/// grant only this scope.
struct Session(Caller);

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let session = parts.headers.get("x-session").and_then(|value| value.to_str().ok());
        let words: Vec<_> = session.unwrap_or_default().split('/').collect();
        let (tenant, account, more) = match words[..] {
            [tenant, account] => (tenant, account, None),
            [tenant, account, more] => (tenant, account, Some(more)),
            _ => return Err(StatusCode::UNAUTHORIZED),
        };
        let owner = Owner::new(tenant, account).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let actor = Actor::account(account);
        Ok(Self(match more {
            None => Caller::new(owner, actor),
            Some("administrator") => Caller::new(owner, actor).administrator(),
            // Confirmed now, by the clock of the tests.
            Some("confirmed") => {
                let now = keyward::system::Clock::now(&ManualClock::default());
                Caller::new(owner, actor.second_factor_at(now))
            }
            Some(scope) => {
                let permissions = Permissions::Only(Scopes::new([scope]).unwrap());
                Caller::new(owner, actor.limited_to(permissions))
            }
        }))
    }
}

impl From<Session> for Caller {
    fn from(session: Session) -> Self {
        session.0
    }
}

/// A client of the API under `/v1`, with one session.
#[derive(Clone)]
pub struct Client {
    app: Router,
    session: &'static str,
}

pub struct Reply {
    pub status: u16,
    pub fields: axum::http::HeaderMap,
    pub text: String,
}

impl Client {
    pub fn new(keys: &ApiKeys, session: &'static str) -> Self {
        Self::of(keys.clone(), session)
    }

    fn of(api: impl Into<ManagementApi>, session: &'static str) -> Self {
        let api = keyward::axum::manage::router::<Session, _>(api);
        Self { app: Router::new().nest("/v1", api), session }
    }

    fn as_session(&self, session: &'static str) -> Self {
        Self { app: self.app.clone(), session }
    }

    pub fn document() -> Document {
        let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-session")));
        let api = document(&CallerAuth::scheme("session", header));
        Document::new(&OpenApi::default().nest("/v1", api))
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Reply {
        self.call_with(method, path, body, &[("content-type", "application/json")]).await
    }

    /// Sends a request, and checks that the document declares the response.
    async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: &str,
        fields: &[(&str, &str)],
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("/v1{path}"));
        for (name, value) in fields.iter().chain([&("x-session", self.session)]) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        let text = String::from_utf8(bytes.into()).unwrap();
        let reply = Reply { status: parts.status.as_u16(), fields: parts.headers, text };
        let seen = Seen { status: reply.status, fields: &reply.fields, body: &reply.text };
        Self::document().expect(method, &format!("/v1{path}"), &seen);
        reply
    }

    async fn create(&self, body: &str) -> Value {
        let reply = self.call("POST", "/api-keys", body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()
    }
}

impl Reply {
    fn json(&self) -> Value {
        assert_eq!(self.fields["cache-control"], "no-store");
        serde_json::from_str(&self.text).unwrap()
    }

    /// Returns the status and the stable code of the problem details.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.fields["content-type"], "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        (self.status, problem["code"].as_str().unwrap().into())
    }
}

/// Returns a request for every route with a key id.
fn routes_of(id: &str) -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("GET", format!("/api-keys/{id}"), ""),
        ("PATCH", format!("/api-keys/{id}"), r#"{"name": "mine now"}"#),
        ("PATCH", format!("/api-keys/{id}"), r#"{"unknown": 1}"#),
        ("POST", format!("/api-keys/{id}/rotate"), ""),
        ("POST", format!("/api-keys/{id}/rotate"), "no JSON"),
        ("POST", format!("/api-keys/{id}/disable"), ""),
        ("POST", format!("/api-keys/{id}/enable"), ""),
        ("GET", format!("/api-keys/{id}/events"), ""),
        ("GET", format!("/api-keys/{id}/events?unknown=1"), ""),
        ("DELETE", format!("/api-keys/{id}"), ""),
        ("DELETE", format!("/api-keys/{id}/record"), ""),
    ]
}
