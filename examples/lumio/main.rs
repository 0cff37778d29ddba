//! A developer platform with teams, roles and second factors: `cargo run -p keyward-tests --example lumio`. The example `lumio_cli`
//! is its command line.
//!
//! Options, after `--`:
//! - `--data FOLDER`: where all data is stored; several servers can share it
//! - `--database FILE` or `--database postgres://…`: where the keys are stored, if not in the data folder
//! - `--redis URL`: shares rate limits between servers
//! - `--listen 127.0.0.1:0`: the address to listen on
//! - `--clock 2026-02-09T12:00:00Z`: stops the clock at this time

mod audit;
mod extensions;
mod keys;
mod passkeys;
#[path = "../common/serve.rs"]
mod serve;
mod session;
#[path = "../common/session_cookie.rs"]
mod session_cookie;
mod team;
mod totp;
mod users;

use std::{env, error::Error, io, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use keyward::{
    ApiKeys, KeyStore, PostgresStore, SqliteStore,
    axum::manage,
    http::Guard,
    manage::{Reminders, Retention},
    system::{Clock, SystemClock},
    testing::ManualClock,
    totp::Totp,
    tower::UnlessVerifiedLayer,
    verify::RedisRateLimiter,
};
use serde_json::json;
use tower_http::csrf::CsrfLayer;
use webauthn_rs::Webauthn;

use self::{
    session::{PendingFactors, Session},
    users::UserStore,
};

/// The state shared by all request handlers.
#[derive(Clone)]
pub struct Lumio {
    keys: ApiKeys,
    users: UserStore,
    pending: PendingFactors,
    totp: Totp,
    webauthn: Arc<Webauthn>,
    /// The clock that `keys` uses.
    clock: Arc<dyn Clock>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let data = argument("--data").map_or(scratch.path().to_owned(), PathBuf::from);
    let store: Arc<dyn KeyStore> = match argument("--database") {
        Some(url) if url.starts_with("postgres") => Arc::new(PostgresStore::connect(&url).await?),
        Some(file) => Arc::new(SqliteStore::open(file).await?),
        None => Arc::new(SqliteStore::open(data.join("keys.db")).await?),
    };
    let users = UserStore::new(data)?;
    // Changes made by other servers apply here within milliseconds, or within 5 seconds if the change feed fails.
    let mut keys = ApiKeys::builder_on(store, keys::format()?)
        .accounts(users.clone())
        .step_up(users.clone())
        .reminders(Reminders::none().rotation_after(DAY * 90))
        .retention(Retention::default().audit_events(DAY * 90));
    if let Some(url) = argument("--redis") {
        keys = keys.rate_limiter(RedisRateLimiter::new([url])?);
    }
    let mut clock: Arc<dyn Clock> = Arc::new(SystemClock);
    if let Some(instant) = argument("--clock") {
        let stopped = ManualClock::at(instant.parse()?);
        keys = keys.clock(stopped.clone());
        clock = Arc::new(stopped);
    }
    let keys = keys.build();

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = serve::listen(&listen).await?;
    let address = listener.local_addr()?;
    let lumio = Lumio {
        totp: Totp::new(keys.clone(), "Lumio"),
        webauthn: Arc::new(passkeys::relying_party(address.port())?),
        pending: PendingFactors::default(),
        keys: keys.clone(),
        users,
        clock,
    };
    let url = format!("http://{address}");
    println!("Lumio is at {url}");
    println!("Sign up:        curl {url}/sign-up --json '{{\"email\": \"ada@example.com\"}}'");
    println!(
        "Sign in:        curl {url}/sign-in --json '{{\"email\": \"ada@example.com\"}}' -c cookies"
    );
    println!(
        "Create a key:   curl {url}/account/security/api-keys -b cookies --json '{{\"name\": \"ci-github-actions\"}}'"
    );
    println!(
        "Deploy with it: curl -X POST {url}/extensions/weather/deploy -H 'X-API-Key: lm_dev_…'"
    );
    println!("Set up TOTP:    curl -X POST {url}/account/security/two-factor/totp -b cookies");
    println!("Audit log:      curl {url}/account/security/audit-log -b cookies");
    println!(
        "Invite:         curl {url}/account/team -b cookies --json '{{\"email\": \"bob@example.com\", \"role\": \"member\"}}'"
    );
    serve::serve(listener, app(lumio)?).await?;
    keys.shutdown().await?;
    Ok(())
}

fn app(lumio: Lumio) -> Result<Router, Box<dyn Error>> {
    let security = Router::new()
        .route("/audit-log", get(audit::log))
        .route("/two-factor/totp", post(totp::begin).put(totp::enable))
        .route("/two-factor/code", post(totp::confirm))
        .route("/two-factor/passkeys", post(passkeys::begin_to_add).put(passkeys::add))
        .route("/two-factor/passkey", post(passkeys::begin_to_confirm).put(passkeys::assert))
        .merge(manage::router::<Session, _>(lumio.keys.clone()))
        .layer(middleware::from_fn(keys::without_scopes))
        .layer(DefaultBodyLimit::max(keys::MAX_BODY));
    let guard = Guard::builder(lumio.keys.clone()).optional().build()?;
    Ok(Router::new()
        .route("/sign-up", post(session::sign_up))
        .route("/sign-in", post(session::sign_in))
        .route("/account/team", get(team::members).post(team::invite))
        .route("/account/team/{email}", put(team::change).delete(team::remove))
        .route("/account/billing", put(extensions::bill))
        .route("/extensions/{name}/deploy", post(extensions::deploy))
        .route("/extensions/{name}/publish", post(extensions::publish))
        .nest("/account/security", security)
        // Requests with nothing but an API key skip the CSRF check. Requests with a cookie do not.
        .layer(UnlessVerifiedLayer::new(CsrfLayer::new()))
        .layer(keyward::axum::layer(guard))
        .with_state(lumio))
}

/// An error response: its status and its code.
#[derive(PartialEq, Eq)]
pub struct ApiError(StatusCode, &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "code": self.1 }))).into_response()
    }
}

const UNAVAILABLE: ApiError = ApiError(StatusCode::SERVICE_UNAVAILABLE, "unavailable");

/// The calls of Keyward in this example fail only if the store is unavailable.
impl From<keyward::Error> for ApiError {
    fn from(_: keyward::Error) -> Self {
        UNAVAILABLE
    }
}

impl From<io::Error> for ApiError {
    fn from(_: io::Error) -> Self {
        UNAVAILABLE
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
