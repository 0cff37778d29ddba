//! A small service on actix-web: sessions, the management API, and a route that requires an API key.
//! Run it with `cargo run -p keyward-tests --example actix_service`; `-- --listen 127.0.0.1:0` sets the address.

use std::{
    any::Any,
    cell::RefCell,
    env,
    error::Error,
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use actix_web::{
    App, FromRequest, HttpMessage, HttpRequest, HttpServer,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::{ErrorForbidden, ErrorRequestTimeout, ErrorUnauthorized},
    http::header::{COOKIE, HeaderMap},
    middleware::{Next, from_fn},
    rt, web,
};
use futures_util::stream::{Stream, poll_fn};
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
            .wrap(from_fn(within_20_seconds))
            .wrap(from_fn(same_site))
            .service(web::resource("/builds").wrap(builds).get(list_builds).head(list_builds))
            .service(web::resource("/").wrap(visitors).get(front_page).head(front_page))
            .service(web::scope("/v1").configure(manage::routes::<Session>(shared.clone())))
    };
    let listen = env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listen = listen.unwrap_or_else(|| "127.0.0.1:8081".into());
    // Slow clients cannot keep others out: heads of requests have 5 seconds by default, and each worker has fewer
    // connections than the process may open files (`ulimit -n`).
    let server = HttpServer::new(app).workers(2).max_connections(32).on_connect(connected);
    let server = server.bind(&listen).map_err(|error| {
        format!(
            "cannot listen on {listen}: {error}. Choose another address with --listen 127.0.0.1:0"
        )
    })?;
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

/// Closes the connection of a client that reads nothing of what was sent.
fn connected(_connection: &dyn Any, _: &mut actix_web::dev::Extensions) {
    #[cfg(target_os = "linux")]
    if let Some(stream) = _connection.downcast_ref::<rt::net::TcpStream>() {
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, REQUEST.as_millis() as u32);
    }
}

/// Refuses changes that another site asks a browser for (CSRF).
async fn same_site(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if !request.method().is_safe() && !is_same_site(request.headers()) {
        return Err(ErrorForbidden("the request comes from another site"));
    }
    next.call(request).await
}

/// Browsers send `Sec-Fetch-Site`; older ones only `Origin`.
fn is_same_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => ["same-origin", "none"].contains(&site),
        (None, Some(origin)) => {
            origin.split_once("://").is_some_and(|(_, at)| Some(at) == text("host"))
        }
        (None, None) => true,
    }
}

/// Refuses requests whose body arrives too slowly.
async fn within_20_seconds(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    // If the rest of a body is not read, actix-web closes the connection only while the body exists. Otherwise it waits
    // for the rest of a chunked body, without a bound.
    let body = Rc::new(RefCell::new(request.take_payload()));
    let shared = body.clone();
    let payload = poll_fn(move |context| Pin::new(&mut *shared.borrow_mut()).poll_next(context));
    request.set_payload(Payload::Stream { payload: Box::pin(payload) });
    let response = tokio::time::timeout(REQUEST, next.call(request)).await;
    rt::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(body);
    });
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

const REQUEST: Duration = Duration::from_secs(20);
