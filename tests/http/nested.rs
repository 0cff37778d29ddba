//! Guards inside guards: the inner guard applies its own rules to a request that is already verified.

use std::{convert::Infallible, net::IpAddr, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use keyward::{
    Access, Expiry,
    http::{Credentials, Guard},
    model::{Networks, Rate},
    tower::ApiKeyLayer,
};
use tower::{Layer, ServiceExt, service_fn};

use super::world::{World, text};
use crate::support::{HOUR, MICRO, SECOND};

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

/// Returns the status of a request from `peer` that two guards check, one after the other, `wait` apart.
async fn checked_later(
    world: &World,
    [outer, inner]: [&Guard; 2],
    secret: &str,
    [outer_peer, inner_peer]: [Option<IpAddr>; 2],
    wait: Duration,
) -> u16 {
    let (mut head, _) = with_key(secret).into_parts();
    assert!(outer.check(&mut head, outer_peer).await.unwrap().is_some());
    world.service.clock.advance(wait);
    match inner.check(&mut head, inner_peer).await {
        Ok(verified) => {
            assert!(verified.is_some());
            200
        }
        Err(refusal) => refusal.into_response::<String>().status().as_u16(),
    }
}

#[tokio::test]
async fn an_inner_guard_rejects_a_key_of_another_tenant() {
    let world = World::new();
    let secret = world.reader().await;
    for (template, expected) in [("/{tenant}", 200), ("/acme/{tenant}", 401)] {
        let inner = world.guard_builder().tenant_in_path(template).build().unwrap();
        assert_eq!(checked(&world.guard(), &inner, &secret).await, expected, "{template}");
        assert_eq!(layered(&world.guard(), &inner, &secret).await, expected, "{template}");
    }
}

#[tokio::test]
async fn an_inner_guard_rejects_a_key_that_has_expired_since_the_outer_one() {
    let world = World::new();
    let guard = world.guard();
    let new = world.service.new_key().expiry(Expiry::After(HOUR));
    let issued = world.keys().issue(new, &world.service.actor).await.unwrap();
    let secret = text(&issued);
    let nobody = [None, None];
    let status = checked_later(&world, [&guard, &guard], &secret, nobody, HOUR - MICRO).await;
    assert_eq!(status, 200);
    assert_eq!(checked_later(&world, [&guard, &guard], &secret, nobody, MICRO).await, 401);
}

#[tokio::test]
async fn an_inner_guard_decides_by_the_address_that_the_outer_one_has_seen() {
    let world = World::new();
    let guard = world.guard();
    let new = world.service.new_key().networks(Networks::only(["192.0.2.0/24"]).unwrap());
    let issued = world.keys().issue(new, &world.service.actor).await.unwrap();
    let secret = text(&issued);
    let home: Option<IpAddr> = "192.0.2.7".parse().ok();
    for inner_peer in [home, None, "198.51.100.7".parse().ok()] {
        let peers = [home, inner_peer];
        let status = checked_later(&world, [&guard, &guard], &secret, peers, Duration::ZERO).await;
        assert_eq!(status, 200, "{inner_peer:?}");
    }
}

#[tokio::test]
async fn an_inner_guard_denies_a_key_that_was_revoked_since_the_outer_one() {
    let world = World::new();
    let guard = world.guard();
    let issued = world.service.issue().await;
    let (mut head, _) = with_key(issued.secret.expose()).into_parts();
    guard.check(&mut head, None).await.unwrap();
    guard.check(&mut head, None).await.unwrap();
    let (owner, by) = (&world.service.owner, &world.service.actor);
    world.keys().revoke(owner, issued.key.id, "", by).await.unwrap();
    let refusal = guard.check(&mut head, None).await.unwrap_err();
    assert_eq!(refusal.into_response::<String>().status(), 401);
}

/// A slow upload, for example: what the outer guard found is older than the bound.
#[tokio::test]
async fn a_guard_verifies_again_after_the_bound_without_a_second_charge() {
    let world = World::new();
    let guard = world.guard();
    let secret = world.limited(Rate::per_hour(1)).await;
    let nobody = [None, None];
    let status = checked_later(&world, [&guard, &guard], &secret, nobody, 6 * SECOND).await;
    assert_eq!(status, 200);
    // An inner guard that does not find the key cannot verify it, and the key is not at fault.
    let secret = world.reader().await;
    let elsewhere = Credentials::header("x-other");
    let inner = world.guard_builder().credentials(elsewhere).build().unwrap();
    for (wait, expected) in [(Duration::ZERO, 200), (6 * SECOND, 503)] {
        let status = checked_later(&world, [&guard, &inner], &secret, nobody, wait).await;
        assert_eq!(status, expected);
    }
}
