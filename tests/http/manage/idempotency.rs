use keyward::VerifyRequest;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Client, Reply};
use crate::{
    http::world::World,
    support::{DAY, SECOND, Service, on_each_store, stores::SqliteFile},
};

async fn create(client: &Client, token: &str, body: &str) -> Reply {
    let fields = [("content-type", "application/json"), ("idempotency-key", token)];
    client.call_with("POST", "/api-keys", body, &fields).await
}

fn of<'a>(made: &'a Value, field: &str) -> &'a str {
    made[field].as_str().unwrap()
}

#[tokio::test]
async fn a_retried_create_makes_one_key_and_only_the_last_secret_is_valid() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (first, last) = (service.keys(), service.nodes.last().unwrap());
        let body = r#"{"name": "ci", "scopes": ["a"]}"#;
        let lost = create(&Client::new(first, "acme/ada"), "4711", body).await.json();
        let early = create(&Client::new(last, "acme/ada"), "4711", body).await;
        assert_eq!(early.problem(), (409, "conflict".into()));
        assert_eq!(early.fields["retry-after"], "10");
        service.clock.advance(SECOND * 10);
        let made = create(&Client::new(last, "acme/ada"), "4711", body).await;
        assert_eq!(made.status, 201);
        let made = made.json();
        assert_eq!(of(&made, "id"), of(&lost, "id"));
        assert_ne!(of(&made, "key"), of(&lost, "key"));
        for node in &service.nodes {
            node.catch_up().await.unwrap();
            assert!(node.verify(of(&lost, "key"), &VerifyRequest::new()).await.is_err());
        }
        assert!(last.verify(of(&made, "key"), &VerifyRequest::new()).await.is_ok());

        let ada = Client::new(last, "acme/ada");
        let used = create(&ada, "4711", body).await;
        assert_eq!(used.problem(), (422, "idempotency_key_reused".into()));
        assert!(
            last.verify(of(&made, "key"), &VerifyRequest::new()).await.is_ok(),
            "the secret is in use"
        );
        let bob = create(&ada.as_session("acme/bob"), "4711", body).await.json();
        assert_ne!(of(&bob, "id"), of(&made, "id"), "tokens of other owners are independent");
        let other = create(&ada, "4712", body).await.json();
        assert_ne!(of(&other, "id"), of(&made, "id"));
        let changed = create(&ada, "4712", r#"{"name": "cd", "scopes": ["a"]}"#).await;
        assert_eq!(changed.problem(), (422, "idempotency_key_reused".into()));
        let list = ada.call("GET", "/api-keys", "").await.json();
        assert_eq!(list["keys"].as_array().unwrap().len(), 2);

        service.clock.advance(DAY + DAY);
        let later = create(&ada, "4712", body).await.json();
        assert_ne!(of(&later, "id"), of(&other, "id"), "a token expires after a day");
    })
    .await;
}

#[tokio::test]
async fn a_retried_rotation_keeps_the_overlap_of_the_first_attempt() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci"}"#).await;
    let path = format!("/api-keys/{}/rotate", of(&made, "id"));
    let rotate = async || {
        let fields = [("content-type", "application/json"), ("idempotency-key", "r1")];
        let reply = ada.call_with("POST", &path, r#"{"overlapSeconds": 60}"#, &fields).await;
        reply.json()
    };
    let lost = rotate().await;
    world.service.clock.advance(SECOND * 10);
    let kept = rotate().await;
    let works = async |made: &Value| {
        world.keys().verify(of(made, "key"), &VerifyRequest::new()).await.is_ok()
    };
    assert_eq!([works(&made).await, works(&lost).await, works(&kept).await], [true, false, true]);
}

#[tokio::test]
async fn an_invalid_idempotency_key_is_rejected() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    for token in ["", "a b", &"x".repeat(201)] {
        let reply = create(&ada, token, r#"{"name": "x"}"#).await;
        assert_eq!(reply.problem(), (422, "invalid".into()), "{token}");
    }
    assert_eq!(ada.call("GET", "/api-keys", "").await.text, r#"{"keys":[]}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_creates_with_one_token_leave_one_key() {
    for _ in 0..5 {
        let file = SqliteFile::new();
        let service = Service::new(file.open_twice().await);
        let nodes: Vec<_> =
            service.nodes.iter().map(|keys| Client::new(keys, "acme/ada")).collect();
        let mut tasks = JoinSet::new();
        for n in 0..8 {
            let ada = nodes[n % nodes.len()].clone();
            tasks.spawn(async move { create(&ada, "4711", r#"{"name": "ci"}"#).await.status });
        }
        let mut statuses = tasks.join_all().await;
        statuses.sort();
        assert_eq!(statuses, [[201].as_slice(), &[409; 7]].concat());
        let list = nodes[0].call("GET", "/api-keys", "").await.json();
        assert_eq!(list["keys"].as_array().unwrap().len(), 1, "{list}");
        service.clock.advance(SECOND * 10);
        let made = create(&nodes[0], "4711", r#"{"name": "ci"}"#).await.json();
        assert!(service.keys().verify(of(&made, "key"), &VerifyRequest::new()).await.is_ok());
    }
}
