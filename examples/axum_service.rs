//! A small service on axum: sessions, the management API, a route that requires an API key, and an
//! OpenAPI document of all routes. Run it with `cargo run -p keyward-tests --example axum_service`. Options:
//! `-- --database-url postgres://…` stores keys in PostgreSQL, and `--redis-url redis://…` shares rate
//! limits between nodes.

#[path = "common/serve.rs"]
mod serve;
#[path = "common/session_cookie.rs"]
mod session_cookie;

use std::{env, error::Error, sync::Arc};

use axum::{
    Json, Router,
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    routing::get,
};
use keyward::{
    Actor, ApiKeys, KeyFormat, KeyStore, Limits, Owner, PostgresStore, SqliteStore, Verified,
    accounts::NoAccounts,
    axum::openapi::{GuardedRoutes, manage_router},
    http::{Guard, manage::Caller, openapi::CallerAuth},
    model::Rate,
    verify::RedisRateLimiter,
};
use tower_http::csrf::CsrfLayer;
use utoipa::{
    OpenApi, ToSchema,
    openapi::security::{ApiKey, ApiKeyValue, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn KeyStore> = match argument("--database-url") {
        Some(url) => Arc::new(PostgresStore::connect(&url).await?),
        None => Arc::new(SqliteStore::open(folder.path().join("keys.db")).await?),
    };
    let plan = Limits::default().max_active_keys(5).rate(Rate::per_minute(60).burst(10));
    let format = KeyFormat::builder("acme").environment("live").build()?;
    let keys = ApiKeys::builder_on(store, format).accounts(NoAccounts::with_limits(plan));
    let keys = match argument("--redis-url") {
        Some(url) => keys.rate_limiter(RedisRateLimiter::new([url])?).build(),
        None => keys.build(),
    };

    let reads = Guard::builder(keys.clone()).require("builds:read").build()?;
    let visitors = Guard::builder(keys.clone()).optional().build()?;
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session")));
    let manage = manage_router::<Session, _>(keys.clone(), &CallerAuth::scheme("session", cookie));
    let (app, document): (Router, _) = OpenApiRouter::with_openapi(Acme::openapi())
        .guarded_routes(&reads, routes!(list_builds))
        .guarded_routes(&visitors, routes!(front_page))
        .nest("/v1", manage)
        .split_for_parts();
    // Refuses changes that another site asks a browser for (CSRF).
    let app = app.route("/openapi.json", get(Json(document))).layer(CsrfLayer::new());

    let listen = argument("--listen").unwrap_or("127.0.0.1:8080".into());
    let listener = serve::listen(&listen).await?;
    let at = format!("http://{}", listener.local_addr()?);
    println!("Acme is at {at}");
    println!(
        "Create a key:     curl {at}/v1/api-keys -b session=ada --json '{{\"name\": \"ci\", \"scopes\": [\"builds:read\"]}}'"
    );
    println!("Use it:           curl -i {at}/builds -H 'Authorization: Bearer acme_live_…'");
    println!("List keys:        curl {at}/v1/api-keys -b session=ada");
    println!("Audit log:        curl {at}/v1/audit -b session=ada");
    println!("OpenAPI document: curl {at}/openapi.json");
    serve::serve(listener, app).await?;
    // Writes recorded uses and denials that are still in memory.
    keys.shutdown().await?;
    Ok(())
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Acme",
    version = "1.0.0",
    description = "Builds, and API keys to read them."
))]
struct Acme;

/// Lists the builds of the owner of the key.
#[utoipa::path(get, path = "/builds", responses((status = 200, body = Builds)))]
async fn list_builds(verified: Verified) -> Json<Builds> {
    let account = verified.owner().account().into();
    Json(Builds { account, builds: vec!["4711".into(), "4712".into()] })
}

#[derive(serde::Serialize, ToSchema)]
struct Builds {
    account: String,
    builds: Vec<String>,
}

/// Greets the owner of the key, or an anonymous visitor.
#[utoipa::path(get, path = "/", responses((status = 200, body = String, content_type = "text/plain")))]
async fn front_page(visitor: Option<Verified>) -> String {
    visitor.map_or("hello, stranger\n".into(), |verified| {
        format!("hello, {}\n", verified.owner().account())
    })
}

/// A session of Ada or Bob. For demonstration only: a real service looks up a random token in its own
/// sessions.
struct Session {
    owner: Owner,
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let account = session_cookie::session_cookie(&parts.headers)
            .filter(|account| ["ada", "bob"].contains(account));
        let owner = account.and_then(|account| Owner::account_only(account).ok());
        owner.map(|owner| Self { owner }).ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl From<Session> for Caller {
    fn from(session: Session) -> Self {
        let actor = Actor::account(session.owner.account());
        Self::new(session.owner, actor)
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}
