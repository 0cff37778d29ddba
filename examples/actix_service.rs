//! A small service on actix-web: sessions, the management API, and a route that requires an API key.
//! Run it with `cargo run --example actix_service`.

use std::{error::Error, future::Ready, future::ready};

use actix_web::{
    App, FromRequest, HttpRequest, HttpServer, dev::Payload, error::ErrorUnauthorized,
    http::header::COOKIE, web,
};
use keyward::{
    Actor, ApiKeys, KeyFormat, Limits, Owner, SqliteStore, Verified,
    accounts::NoAccounts,
    actix::{ApiKeyAuth, MaybeVerified, manage},
    http::{Guard, manage::Caller},
    model::Rate,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("keys.db")).await?;
    let plan = Limits::default().max_active_keys(5).rate(Rate::per_minute(60).burst(10));
    let keys = ApiKeys::builder(store, KeyFormat::builder("acme").environment("live").build()?)
        .accounts(NoAccounts::with_limits(plan))
        .build();

    let guard = Guard::builder(keys.clone());
    let builds = ApiKeyAuth::new(guard.clone().require("builds:read").build()?);
    let visitors = ApiKeyAuth::new(guard.optional().build()?);
    let shared = keys.clone();
    let app = move || {
        let (builds, visitors) = (builds.clone(), visitors.clone());
        App::new()
            .service(web::resource("/builds").wrap(builds).route(web::get().to(list_builds)))
            .service(web::resource("/").wrap(visitors).route(web::get().to(front_page)))
            .service(web::scope("/v1").configure(manage::routes::<Session>(shared.clone())))
    };
    let server = HttpServer::new(app).workers(2).bind("127.0.0.1:8081")?;
    let at = format!("http://{}", server.addrs()[0]);
    println!(
        "Create a key: curl {at}/v1/api-keys -b session=ada --json '{{\"name\": \"ci\", \"scopes\": [\"builds:read\"]}}'"
    );
    println!("Use it:       curl -i {at}/builds -H 'Authorization: Bearer acme_live_…'");
    println!("List keys:    curl {at}/v1/api-keys -b session=ada");
    server.run().await?;
    // Writes recorded uses and denials that are still in memory.
    keys.shutdown().await?;
    Ok(())
}

async fn list_builds(verified: Verified) -> String {
    format!("{} has the builds 4711 and 4712\n", verified.owner().account())
}

async fn front_page(MaybeVerified(visitor): MaybeVerified) -> String {
    let name = visitor.map_or("stranger".into(), |key| key.owner().account().to_owned());
    format!("hello, {name}\n")
}

/// A session. For demonstration only: a real service looks up a random token in its own sessions, and
/// protects cookies against cross-site requests (CSRF).
struct Session {
    owner: Owner,
}

impl FromRequest for Session {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let cookies = request.headers().get(COOKIE).and_then(|value| value.to_str().ok());
        let mut cookies = cookies.unwrap_or_default().split("; ");
        let account = cookies.find_map(|cookie| cookie.strip_prefix("session="));
        let owner = account.and_then(|account| Owner::account_only(account).ok());
        ready(owner.map(|owner| Self { owner }).ok_or_else(|| ErrorUnauthorized("log in first")))
    }
}

impl From<Session> for Caller {
    fn from(session: Session) -> Self {
        let actor = Actor::account(session.owner.account());
        Self::new(session.owner, actor)
    }
}
