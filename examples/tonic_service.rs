//! A small gRPC service on tonic: sessions, the management API, and a method that requires an API key.
//! `cargo run -p keyward-tests --example tonic_service` serves it, and calls it once without and once with a key;
//! `-- --listen 127.0.0.1:0` sets the address.
//!
//! The module `wire` stands for the code that `tonic-prost-build` generates from
//! `tonic_service.proto`. It is written by hand, so that the example builds without protoc.

#[path = "common/serve.rs"]
mod serve;
#[path = "common/session_cookie.rs"]
mod session_cookie;

use std::{env, error::Error, net::SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, request::Parts},
};
use keyward::{
    Access, Actor, ApiKeys, KeyFormat, NewKey, Owner, SqliteStore, Verified,
    axum::manage,
    http::{Guard, manage::Caller},
    tower::ApiKeyLayer,
};
use tonic::{
    Request, Response, Status,
    service::{LayerExt, Routes},
    transport::Channel,
};
use tower_http::csrf::CsrfLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let format = KeyFormat::builder("acme").environment("live").build()?;
    let keys = ApiKeys::builder(SqliteStore::in_memory().await?, format).build();
    let guard = Guard::builder(keys.clone()).require("builds:read").build()?;
    let layer = ApiKeyLayer::grpc(guard)
        .peer(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    // Serves gRPC and the JSON management API on the same port.
    let app = Routes::new(layer.named_layer(wire::Builds))
        .into_axum_router()
        // Here come browsers: refuses changes that another site asks them for (CSRF).
        .nest("/v1", manage::router::<Session, _>(keys.clone()).layer(CsrfLayer::new()));

    let listen = env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = serve::listen(&listen.unwrap_or("127.0.0.1:50051".into())).await?;
    let at = listener.local_addr()?;
    println!("Acme is at http://{at}");
    let serve = tokio::spawn(serve::serve(listener, app));

    call_once(&keys, at).await?;
    println!(
        "Create a key: curl http://{at}/v1/api-keys -b session=ada --json '{{\"name\": \"ci\", \"scopes\": [\"builds:read\"]}}'"
    );
    println!(
        "Use it:       grpcurl -plaintext -import-path examples -proto tonic_service.proto -H 'Authorization: Bearer KEY' {at} acme.Builds/List"
    );
    serve.await??;
    keys.shutdown().await?;
    Ok(())
}

/// Calls the service as a client does: without a key, then with a key.
async fn call_once(keys: &ApiKeys, at: SocketAddr) -> Result<(), Box<dyn Error>> {
    let channel = Channel::from_shared(format!("http://{at}"))?.connect().await?;
    let mut client = wire::BuildsClient::new(channel);
    let refused = client.list(Request::new(wire::ListBuilds {})).await.unwrap_err();
    println!("Without key:  {:?}: {}", refused.code(), refused.message());

    let bob = Owner::account_only("bob")?;
    let new = NewKey::new(&bob, "first")?.access(Access::only(["builds:read"])?);
    let issued = keys.issue(new, &Actor::account("bob")).await?;
    let mut request = Request::new(wire::ListBuilds {});
    let bearer = format!("Bearer {}", issued.secret.expose());
    request.metadata_mut().insert("authorization", bearer.parse()?);
    println!("With key:     {:?}", client.list(request).await?.into_inner());
    Ok(())
}

async fn list_builds(
    request: Request<wire::ListBuilds>,
) -> Result<Response<wire::BuildList>, Status> {
    let verified =
        request.extensions().get::<Verified>().expect("the layer rejects requests without a key");
    let account = verified.owner().account().into();
    Ok(Response::new(wire::BuildList { account, ids: vec!["4711".into(), "4712".into()] }))
}

/// A session of Ada or Bob. For demonstration only: a real service looks up a random token in its own
/// sessions.
struct Session {
    owner: Owner,
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let account = session_cookie::session_cookie(&parts.headers)
            .filter(|account| ["ada", "bob"].contains(account));
        let owner = account.and_then(|account| Owner::account_only(account).ok());
        owner.map(|owner| Self { owner }).ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl From<Session> for Caller {
    fn from(session: Session) -> Self {
        let actor = Actor::account(session.owner.account());
        Self::new(session.owner, actor)
    }
}

mod wire {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use prost::Message;
    use tonic::{
        Request, Response, Status, body::Body, client, server, server::NamedService,
        transport::Channel,
    };
    use tonic_prost::ProstCodec;
    use tower::{Service, service_fn};

    #[derive(Clone, PartialEq, Message)]
    pub struct ListBuilds {}

    #[derive(Clone, PartialEq, Message)]
    pub struct BuildList {
        #[prost(string, tag = "1")]
        pub account: String,
        #[prost(string, repeated, tag = "2")]
        pub ids: Vec<String>,
    }

    #[derive(Clone)]
    pub struct Builds;

    impl NamedService for Builds {
        const NAME: &'static str = "acme.Builds";
    }

    impl Service<http::Request<Body>> for Builds {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            Box::pin(async move {
                let list = service_fn(super::list_builds);
                Ok(match request.uri().path() {
                    "/acme.Builds/List" => {
                        server::Grpc::new(ProstCodec::default()).unary(list, request).await
                    }
                    _ => Status::unimplemented("the only method is List").into_http(),
                })
            })
        }
    }

    pub struct BuildsClient(client::Grpc<Channel>);

    impl BuildsClient {
        pub fn new(channel: Channel) -> Self {
            Self(client::Grpc::new(channel))
        }

        pub async fn list(
            &mut self,
            request: Request<ListBuilds>,
        ) -> Result<Response<BuildList>, Status> {
            let ready = self.0.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = http::uri::PathAndQuery::from_static("/acme.Builds/List");
            self.0.unary(request, path, ProstCodec::default()).await
        }
    }
}
