//! The server of a product whose users sign in from the command line with a code sent by email:
//! `cargo run -p keyward-tests --example lua_server`, and in another terminal `cargo run -p keyward-tests --example lua_cli`.
//!
//! Options, after `--`:
//! - `--database FILE` or `--database postgres://…`: where the keys are stored
//! - `--pepper FILE`: the secret for hashing codes, shared by all servers
//! - `--listen 127.0.0.1:0`: the address to listen on
//! - `--clock-ahead SECONDS`: runs the clock ahead, to see codes expire

#[path = "common/serve.rs"]
mod serve;
#[path = "common/session_cookie.rs"]
mod session_cookie;

use std::{env, error::Error, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    routing::{get, post},
};
use keyward::async_trait;
use keyward::{
    Actor, ApiKeys, KeyFormat, KeyStore, NewKey, Owner, Pepper, PostgresStore, SqliteStore,
    Timestamp, Verified,
    axum::{manage, openapi::sign_in_router},
    enroll::{AccountLookup, CodeMessage, CodeSender, EmailAddress, Enrollment, HostError},
    http::{
        Guard,
        manage::{Caller, SignIn},
    },
    system::{Clock, SystemClock},
};
use serde_json::{Value, json};
use tower_http::csrf::CsrfLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn KeyStore> = match argument("--database") {
        Some(url) if url.starts_with("postgres") => Arc::new(PostgresStore::connect(&url).await?),
        Some(file) => Arc::new(SqliteStore::open(file).await?),
        None => Arc::new(SqliteStore::open(folder.path().join("keys.db")).await?),
    };
    let ahead = argument("--clock-ahead").map_or(Ok(0), |seconds| seconds.parse())?;
    let format = KeyFormat::builder("lk").build()?;
    let keys = ApiKeys::builder_on(store, format.clone())
        .clock(OffsetClock(Duration::from_secs(ahead)))
        .build();

    // The pepper protects codes from anyone who can read the database. All servers must use the same one.
    // A random pepper invalidates pending codes on restart, which is acceptable: they live for ten minutes.
    let pepper = match argument("--pepper") {
        Some(file) => Pepper::new(1, std::fs::read(file)?)?,
        None => Pepper::new(1, format.generate()?.expose())?,
    };
    let enrollment = Enrollment::builder(keys.clone(), Accounts, Terminal, pepper)
        .product("Lua")
        .new_key(|owner| NewKey::new(owner, "lua-cli"))
        .build()?;

    let guard = keyward::axum::layer(Guard::new(keys.clone()));
    let (sign_in, document) = sign_in_router(SignIn::new(enrollment)).split_for_parts();
    let app = Router::new()
        .route("/push", post(push).layer(guard))
        .merge(sign_in)
        .route("/openapi.json", get(Json(document)))
        // Here come browsers: refuses changes that another site asks them for (CSRF).
        .nest("/v1", manage::router::<Session, _>(keys.clone()).layer(CsrfLayer::new()));

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = serve::listen(&listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("Lua is at {url}");
    println!(
        "Request a code:    cargo run -p keyward-tests --example lua_cli -- auth configure --email {ADA}"
    );
    println!("The code is printed in this terminal. Exchange it for a key:");
    println!(
        "                   cargo run -p keyward-tests --example lua_cli -- auth configure --email {ADA} --otp CODE"
    );
    println!("Use the key:       cargo run -p keyward-tests --example lua_cli -- push");
    println!("List keys (dashboard): curl {url}/v1/api-keys -b session=ada");
    println!("OpenAPI description:   curl {url}/openapi.json");
    serve::serve(listener, app).await?;
    keys.shutdown().await?;
    Ok(())
}

async fn push(verified: Verified) -> Json<Value> {
    Json(json!({ "pushed_by": verified.owner().account() }))
}

/// The product's accounts. A real service queries its database.
struct Accounts;

#[async_trait]
impl AccountLookup for Accounts {
    async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError> {
        let account = match address.as_str() {
            ADA => "ada",
            "grace@example.com" => "grace",
            _ => return Ok(None),
        };
        Ok(Some(Owner::account_only(account)?))
    }
}

/// Prints emails instead of sending them.
struct Terminal;

#[async_trait]
impl CodeSender for Terminal {
    async fn send(&self, letter: &CodeMessage) -> Result<(), HostError> {
        println!("--- To: {}\n--- Subject: {}\n{}", letter.to, letter.subject(), letter.text());
        Ok(())
    }
}

/// The session of a browser. Simplified: a real service looks up a random token in its session store.
struct Session(Owner);

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let account = session_cookie::session_cookie(&parts.headers);
        let account = account.filter(|account| ["ada", "grace"].contains(account));
        let owner = account.and_then(|account| Owner::account_only(account).ok());
        owner.map(Self).ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl From<Session> for Caller {
    fn from(Session(owner): Session) -> Self {
        let actor = Actor::account(owner.account());
        Self::new(owner, actor)
    }
}

/// The system clock, running ahead.
struct OffsetClock(Duration);

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(self.0)
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const ADA: &str = "ada@example.com";
