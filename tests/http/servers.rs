//! The same service twice, as real servers: through axum and through actix-web.

use std::net::{SocketAddr, TcpListener};

use actix_web::{App, HttpServer, web};
use axum::{Router, routing::get};
use keyward::{
    Verified,
    actix::{ApiKeyAuth, MaybeVerified},
    http::Guard,
};

/// What both of them serve.
#[derive(Clone)]
pub struct Rules {
    /// `/any`: whoever has a key.
    pub any: Guard,
    /// `/builds`: who may read builds.
    pub builds: Guard,
    /// `/optional`: everyone, who presents a key only with a good one.
    pub optional: Guard,
    /// `/query`: where the danger was accepted.
    pub query: Guard,
}

pub struct Servers(pub [(&'static str, SocketAddr); 2]);

impl Servers {
    pub fn start(rules: &Rules) -> Self {
        Self([("axum", axum(rules.clone())), ("actix-web", actix(rules.clone()))])
    }
}

fn hello(verified: Option<&Verified>) -> String {
    verified.map_or("hello, nobody".into(), |key| format!("hello, {}", key.owner().account()))
}

fn axum(rules: Rules) -> SocketAddr {
    let layer = keyward::axum::layer;
    let by_key = || get(async |verified: Verified| hello(Some(&verified)));
    let app = Router::new()
        .route("/any", by_key().layer(layer(rules.any)))
        .route("/builds", by_key().layer(layer(rules.builds)))
        .route("/query", by_key().layer(layer(rules.query)))
        .route(
            "/optional",
            get(async |verified: Option<Verified>| hello(verified.as_ref()))
                .layer(layer(rules.optional)),
        )
        .route("/forgotten", by_key())
        .route("/forgotten-optional", get(async |key: Option<Verified>| hello(key.as_ref())));
    let (listener, address) = listen();
    tokio::spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, app).await.unwrap();
    });
    address
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
            .service(wrap("/optional", &rules.optional).to(maybe))
            .route("/forgotten", web::get().to(by_key))
            .route("/forgotten-optional", web::get().to(maybe))
    };
    // It has a runtime of its own, and ends with the process.
    std::thread::spawn(move || {
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        actix_web::rt::System::new().block_on(server.run()).unwrap();
    });
    address
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
