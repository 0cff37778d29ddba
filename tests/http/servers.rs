//! The same service on two real servers: axum and actix-web.

use std::net::{SocketAddr, TcpListener};

use actix_web::{
    App, FromRequest, HttpRequest, HttpServer, dev::Payload, error::ErrorUnauthorized, web,
};
use axum::{
    Router,
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    routing::get,
};
use keyward::{
    Actor, ApiKeys, Owner, Verified,
    actix::{ApiKeyAuth, MaybeVerified, manage::routes as manage_routes},
    axum::openapi::{GuardedRoutes, manage_router, sign_in_router},
    http::{
        Guard,
        leaks::LeakReceiver,
        manage::{Caller, ManagementApi, SignIn},
        openapi::CallerAuth,
    },
};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::declared::Document;

/// The configuration that both servers use.
#[derive(Clone)]
pub struct Rules {
    /// `/v1` and `/t/{tenant}`: the management API, for a [`Session`].
    pub keys: ApiKeys,
    /// `/any`: accepts every valid key.
    pub any: Guard,
    /// `/builds`: requires the scope `builds:read`.
    pub builds: Guard,
    /// `/optional`, and `/behind`, the management API for a [`Session`] again: accepts requests without a key, but no invalid key.
    pub optional: Guard,
    /// `/query`: also accepts keys in the query string.
    pub query: Guard,
    /// `/header`: accepts keys only in headers of its own.
    pub header: Guard,
    /// `/lua`: sign-in by e-mail.
    pub sign_in: Option<SignIn>,
    /// `/leaks`: the leak receiver.
    pub leaks: LeakReceiver,
}

pub struct Servers {
    pub both: [(&'static str, SocketAddr); 2],
    /// The OpenAPI document of both servers.
    pub document: Document,
}

impl Servers {
    pub fn start(rules: &Rules) -> Self {
        let (axum, document) = axum(rules.clone());
        Self { both: [("axum", axum), ("actix-web", actix(rules.clone()))], document }
    }
}

fn hello(verified: Option<&Verified>) -> String {
    verified.map_or("hello, nobody".into(), |key| format!("hello, {}", key.owner().account()))
}

/// The account in `X-Session`, followed by a space and the instant of the second factor, if any.
struct Session(Caller);

impl Session {
    fn of(account: Option<&[u8]>) -> Option<Self> {
        let account = std::str::from_utf8(account?).ok()?;
        let (account, confirmed) = account.split_once(' ').unwrap_or((account, ""));
        let owner = Owner::new("acme", account).ok()?;
        let actor = Actor::account(account);
        Some(Self(Caller::new(
            owner,
            match confirmed {
                "" => actor,
                at => actor.second_factor_at(at.parse().ok()?),
            },
        )))
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let account = parts.headers.get("x-session").map(|value| value.as_bytes());
        Self::of(account).ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl FromRequest for Session {
    type Error = actix_web::Error;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let account = request.headers().get("x-session").map(|value| value.as_bytes());
        std::future::ready(Self::of(account).ok_or_else(|| ErrorUnauthorized("")))
    }
}

impl From<Session> for Caller {
    fn from(session: Session) -> Self {
        session.0
    }
}

macro_rules! described {
    ($name:ident, $path:literal, $key:ty) => {
        #[utoipa::path(get, path = $path, responses((status = 200, body = String, content_type = "text/plain")))]
        async fn $name(key: $key) -> String {
            hello(Option::<Verified>::from(key).as_ref())
        }
    };
}

described!(any, "/any", Verified);
described!(builds, "/builds", Verified);
described!(query, "/query", Verified);
described!(header, "/header", Verified);
described!(optional, "/optional", Option<Verified>);

fn axum(rules: Rules) -> (SocketAddr, Document) {
    let session = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-session")));
    let behind = keyward::axum::manage::router::<Session, _>(rules.keys.clone());
    let behind = behind.layer(keyward::axum::layer(rules.optional.clone()));
    let of_tenant = keyward::axum::manage::router::<Session, _>(rules.keys.clone());
    let manage = manage_router::<Session, _>(rules.keys, &CallerAuth::scheme("session", session));
    let (app, document): (Router, _) = OpenApiRouter::new()
        .guarded_routes(&rules.any, routes!(any))
        .guarded_routes(&rules.builds, routes!(builds))
        .guarded_routes(&rules.query, routes!(query))
        .guarded_routes(&rules.header, routes!(header))
        .guarded_routes(&rules.optional, routes!(optional))
        .nest("/v1", manage)
        .nest("/lua", rules.sign_in.map(sign_in_router).unwrap_or_default())
        .split_for_parts();
    let app = app
        .nest("/behind", behind)
        .nest("/t/{tenant}", of_tenant)
        .route("/leaks", keyward::axum::leaks::route(rules.leaks))
        .route("/optional-plain", get(any).layer(keyward::axum::layer(rules.optional)))
        .route("/forgotten", get(any))
        .route("/forgotten-optional", get(optional));
    let (listener, address) = listen();
    tokio::spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, app).await.unwrap();
    });
    (address, Document::new(&document))
}

fn actix(rules: Rules) -> SocketAddr {
    async fn by_key(verified: Verified) -> String {
        hello(Some(&verified))
    }
    async fn maybe(MaybeVerified(verified): MaybeVerified) -> String {
        hello(verified.as_ref())
    }
    let (listener, address) = listen();
    let app = move || {
        let wrap = |path, guard: &Guard| web::resource(path).wrap(ApiKeyAuth::new(guard.clone()));
        App::new()
            .service(wrap("/any", &rules.any).to(by_key))
            .service(wrap("/builds", &rules.builds).to(by_key))
            .service(wrap("/query", &rules.query).to(by_key))
            .service(wrap("/header", &rules.header).to(by_key))
            .service(wrap("/optional", &rules.optional).to(maybe))
            .service(web::scope("/v1").configure(manage_routes::<Session>(rules.keys.clone())))
            .service(
                web::scope("/t/{tenant}").configure(manage_routes::<Session>(rules.keys.clone())),
            )
            .service(
                web::scope("/behind")
                    .wrap(ApiKeyAuth::new(rules.optional.clone()))
                    .configure(manage_routes::<Session>(rules.keys.clone())),
            )
            .service(web::scope("/lua").configure(|config| {
                if let Some(sign_in) = rules.sign_in.clone() {
                    keyward::actix::manage::sign_in(sign_in)(config);
                }
            }))
            .service(keyward::actix::leaks::resource("/leaks", rules.leaks.clone()))
            .service(wrap("/optional-plain", &rules.optional).to(by_key))
            .route("/forgotten", web::get().to(by_key))
            .route("/forgotten-optional", web::get().to(maybe))
    };
    // Runs in its own runtime, until the process exits.
    std::thread::spawn(move || {
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        actix_web::rt::System::new().block_on(server.run()).unwrap();
    });
    address
}

/// Sends a body to `POST /api-keys` of actix-web, without a server. Returns status and body.
pub fn actix_creates(api: ManagementApi, body: &'static str) -> (u16, serde_json::Value) {
    actix_web::rt::System::new().block_on(async {
        let app = App::new().configure(manage_routes::<Session>(api));
        let app = actix_web::test::init_service(app).await;
        let request = actix_web::test::TestRequest::post()
            .uri("/api-keys")
            .insert_header(("x-session", "ada"))
            .insert_header(("content-type", "application/json"))
            .set_payload(body)
            .to_request();
        let response = actix_web::test::call_service(&app, request).await;
        let status = response.status().as_u16();
        let body = actix_web::test::read_body(response).await;
        (status, serde_json::from_slice(&body).unwrap())
    })
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
