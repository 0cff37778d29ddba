//! A small service on actix-web: sessions, the management API, and a route that requires an API key.
//! Run it with `cargo run --example actix_service`; `-- --listen 127.0.0.1:0` sets the address.

use std::{env, error::Error, future::Ready, future::ready, time::Duration};

use actix_web::{
    App, FromRequest, HttpRequest, HttpServer,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::{ErrorForbidden, ErrorRequestTimeout, ErrorUnauthorized},
    http::header::COOKIE,
    middleware::{Next, from_fn},
    web,
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
            .wrap(from_fn(same_site_within_20_seconds))
            .service(web::resource("/builds").wrap(builds).route(web::get().to(list_builds)))
            .service(web::resource("/").wrap(visitors).route(web::get().to(front_page)))
            .service(web::scope("/v1").configure(manage::routes::<Session>(shared.clone())))
    };
    let listen = env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listen = listen.unwrap_or_else(|| "127.0.0.1:8081".into());
    // Slow clients cannot keep others out: heads of requests have 5 seconds by default, and each worker has fewer
    // connections than the process may open files (`ulimit -n`).
    let server = HttpServer::new(app).workers(2).max_connections(32).bind(&listen)?;
    let at = format!("http://{}", server.addrs()[0]);
    println!("Acme is at {at}");
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

/// Refuses changes that another site asks a browser for (CSRF), and requests whose body arrives too slowly.
async fn same_site_within_20_seconds(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let site = request.headers().get("sec-fetch-site").and_then(|site| site.to_str().ok());
    let is_same_site = site.is_none_or(|site| ["same-origin", "none"].contains(&site));
    if !request.method().is_safe() && !is_same_site {
        return Err(ErrorForbidden("the request comes from another site"));
    }
    let response = tokio::time::timeout(Duration::from_secs(20), next.call(request)).await;
    response.unwrap_or_else(|_| Err(ErrorRequestTimeout("the body did not arrive in time")))
}

async fn list_builds(verified: Verified) -> String {
    format!("{} has the builds 4711 and 4712\n", verified.owner().account())
}

async fn front_page(MaybeVerified(visitor): MaybeVerified) -> String {
    let name = visitor.map_or("stranger".into(), |key| key.owner().account().to_owned());
    format!("hello, {name}\n")
}

/// A session of Ada or Bob. For demonstration only: a real service looks up a random token in its own sessions.
struct Session {
    owner: Owner,
}

impl FromRequest for Session {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let fields = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
        let mut cookies = fields.flat_map(|field| field.split("; "));
        let account = cookies.find_map(|cookie| cookie.strip_prefix("session="));
        let account = account.filter(|account| ["ada", "bob"].contains(account));
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
