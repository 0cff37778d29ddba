//! The server of a product whose plans limit the number of keys per user: `cargo run -p keyward-tests --example lurus`.
//!
//! Options, after `--`:
//! - `--database FILE` or `--database postgres://…`: where the keys are stored
//! - `--listen 127.0.0.1:0`: the address to listen on
//! - `--smtp smtp://127.0.0.1:25`: the mail server for emails to owners; without it they are printed
//! - `--clock 2026-02-09T12:00:00Z`: stops the clock at this time

#[path = "common/serve.rs"]
mod serve;
#[path = "common/session_cookie.rs"]
mod session_cookie;

use std::{
    collections::HashMap,
    env,
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, header::USER_AGENT, request::Parts},
    routing::{post, put},
};
use keyward::async_trait;
use keyward::{
    Account, Accounts, Actor, ApiKeys, KeyFormat, KeyStore, Limits, Owner, PostgresStore,
    SqliteStore, Verified,
    accounts::AccountsError,
    axum::manage,
    email::{EmailSink, Mailer, Recipients},
    enroll::{EmailAddress, HostError},
    http::{Guard, manage::Caller},
    model::Permissions,
    testing::ManualClock,
    tower::UnlessVerifiedLayer,
};
use serde::Deserialize;
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
    let users = Users::default();
    let smtp = argument("--smtp");
    let server = smtp.as_deref().unwrap_or("smtp://localhost");
    let mailer = Mailer::builder(server, "keys@example.com".parse()?)?.name("Lurus Code").build();
    let letters = EmailSink::builder(mailer.clone(), users.clone())
        .product("Lurus Code")
        .names_from_shared(store.clone());
    let letters = match smtp {
        Some(_) => letters,
        // Without a mail server, print the emails instead of sending them.
        None => letters.content(|notice| {
            let words = notice.default_content();
            println!("--- To: {}\n--- Subject: {}\n{}", notice.to, words.subject, words.text);
            None
        }),
    };
    let format = KeyFormat::builder("lc").build()?;
    // By default, revoked and expired keys are purged after 90 days, and audit events after one year.
    let keys = ApiKeys::builder_on(store, format).accounts(users.clone()).audit(letters.build());
    let keys = match argument("--clock") {
        Some(instant) => keys.clock(ManualClock::at(instant.parse()?)).build(),
        None => keys.build(),
    };

    // Requests with nothing but an API key skip the CSRF check. Requests with a cookie do not.
    let app = Router::new()
        .route("/code", post(code))
        .route("/billing/plan", put(subscribe))
        .layer(Extension((users, keys.clone())))
        .merge(manage::router::<Session, _>(keys.clone()))
        .layer(UnlessVerifiedLayer::new(CsrfLayer::new()))
        .layer(keyward::axum::layer(Guard::builder(keys.clone()).optional().build()?));

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = serve::listen(&listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("Lurus is at {url}");
    println!(
        "Create a key:    curl {url}/api-keys -b session=ada --json '{{\"name\": \"ci\", \"expiresInDays\": 30}}'"
    );
    println!("Use it:          curl {url}/code -H 'X-API-Key: lc_…' -d 'implement feature X'");
    println!("{ADA} is emailed about the new key. The email is printed here, or sent with --smtp.");
    println!("Audit log:       curl {url}/audit.csv -b session=ada");
    println!(
        "Change the plan: curl -X PUT {url}/billing/plan -b session=ada --json '{{\"plan\": \"ultra\"}}'"
    );
    println!("Revoke it:       curl -X DELETE {url}/api-keys/ID -b session=ada");
    serve::serve(listener, app).await?;
    keys.shutdown().await?;
    // Emails that the mail server has not accepted within 10 seconds are lost.
    let _ = tokio::time::timeout(Duration::from_secs(10), mailer.flush()).await;
    Ok(())
}

async fn code(User(owner): User, task: String) -> Json<Value> {
    Json(json!({ "task": task, "user": owner.account() }))
}

/// The plan that a user pays for.
#[derive(Clone, Copy, Default, Deserialize)]
enum Plan {
    #[default]
    #[serde(rename = "pro")]
    Pro,
    #[serde(rename = "pro+")]
    ProPlus,
    #[serde(rename = "ultra")]
    Ultra,
}

impl Plan {
    fn limits(self) -> Limits {
        Limits::default().max_active_keys(match self {
            Self::Pro => 5,
            Self::ProPlus | Self::Ultra => 10,
        })
    }
}

/// The product's users. A real service queries its database.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<Owner, Plan>>>);

impl Users {
    fn plans(&self) -> MutexGuard<'_, HashMap<Owner, Plan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Accounts for Users {
    async fn account(&self, user: &Owner) -> Result<Arc<Account>, AccountsError> {
        let limits = self.plans().get(user).copied().unwrap_or_default().limits();
        Ok(Arc::new(Account::new(Permissions::All, limits)))
    }
}

#[async_trait]
impl Recipients for Users {
    async fn address_of(&self, user: &Owner) -> Result<Option<EmailAddress>, HostError> {
        Ok(Some(format!("{}@example.com", user.account()).parse()?))
    }
}

#[derive(Deserialize)]
struct Subscription {
    plan: Plan,
}

/// Changes a user's plan, then invalidates the cached account.
async fn subscribe(
    Extension((users, keys)): Extension<(Users, ApiKeys)>,
    Session { owner, .. }: Session,
    Json(Subscription { plan }): Json<Subscription>,
) -> StatusCode {
    users.plans().insert(owner.clone(), plan);
    match keys.account_changed(&owner).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The user of a request, authenticated by a key, or else by a session.
struct User(Owner);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, StatusCode> {
        match parts.extensions.get::<Verified>() {
            Some(verified) => Ok(Self(verified.owner().clone())),
            None => Ok(Self(Session::from_request_parts(parts, state).await?.owner)),
        }
    }
}

/// The session of a browser; a request with a key has none. Simplified: a real service looks up a random token in its
/// session store.
struct Session {
    owner: Owner,
    actor: Actor,
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // The caller is the key's owner, whatever the cookies say.
        if parts.extensions.get::<Verified>().is_some() {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let account = session_cookie::session_cookie(&parts.headers);
        let account = account.filter(|account| ["ada", "bob", "eve"].contains(account));
        let owner = account.and_then(|account| Owner::account_only(account).ok());
        let owner = owner.ok_or(StatusCode::UNAUTHORIZED)?;
        let mut actor = Actor::account(owner.account());
        if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            actor = actor.ip(peer.ip());
        }
        if let Some(user_agent) = text(USER_AGENT) {
            actor = actor.user_agent(user_agent);
        }
        Ok(Self { owner, actor })
    }
}

impl From<Session> for Caller {
    fn from(Session { owner, actor }: Session) -> Self {
        Self::new(owner, actor)
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const ADA: &str = "ada@example.com";
