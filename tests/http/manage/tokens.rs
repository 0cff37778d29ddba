//! Whose idempotency key is whose, and of which operation.

use keyward::VerifyRequest;
use serde_json::Value;

use super::{Client, Reply};
use crate::{http::world::World, support::SECOND};

async fn post(client: &Client, path: &str, token: &str, body: &str) -> Reply {
    let fields = [("content-type", "application/json"), ("idempotency-key", token)];
    client.call_with("POST", path, body, &fields).await
}

fn of<'a>(made: &'a Value, field: &str) -> &'a str {
    made[field].as_str().unwrap()
}

async fn works(world: &World, made: &Value) -> bool {
    world.keys().verify(of(made, "key"), &VerifyRequest::new()).await.is_ok()
}

#[tokio::test]
async fn a_rotation_with_the_idempotency_key_of_the_create_keeps_its_overlap() {
    for used in [false, true] {
        let world = World::new();
        let ada = Client::new(world.keys(), "acme/ada");
        let made = post(&ada, "/api-keys", "4711", r#"{"name": "ci"}"#).await.json();
        if used {
            assert!(works(&world, &made).await);
        }
        let path = format!("/api-keys/{}/rotate", of(&made, "id"));
        let rotated = post(&ada, &path, "4711", r#"{"overlapSeconds": 60}"#).await.json();
        assert_eq!(of(&rotated, "id"), of(&made, "id"));
        assert!(works(&world, &made).await, "its overlap lasts a minute, used before: {used}");
        assert!(works(&world, &rotated).await);
        world.service.clock.advance(SECOND * 60);
        assert!(!works(&world, &made).await);
        assert!(works(&world, &rotated).await);
    }
}

#[tokio::test]
async fn a_create_with_the_idempotency_key_of_a_rotation_makes_another_key() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let body = r#"{"name": "ci"}"#;
    let made = ada.create(body).await;
    let path = format!("/api-keys/{}/rotate", of(&made, "id"));
    let rotated = post(&ada, &path, "4711", r#"{"overlapSeconds": 60}"#).await.json();
    let other = post(&ada, "/api-keys", "4711", body).await;
    assert_eq!(other.status, 201, "{}", other.text);
    let other = other.json();
    assert_ne!(of(&other, "id"), of(&made, "id"));
    for made in [&made, &rotated, &other] {
        assert!(works(&world, made).await);
    }
}

#[tokio::test]
async fn an_administrator_that_uses_the_idempotency_key_of_another_account_makes_a_key_of_its_own()
{
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let root = ada.as_session("acme/root/administrator");
    let body = r#"{"name": "ci"}"#;
    let of_ada = post(&ada, "/api-keys", "4711", body).await.json();
    let of_root = post(&root, "/api-keys", "4711", body).await;
    assert_eq!(of_root.status, 201, "{}", of_root.text);
    let of_root = of_root.json();
    assert_ne!(of(&of_root, "id"), of(&of_ada, "id"));
    assert_eq!(of(&of_root, "account"), "root");
    assert!(works(&world, &of_ada).await, "the secret of the other account was not replaced");

    // Tried again, it is the same key, and only its own secret is replaced.
    world.service.clock.advance(SECOND * 10);
    let again = post(&root, "/api-keys", "4711", body).await;
    assert_eq!(again.status, 201, "{}", again.text);
    let again = again.json();
    assert_eq!(of(&again, "id"), of(&of_root, "id"));
    assert!(!works(&world, &of_root).await);
    for made in [&of_ada, &again] {
        assert!(works(&world, made).await);
    }
}
