//! The server of a product whose users sign in from the command line, by a code sent to their e-mail
//! address: `cargo run --example lua_server`, and in another terminal `cargo run --example lua_cli`.
//!
//! `-- --database FILE` or `postgres://…` keeps the keys; `--pepper FILE` has the secret that several servers
//! share; `--listen 127.0.0.1:0` takes another port; `--clock-ahead SECONDS` shows what time does to codes.

use std::{env, error::Error, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::FromRequestParts,
    http::{StatusCode, header::COOKIE, request::Parts},
    routing::{get, post},
};
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
use tokio::net::TcpListener;

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
    let keys =
        ApiKeys::builder_on(store, format.clone()).clock(Ahead(Duration::from_secs(ahead))).build();

    // What keeps codes from whoever reads the database. Several servers share one; without it, codes
    // end with the process, which is no loss: they live for ten minutes.
    let pepper = match argument("--pepper") {
        Some(file) => Pepper::new(1, std::fs::read(file)?)?,
        None => Pepper::new(1, format.generate()?.expose())?,
    };
    let enrollment = Enrollment::builder(keys.clone(), Accounts, Terminal, pepper)
        .product("Lua")
        .new_key(|owner| NewKey::new(owner, "lua-cli"))
        .build();

    let guard = keyward::axum::layer(Guard::new(keys.clone()));
    let (sign_in, document) = sign_in_router(SignIn::new(enrollment)).split_for_parts();
    let app = Router::new()
        .route("/push", post(push).layer(guard))
        .merge(sign_in)
        .route("/openapi.json", get(Json(document)))
        .nest("/v1", manage::router::<Session, _>(keys.clone()));

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&listen).await?;
    let at = format!("http://{}", listener.local_addr()?);
    println!("Lua is at {at}");
    println!("Have a code sent:  cargo run --example lua_cli -- auth configure --email {ADA}");
    println!("It arrives here, in this terminal. Turn it into a key:");
    println!(
        "                   cargo run --example lua_cli -- auth configure --email {ADA} --otp CODE"
    );
    println!("Use the key:       cargo run --example lua_cli -- push");
    println!("The dashboard's view of it:  curl {at}/v1/api-keys -b session=ada");
    println!("How to sign in, described:   curl {at}/openapi.json");
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    keys.shutdown().await?;
    Ok(())
}

async fn push(verified: Verified) -> Json<Value> {
    Json(json!({ "pushed_by": verified.owner().account() }))
}

/// The product's accounts. A real service looks them up in its own table.
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

/// Mail for people who look over the server's shoulder.
struct Terminal;

#[async_trait]
impl CodeSender for Terminal {
    async fn send(&self, letter: &CodeMessage) -> Result<(), HostError> {
        println!("--- To: {}\n--- Subject: {}\n{}", letter.to, letter.subject(), letter.text());
        Ok(())
    }
}

/// Whose browser it is. A stand-in: a real service looks a random token up in its own sessions, and
/// guards cookies against cross-site requests.
struct Session(Owner);

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let cookies = parts.headers.get(COOKIE).and_then(|value| value.to_str().ok());
        let mut cookies = cookies.unwrap_or_default().split("; ");
        let account = cookies.find_map(|cookie| cookie.strip_prefix("session="));
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

/// The machine's clock, so far ahead.
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(self.0)
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const ADA: &str = "ada@example.com";
