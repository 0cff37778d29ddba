//! An identity provider whose tenants use API keys to call its admin API and to register OAuth clients:
//! `cargo run -p keyward-tests --example lumoauth`.
//!
//! Options, after `--`:
//! - `--database FILE` or `--database postgres://…`: where the keys are stored
//! - `--clients FILE`: where the OAuth clients are stored
//! - `--redis URL`: shares rate limits between servers
//! - `--publisher FILE`: the public key of `https://software.example`, whose software statements are trusted
//! - `--listen 127.0.0.1:0`: the address to listen on

mod clients;
mod directory;
mod error;
mod metadata;
mod registration;
#[path = "../common/serve.rs"]
mod serve;
#[path = "../common/session_cookie.rs"]
mod session_cookie;
mod statement;
mod tenants;

use std::{env, error::Error, fs, sync::Arc};

use axum::Router;
use keyward::{
    ApiKeys, KeyFormat, KeyStore, PostgresStore, SqliteStore,
    axum::manage,
    http::{Credentials, Guard},
    verify::RedisRateLimiter,
};
use tower_http::csrf::CsrfLayer;

use self::{
    clients::Clients,
    directory::Directory,
    statement::Publisher,
    tenants::{Session, Tenants},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn KeyStore> = match argument("--database") {
        Some(url) if url.starts_with("postgres") => Arc::new(PostgresStore::connect(&url).await?),
        Some(file) => Arc::new(SqliteStore::open(file).await?),
        None => Arc::new(SqliteStore::open(folder.path().join("keys.db")).await?),
    };
    let tenants = Tenants::example();
    let keys = ApiKeys::builder_on(store, KeyFormat::builder("lumo").build()?);
    let mut keys = keys.accounts(tenants.clone());
    if let Some(url) = argument("--redis") {
        keys = keys.rate_limiter(RedisRateLimiter::new([url])?);
    }
    let keys = keys.build();

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = serve::listen(&listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("LumoAuth is at {url}");
    println!(
        "Create a key:  curl {url}/t/acme{PORTAL}/api-keys {ADA} --json '{{\"name\": \"CI/CD pipeline\"}}'"
    );
    println!(
        "Create a user: curl {url}/t/acme/api/v1/admin/users {KEY} --json '{{\"email\": \"eve@acme.example\"}}'"
    );
    println!("List users:    curl {url}/t/acme/api/v1/admin/users -H 'X-API-Key: lumo_…'");
    println!(
        "Register:      curl {url}/t/acme/register {KEY} --json '{{\"redirect_uris\": [\"https://app.example/cb\"]}}'"
    );
    println!("Audit log:     curl {url}/t/acme{PORTAL}/audit.csv {ADA}");

    let clients = argument("--clients").map(|file| Clients::open(&file)).transpose()?;
    let publisher = match argument("--publisher") {
        Some(file) => Publisher::new(&fs::read_to_string(file)?)?,
        None => Publisher::default(),
    };
    let (clients, directory) = (clients.unwrap_or_default(), Directory::default());
    let state = App { url: url.into(), tenants, directory, clients, publisher };
    let app = app(keys.clone(), state)?;
    serve::serve(listener, app).await?;
    keys.shutdown().await?;
    Ok(())
}

/// The state shared by all request handlers.
#[derive(Clone)]
pub struct App {
    url: Arc<str>,
    tenants: Tenants,
    directory: Directory,
    clients: Clients,
    publisher: Publisher,
}

impl App {
    /// Returns the issuer URL of a tenant.
    fn issuer(&self, slug: &str) -> String {
        format!("{}/t/{slug}", self.url)
    }
}

fn app(keys: ApiKeys, state: App) -> Result<Router, Box<dyn Error>> {
    // A key of one tenant is unknown under the path of another.
    let guard = Guard::builder(keys.clone()).realm("LumoAuth").tenant_in_path("/t/{tenantSlug}");
    let layer = |scope| guard.clone().require(scope).build().map(keyward::axum::layer);
    let admin = directory::routes(layer)?;
    let bearer = guard.clone().credentials(Credentials::bearer());
    let bearer = bearer.require("clients:register").build()?;
    let registration = registration::routes(keyward::axum::layer(bearer), layer("clients:read")?);
    // Here come browsers.
    let portal = manage::router::<Session, _>(keys).layer(CsrfLayer::new());
    Ok(Router::new()
        .merge(admin)
        .merge(registration)
        .nest(&format!("/t/{{tenantSlug}}{PORTAL}"), portal)
        .with_state(state))
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const PORTAL: &str = "/portal/settings";
const ADA: &str = "-b session=ada@acme";
const KEY: &str = "-H 'Authorization: Bearer lumo_…'";
