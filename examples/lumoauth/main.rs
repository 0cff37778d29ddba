//! An identity provider whose tenants call its admin API, and register OAuth clients, by API keys:
//! `cargo run --example lumoauth`.
//!
//! `-- --database FILE` or `postgres://…` keeps the keys; `--listen 127.0.0.1:0` takes another port.

mod directory;
mod tenants;

use std::{env, error::Error, net::SocketAddr, sync::Arc};

use axum::Router;
use keyward::{
    ApiKeys, KeyFormat, KeyStore, PostgresStore, SqliteStore, axum::manage, http::Guard,
};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

use self::{
    directory::Directory,
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
    let tenants = Tenants::of_the_example();
    let keys = ApiKeys::builder_on(store, KeyFormat::builder("lumo").build()?);
    let keys = keys.accounts(tenants.clone()).build();

    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&listen).await?;
    let at = format!("http://{}", listener.local_addr()?);
    println!("LumoAuth is at {at}");
    println!(
        "Create a key:  curl {at}/t/acme{PORTAL}/api-keys {ADA} --json '{{\"name\": \"CI/CD pipeline\"}}'"
    );
    println!(
        "Make a user:   curl {at}/t/acme/api/v1/admin/users {KEY} --json '{{\"email\": \"eve@acme.example\"}}'"
    );
    println!("List users:    curl {at}/t/acme/api/v1/admin/users -H 'X-API-Key: lumo_…'");
    println!("Audit log:     curl {at}/t/acme{PORTAL}/audit.csv {ADA}");

    let state = App { tenants, directory: Directory::default() };
    let app = app(keys.clone(), state)?;
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    keys.shutdown().await?;
    Ok(())
}

/// What the parts of the product share.
#[derive(Clone)]
pub struct App {
    tenants: Tenants,
    directory: Directory,
}

fn app(keys: ApiKeys, state: App) -> Result<Router, Box<dyn Error>> {
    // A key of one tenant is unknown under the path of another.
    let guard = Guard::new(keys.clone()).realm("LumoAuth").tenant_in_path("/t/{tenantSlug}")?;
    let admin = directory::routes(|scope| keyward::axum::layer(guard.clone().require(scope)));
    // Here come browsers.
    let portal = manage::router::<Session, _>(keys).layer(CsrfLayer::new());
    Ok(Router::new()
        .merge(admin)
        .nest(&format!("/t/{{tenantSlug}}{PORTAL}"), portal)
        .with_state(state))
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

const PORTAL: &str = "/portal/settings";
const ADA: &str = "-b session=ada@acme";
const KEY: &str = "-H 'Authorization: Bearer lumo_…'";
