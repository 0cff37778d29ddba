//! Guards inside guards: the inner guard applies its own rules to a request that is already verified.

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use keyward::{Access, http::Guard, tower::ApiKeyLayer};
use tower::{Layer, ServiceExt, service_fn};

use super::world::{World, text};

fn with_key(secret: &str) -> Request<Body> {
    Request::builder().uri("/acme").header("x-api-key", secret).body(Body::empty()).unwrap()
}

/// Returns the status of a request that both guards check.
async fn checked(outer: &Guard, inner: &Guard, secret: &str) -> u16 {
    let (mut head, _) = with_key(secret).into_parts();
    assert!(outer.check(&mut head, None).await.unwrap().is_some());
    match inner.check(&mut head, None).await {
        Ok(verified) => {
            assert!(verified.is_some());
            200
        }
        Err(refusal) => refusal.into_response::<String>().status().as_u16(),
    }
}

/// The same through layers of tower.
async fn layered(outer: &Guard, inner: &Guard, secret: &str) -> u16 {
    let handler =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let inner = ApiKeyLayer::new(inner.clone()).layer(handler);
    let service = ApiKeyLayer::new(outer.clone()).layer(inner);
    service.oneshot(with_key(secret)).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn an_inner_guard_requires_its_own_scopes() {
    let world = World::new();
    let outer = world.guard();
    let all = world.guard_builder().require("builds:read").require("builds:write").build().unwrap();
    let any = world.guard_builder().require_any(["builds:read", "builds:write"]).build().unwrap();
    let both = world
        .guard_builder()
        .require("deploy")
        .require_any(["builds:read", "builds:write"])
        .build()
        .unwrap();
    for (access, of_all, of_any, of_both) in [
        (&["builds:read"][..], 403, 200, 403),
        (&["builds:write"], 403, 200, 403),
        (&["builds:read", "builds:write"], 200, 200, 403),
        (&["builds:write", "deploy"], 403, 200, 200),
        (&["deploy"], 403, 403, 403),
        (&[], 403, 403, 403),
    ] {
        let secret = text(&world.service.issue_with(Access::only(access).unwrap()).await);
        for (inner, expected) in [(&all, of_all), (&any, of_any), (&both, of_both)] {
            assert_eq!(checked(&outer, inner, &secret).await, expected, "{access:?}: {inner:?}");
            assert_eq!(layered(&outer, inner, &secret).await, expected, "{access:?}: {inner:?}");
        }
    }
}
