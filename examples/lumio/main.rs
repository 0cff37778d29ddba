//! A developer platform with teams and second factors: `cargo run --example lumio`, and `lumio_cli`
//! on the command line.
//!
//! `-- --data FOLDER` keeps what there is, for several servers if they share it; `--database FILE` or `postgres://…`
//! has the keys elsewhere; `--redis URL` counts the calls of several servers together; `--listen 127.0.0.1:0`
//! takes another port; `--clock 2026-02-09T12:00:00Z` stops the clock there.

mod audit;
mod extensions;
mod keys;
mod passkeys;
mod people;
mod session;
mod team;
mod totp;

use std::{env, error::Error, io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
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
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use webauthn_rs::Webauthn;

use self::{
    people::People,
    session::{Begun, Session},
};

/// All that a request may need.
#[derive(Clone)]
pub struct Lumio {
    keys: ApiKeys,
    people: People,
    begun: Begun,
    totp: Totp,
    webauthn: Arc<Webauthn>,
    /// That of the keys.
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
    let people = People::new(data)?;
    // What another region has changed is heard of at once, or believed for 5 seconds more at most.
    let mut keys = ApiKeys::builder_on(store, keys::format()?)
        .accounts(people.clone())
        .step_up(people.clone())
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
    let listener = TcpListener::bind(&listen).await?;
    let address = listener.local_addr()?;
    let lumio = Lumio {
        totp: Totp::new(keys.clone(), "Lumio"),
        webauthn: Arc::new(passkeys::relying_party(address.port())?),
        begun: Begun::default(),
        keys: keys.clone(),
        people,
        clock,
    };
    let at = format!("http://{address}");
    println!("Lumio is at {at}");
    println!("An account:     curl {at}/sign-up --json '{{\"email\": \"ada@example.com\"}}'");
    println!(
        "Sign in:        curl {at}/sign-in --json '{{\"email\": \"ada@example.com\"}}' -c cookies"
    );
    println!(
        "Create a key:   curl {at}/account/security/api-keys -b cookies --json '{{\"name\": \"ci-github-actions\"}}'"
    );
    println!(
        "Deploy with it: curl -X POST {at}/extensions/weather/deploy -H 'X-API-Key: lm_dev_…'"
    );
    println!("A second factor: curl -X POST {at}/account/security/two-factor/totp -b cookies");
    println!("The audit log:  curl {at}/account/security/audit-log -b cookies");
    println!(
        "Invite:         curl {at}/account/team -b cookies --json '{{\"email\": \"bob@example.com\", \"role\": \"member\"}}'"
    );
    axum::serve(listener, app(lumio)?.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
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
        .layer(middleware::from_fn(keys::without_scopes));
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
        // What comes with a key needs no check against cross-site requests; what comes with a cookie does.
        .layer(UnlessVerifiedLayer::new(CsrfLayer::new()))
        .layer(keyward::axum::layer(guard))
        .with_state(lumio))
}

/// What is not done, and a word for it.
#[derive(PartialEq, Eq)]
pub struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "code": self.1 }))).into_response()
    }
}

/// Nobody can tell at the moment.
const UNAVAILABLE: Refused = Refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable");

/// Only the store can be in the way of what is asked of it here.
impl From<keyward::Error> for Refused {
    fn from(_: keyward::Error) -> Self {
        UNAVAILABLE
    }
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        UNAVAILABLE
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
