//! The layer in a real tonic server, called by a real tonic client.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use keyward::{Access, Verified, model::Rate, tower::ApiKeyLayer};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client,
    server::{self, NamedService},
    service::LayerExt,
    transport::{
        Channel, Server,
        server::{TcpConnectInfo, TcpIncoming},
    },
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::world::{World, text};
use crate::cache::faulty_store::Fault;

/// Greets the account of the key.
#[derive(Clone)]
struct Hello;

impl NamedService for Hello {
    const NAME: &'static str = "test.Hello";
}

impl Service<http::Request<Body>> for Hello {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let hello = service_fn(async |request: Request<String>| {
            let verified = request.extensions().get::<Verified>().unwrap();
            let account = verified.owner().account();
            Ok::<_, Status>(Response::new(format!("{}, {account}", request.get_ref())))
        });
        let mut grpc = server::Grpc::new(ProstCodec::<String, String>::default());
        Box::pin(async move { Ok(grpc.unary(hello, request).await) })
    }
}

async fn serve(world: &World) -> Channel {
    let layer = ApiKeyLayer::grpc(world.guard_builder().require("builds:read").build().unwrap())
        .peer(|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_service(layer.named_layer(Hello));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Channel::from_shared(at).unwrap().connect().await.unwrap()
}

async fn call(channel: &Channel, fields: &[(&'static str, &str)]) -> Result<String, Status> {
    let mut request = Request::new("hello".to_owned());
    for (name, value) in fields {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let mut client = client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/test.Hello/Say");
    Ok(client.unary(request, path, ProstCodec::default()).await?.into_inner())
}

#[tokio::test]
async fn grpc_rejections_match_http_rejections() {
    let world = World::new();
    let channel = serve(&world).await;
    let good = world.reader().await;
    let (limited, revoked) = (world.limited(Rate::per_hour(1)).await, world.revoked().await);
    let narrow = text(&world.service.issue_with(Access::only(["deploy"]).unwrap()).await);
    assert_eq!(call(&channel, &[("x-api-key", &good)]).await.unwrap(), "hello, ada");
    let bearer = format!("Bearer {good}");
    assert_eq!(call(&channel, &[("authorization", &bearer)]).await.unwrap(), "hello, ada");
    assert_eq!(call(&channel, &[("x-api-key", &limited)]).await.unwrap(), "hello, ada");

    let table: [(&[(_, &str)], _, _); 7] = [
        (&[], Code::Unauthenticated, None),
        (&[("x-api-key", "nonsense")], Code::Unauthenticated, None),
        (&[("x-api-key", &world.unknown())], Code::Unauthenticated, None),
        (&[("x-api-key", &revoked)], Code::Unauthenticated, None),
        (&[("x-api-key", &good), ("authorization", &bearer)], Code::Unauthenticated, None),
        (&[("x-api-key", &narrow)], Code::PermissionDenied, None),
        (&[("x-api-key", &limited)], Code::ResourceExhausted, Some("3600")),
    ];
    for (fields, code, retry_after) in table {
        let status = call(&channel, fields).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        let header = status.metadata().get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(header, retry_after, "{status:?}");
        assert!(!status.message().is_empty() && !status.message().contains(&good));
    }
}

#[tokio::test]
async fn grpc_returns_unavailable_while_the_store_is_down() {
    let world = World::new();
    let channel = serve(&world).await;
    let good = world.reader().await;
    world.store.set_find_fault(Fault::Unavailable);
    let status = call(&channel, &[("x-api-key", &good)]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("retry-after").unwrap(), "5");
    world.store.set_find_fault(Fault::None);
    assert_eq!(call(&channel, &[("x-api-key", &good)]).await.unwrap(), "hello, ada");
}
