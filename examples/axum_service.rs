//! A small service with sessions, an API by which people manage their keys, a route that takes keys,
//! and a document that describes all of it: `cargo run --example axum_service`, or with
//! `-- --database-url postgres://…`, and `--redis-url redis://…` for rates that all nodes of the service share.

use std::{env, error::Error, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::FromRequestParts,
    http::{StatusCode, header::COOKIE, request::Parts},
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
use tokio::net::TcpListener;
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

    let reads = Guard::new(keys.clone()).require("builds:read");
    let visitors = Guard::new(keys.clone()).optional();
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session")));
    let manage = manage_router::<Session, _>(keys.clone(), &CallerAuth::by("session", cookie));
    let (app, document): (Router, _) = OpenApiRouter::with_openapi(Acme::openapi())
        .guarded_routes(&reads, routes!(list_builds))
        .guarded_routes(&visitors, routes!(front_page))
        .nest("/v1", manage)
        .split_for_parts();
    let app = app.route("/openapi.json", get(Json(document)));

    let listen = argument("--listen").unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(listen).await?;
    let at = format!("http://{}", listener.local_addr()?);
    println!(
        "Make a key:      curl {at}/v1/api-keys -b session=ada --json '{{\"name\": \"ci\", \"scopes\": [\"builds:read\"]}}'"
    );
    println!("Use it:          curl -i {at}/builds -H 'Authorization: Bearer acme_live_…'");
    println!("Look at it:      curl {at}/v1/api-keys -b session=ada");
    println!("What was done:   curl {at}/v1/audit -b session=ada");
    println!("All there is:    curl {at}/openapi.json");
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    // What was noted of uses and refusals, and is not written yet.
    keys.shutdown().await?;
    Ok(())
}

#[derive(OpenApi)]
#[openapi(info(title = "Acme", version = "1.0.0", description = "Builds, and the keys to them."))]
struct Acme;

/// The builds of whoever's key it is.
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

/// A greeting, with or without a key.
#[utoipa::path(get, path = "/", responses((status = 200, body = String, content_type = "text/plain")))]
async fn front_page(visitor: Option<Verified>) -> String {
    visitor.map_or("hello, stranger\n".into(), |verified| {
        format!("hello, {}\n", verified.owner().account())
    })
}

/// Whose browser it is: Ada's or Bob's. A stand-in: a real service looks a random token up in its own
/// sessions, and guards cookies against cross-site requests.
struct Session {
    owner: Owner,
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let cookies = parts.headers.get(COOKIE).and_then(|value| value.to_str().ok());
        let mut cookies = cookies.unwrap_or_default().split("; ");
        let account = cookies.find_map(|cookie| cookie.strip_prefix("session="));
        let account = account.filter(|account| ["ada", "bob"].contains(account));
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
