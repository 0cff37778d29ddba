//! The API of a product whose tiers have different rate limits: `cargo run -p keyward-tests --example lunaos`.
//!
//! Options, after `--`:
//! - `--database FILE` or `--database postgres://…`: where the keys are stored
//! - `--redis URL`: shares rate limits between servers
//! - `--listen 127.0.0.1:0`: the address to listen on
//! - `--clock 2026-02-09T12:00:00Z`: stops the clock at this time

#[path = "common/serve.rs"]
mod serve;

use std::{
    collections::HashMap,
    env,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::FromRequestParts,
    http::{StatusCode, header::AUTHORIZATION, request::Parts},
    routing::{post, put},
};
use keyward::async_trait;
use keyward::{
    Account, Accounts, Actor, Alphabet, ApiKeys, Checksum, KeyFormat, KeyStore, Limits, Owner,
    PostgresStore, SqliteStore, Verified,
    accounts::AccountsError,
    axum::manage,
    http::{Guard, manage::Caller},
    model::{Permissions, Rate},
    testing::ManualClock,
    verify::RedisRateLimiter,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn KeyStore> = match argument("--database") {
        Some(url) if url.starts_with("postgres") => Arc::new(PostgresStore::connect(&url).await?),
        Some(file) => Arc::new(SqliteStore::open(file).await?),
        None => Arc::new(SqliteStore::open(folder.path().join("keys.db")).await?),
    };
    // lnos_live_ and 32 hexadecimal characters. The hint shows the first 8 of them.
    let format = KeyFormat::builder("lnos")
        .environment("live")
        .alphabet(Alphabet::Hex)
        .bits(128)
        .checksum(Checksum::None)
        .hint_len(8)
        .build()?;
    let users = Users::default();
    let mut keys = ApiKeys::builder_on(store, format).accounts(users.clone());
    if let Some(url) = argument("--redis") {
        // Prefer a slow response to a request that the other servers do not count.
        keys = keys.rate_limiter(RedisRateLimiter::new([url])?.timeout(Duration::from_secs(2)));
    }
    if let Some(instant) = argument("--clock") {
        keys = keys.clock(ManualClock::at(instant.parse()?));
    }
    let keys = keys.build();

    let guard = keyward::axum::layer(Guard::new(keys.clone()));
    let app = Router::new()
        .route("/agents/execute", post(execute).layer(guard))
        .route("/billing/tier", put(subscribe))
        .layer(Extension((users, keys.clone())))
        .merge(manage::router::<Session, _>(keys.clone()));

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = serve::listen(&listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("LunaOS is at {url}");
    println!("Generate a key:  curl {url}/api-keys {ADA} --json '{{\"name\": \"ci-pipeline\"}}'");
    println!(
        "Use it:          curl -i {url}/agents/execute -H 'Authorization: Bearer lnos_live_…' \\"
    );
    println!(
        "                   --json '{{\"agent\": \"code-review\", \"context\": \"your code here\"}}'"
    );
    println!("List keys:       curl {url}/api-keys {ADA}");
    println!(
        "Change the tier: curl -X PUT {url}/billing/tier {ADA} --json '{{\"tier\": \"pro\"}}'"
    );
    println!("Revoke it:       curl -X DELETE {url}/api-keys/ID {ADA}");
    serve::serve(listener, app).await?;
    keys.shutdown().await?;
    Ok(())
}

#[derive(Deserialize)]
struct Task {
    agent: String,
    context: String,
}

async fn execute(verified: Verified, Json(task): Json<Task>) -> Json<Value> {
    let lines = task.context.lines().count();
    Json(json!({ "agent": task.agent, "lines": lines, "user": verified.owner().account() }))
}

/// The tier that a user pays for. It applies to all keys of the user.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tier {
    #[default]
    Free,
    Pro,
    Team,
}

impl Tier {
    fn limits(self) -> Limits {
        let per_minute = match self {
            Self::Free => 60,
            Self::Pro => 600,
            Self::Team => 6_000,
        };
        Limits::default().max_active_keys(5).rate(Rate::per_minute(per_minute))
    }
}

/// The product's users. A real service queries its database.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<Owner, Tier>>>);

impl Users {
    fn tiers(&self) -> std::sync::MutexGuard<'_, HashMap<Owner, Tier>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Accounts for Users {
    async fn account(&self, user: &Owner) -> Result<Arc<Account>, AccountsError> {
        let limits = self.tiers().get(user).copied().unwrap_or_default().limits();
        Ok(Arc::new(Account::new(Permissions::All, limits)))
    }
}

#[derive(Deserialize)]
struct Subscription {
    tier: Tier,
}

/// Changes a user's tier, then invalidates the cached account.
async fn subscribe(
    Extension((users, keys)): Extension<(Users, ApiKeys)>,
    Session(user): Session,
    Json(Subscription { tier }): Json<Subscription>,
) -> StatusCode {
    users.tiers().insert(user.clone(), tier);
    match keys.account_changed(&user).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The session of a user: `Bearer session-ada`. Simplified: a real service looks up a random token in its
/// session store. An API key is not a session token.
struct Session(Owner);

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let field = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let user = field.and_then(|field| field.strip_prefix("Bearer session-"));
        let owner = user.and_then(|user| Owner::account_only(user).ok());
        owner.map(Self).ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl From<Session> for Caller {
    fn from(Session(user): Session) -> Self {
        let actor = Actor::account(user.account());
        Self::new(user, actor)
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const ADA: &str = "-H 'Authorization: Bearer session-ada'";
