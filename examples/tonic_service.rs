//! A small gRPC service: whoever is signed in makes a key, and keys list builds.
//! `cargo run --example tonic_service` serves it, and calls it once.
//!
//! What `tonic-prost-build` would make of `tonic_service.proto` is written by hand at the end, so that
//! this builds without protoc.

use std::{error::Error, net::SocketAddr};

use keyward::{Access, Actor, ApiKeys, KeyFormat, NewKey, Owner, SqliteStore, Verified};
use keyward::{http::Guard, tower::ApiKeyLayer};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    service::LayerExt,
    transport::{
        Channel, Server,
        server::{TcpConnectInfo, TcpIncoming},
    },
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let format = KeyFormat::builder("acme").environment("live").build()?;
    let keys = ApiKeys::builder(SqliteStore::in_memory().await?, format).build();
    let guard = ApiKeyLayer::grpc(Guard::new(keys.clone()).require("builds:read"))
        .peer(|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip()));
    let server = Server::builder()
        .add_service(wire::Keys(keys.clone()))
        .add_service(guard.named_layer(wire::Builds));

    let listener = TcpListener::bind("127.0.0.1:50051").await?;
    let at = listener.local_addr()?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    let serve = server.serve_with_incoming_shutdown(TcpIncoming::from(listener), stop);
    let serve = tokio::spawn(serve);

    let secret = call_once(at).await?;
    let grpcurl = "grpcurl -plaintext -import-path examples -proto tonic_service.proto";
    println!(
        "Make a key:  {grpcurl} -H 'session: ada' -d '{{\"name\": \"ci\"}}' {at} acme.Keys/Make"
    );
    println!("Use this:    {grpcurl} -H 'Authorization: Bearer {secret}' {at} acme.Builds/List");
    serve.await??;
    keys.shutdown().await?;
    Ok(())
}

/// As a client does it: without a key, then with one.
async fn call_once(at: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut client =
        wire::Client::new(Channel::from_shared(format!("http://{at}"))?.connect().await?);
    let refused = client.list_builds(Request::new(wire::ListBuilds {})).await.unwrap_err();
    println!("Without key: {:?}: {}", refused.code(), refused.message());

    let mut request = Request::new(wire::MakeKey { name: "first".into() });
    request.metadata_mut().insert("session", "ada".parse()?);
    let secret = client.make_key(request).await?.into_inner().secret;

    let mut request = Request::new(wire::ListBuilds {});
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse()?);
    println!("With one:    {:?}", client.list_builds(request).await?.into_inner());
    Ok(secret)
}

async fn list_builds(
    request: Request<wire::ListBuilds>,
) -> Result<Response<wire::BuildList>, Status> {
    let verified = request.extensions().get::<Verified>().expect("the layer stands in front");
    let account = verified.owner().account().into();
    Ok(Response::new(wire::BuildList { account, ids: vec!["4711".into(), "4712".into()] }))
}

async fn make_key(
    keys: ApiKeys,
    request: Request<wire::MakeKey>,
) -> Result<Response<wire::MadeKey>, Status> {
    let owner = session(&request)?;
    let actor = Actor::account(owner.account());
    let new = NewKey::new(&owner, &request.get_ref().name);
    let new = new.map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
    let access = Access::only(["builds:read"]).expect("it is a scope");
    let issued = keys.issue(new.access(access), &actor).await;
    let issued = issued.map_err(|error| Status::failed_precondition(error.to_string()))?;
    let secret = issued.secret.expose().into();
    Ok(Response::new(wire::MadeKey { id: issued.key.id.to_string(), secret }))
}

/// Whose session it is. A stand-in: a real service looks a random token up in its own sessions.
fn session<T>(request: &Request<T>) -> Result<Owner, Status> {
    let account = request.metadata().get("session").and_then(|value| value.to_str().ok());
    let account = account.filter(|account| ["ada", "bob"].contains(account));
    account
        .and_then(|account| Owner::account_only(account).ok())
        .ok_or_else(|| Status::unauthenticated("sign in first"))
}

mod wire {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use keyward::ApiKeys;
    use prost::Message;
    use tonic::{
        Request, Response, Status, body::Body, client, server, server::NamedService,
        transport::Channel,
    };
    use tonic_prost::ProstCodec;
    use tower::{Service, service_fn};

    #[derive(Clone, PartialEq, Message)]
    pub struct MakeKey {
        #[prost(string, tag = "1")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct MadeKey {
        #[prost(string, tag = "1")]
        pub id: String,
        #[prost(string, tag = "2")]
        pub secret: String,
    }

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
    pub struct Keys(pub ApiKeys);

    #[derive(Clone)]
    pub struct Builds;

    impl NamedService for Keys {
        const NAME: &'static str = "acme.Keys";
    }

    impl NamedService for Builds {
        const NAME: &'static str = "acme.Builds";
    }

    type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    impl Service<http::Request<Body>> for Keys {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Answer;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Answer {
            let keys = self.0.clone();
            Box::pin(async move {
                let make = service_fn(move |request| super::make_key(keys.clone(), request));
                Ok(match request.uri().path() {
                    "/acme.Keys/Make" => {
                        server::Grpc::new(ProstCodec::default()).unary(make, request).await
                    }
                    _ => Status::unimplemented("there is only Make").into_http(),
                })
            })
        }
    }

    impl Service<http::Request<Body>> for Builds {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Answer;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Answer {
            Box::pin(async move {
                let list = service_fn(super::list_builds);
                Ok(match request.uri().path() {
                    "/acme.Builds/List" => {
                        server::Grpc::new(ProstCodec::default()).unary(list, request).await
                    }
                    _ => Status::unimplemented("there is only List").into_http(),
                })
            })
        }
    }

    /// Of both services.
    pub struct Client(client::Grpc<Channel>);

    impl Client {
        pub fn new(channel: Channel) -> Self {
            Self(client::Grpc::new(channel))
        }

        pub async fn make_key(
            &mut self,
            request: Request<MakeKey>,
        ) -> Result<Response<MadeKey>, Status> {
            self.unary(request, "/acme.Keys/Make").await
        }

        pub async fn list_builds(
            &mut self,
            request: Request<ListBuilds>,
        ) -> Result<Response<BuildList>, Status> {
            self.unary(request, "/acme.Builds/List").await
        }

        async fn unary<Q: Message + 'static, A: Message + Default + 'static>(
            &mut self,
            request: Request<Q>,
            path: &'static str,
        ) -> Result<Response<A>, Status> {
            let ready = self.0.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = http::uri::PathAndQuery::from_static(path);
            self.0.unary(request, path, ProstCodec::default()).await
        }
    }
}
