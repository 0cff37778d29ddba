//! Requests that are repeated with one `Idempotency-Key`, to axum and actix-web.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use keyward::{
    ApiKeys, AuditQuery, Limits, VerifyRequest,
    audit::EventKind,
    http::{Guard, leaks::LeakReceiver},
    manage::Page,
};
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    declared::Seen,
    leaks::{GitHub, sign},
    raw::{Reply, send},
    servers::{Rules, Servers},
    world::World,
};
use crate::support::{DAY, HOUR, SECOND, Service, on_each_store};

fn start(keys: &ApiKeys) -> Servers {
    let guard = Guard::new(keys.clone());
    Servers::start(&Rules {
        leaks: LeakReceiver::github(keys.clone(), GitHub::new()),
        keys: keys.clone(),
        any: guard.clone(),
        builds: guard.clone(),
        optional: guard.clone(),
        query: guard.clone(),
        header: guard,
        sign_in: None,
    })
}

/// Sends a request of ada, and checks that the document declares the response.
async fn post(servers: &Servers, server: usize, path: &str, token: &str, body: &str) -> Reply {
    let reply = raw_post(servers.both[server].1, path, token, body).await;
    let seen = Seen { status: reply.status, fields: &reply.map(), body: &reply.body };
    servers.document.expect("POST", &format!("/v1{path}"), &seen);
    reply
}

async fn raw_post(to: SocketAddr, path: &str, token: &str, body: &str) -> Reply {
    let request = format!(
        "POST /v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Session: ada\r\n\
         Content-Type: application/json\r\nIdempotency-Key: {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    send(to, request.as_bytes()).await
}

fn issued(reply: &Reply) -> (String, String) {
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    let json: Value = serde_json::from_str(&reply.body).unwrap();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

fn problem(reply: &Reply) -> (u16, String) {
    (reply.status, reply.code().unwrap_or_default())
}

fn reused() -> (u16, String) {
    (422, "idempotency_key_reused".into())
}

async fn works(keys: &ApiKeys, secret: &str) -> bool {
    keys.catch_up().await.unwrap();
    keys.verify(secret, &VerifyRequest::new()).await.is_ok()
}

/// Sends 32 equal requests at once, to both frameworks on each node.
async fn race(nodes: &[Servers], path: &str, body: &'static str) -> Vec<Reply> {
    let start = Arc::new(Barrier::new(32));
    let mut tasks = JoinSet::new();
    for n in 0..32 {
        let to = nodes[n / 2 % nodes.len()].both[n % 2].1;
        let (start, path) = (start.clone(), path.to_owned());
        tasks.spawn(async move {
            start.wait().await;
            raw_post(to, &path, "4711", body).await
        });
    }
    tasks.join_all().await
}

/// Checks that each response is the one that contains a secret, or says when to try again. Returns the key and its
/// secret.
fn the_only_secret(replies: &[Reply]) -> (String, String) {
    let (made, refused): (Vec<_>, Vec<_>) =
        replies.iter().partition(|reply| [200, 201].contains(&reply.status));
    for reply in refused {
        assert_eq!(problem(reply), (409, "conflict".into()), "{reply:?}");
        let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
    }
    let [made] = made[..] else { panic!("{} of 32 responses contain a secret", made.len()) };
    issued(made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_creates_with_one_idempotency_key_make_one_key_with_a_live_secret() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        service.host.limit(&service.owner, Limits::default().max_active_keys(1));
        let nodes: Vec<_> = service.nodes.iter().map(start).collect();
        let replies = race(&nodes, "/api-keys", r#"{"name": "ci"}"#).await;
        let (id, secret) = the_only_secret(&replies);
        let stored = service.keys().list(&service.owner, Page::first()).await.unwrap().keys;
        let [stored] = &stored[..] else { panic!("{} keys were made", stored.len()) };
        assert_eq!(stored.id.to_string(), id);

        // The response was lost: in the end, there is a secret that works.
        for server in [0, 1] {
            service.clock.advance(SECOND * 10);
            let reply = post(&nodes[0], server, "/api-keys", "4711", r#"{"name": "ci"}"#).await;
            assert_eq!(issued(&reply).0, id);
            assert!(!works(service.nodes.last().unwrap(), &secret).await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_thirty_two_creates_with_one_idempotency_key_works_on_each_node() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let nodes: Vec<_> = service.nodes.iter().map(start).collect();
        let replies = race(&nodes, "/api-keys", r#"{"name": "ci"}"#).await;
        let (_, secret) = the_only_secret(&replies);
        for node in &service.nodes {
            assert!(works(node, &secret).await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_rotations_with_one_idempotency_key_make_one_live_secret() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let nodes: Vec<_> = service.nodes.iter().map(start).collect();
        let old = service.issue().await;
        service.clock.advance(HOUR);
        let path = format!("/api-keys/{}/rotate", old.key.id);
        let replies = race(&nodes, &path, r#"{"overlapSeconds": 60}"#).await;
        let (_, secret) = the_only_secret(&replies);
        for node in &service.nodes {
            assert!(works(node, &secret).await);
            assert!(works(node, old.secret.expose()).await, "the overlap of the only rotation");
        }
        let query = AuditQuery::new(&service.owner).kind(EventKind::Rotated);
        assert_eq!(service.keys().events(query).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_rotation_does_not_end_a_secret_in_use() {
    let world = World::new();
    let (servers, clock) = (start(world.keys()), &world.service.clock);
    for server in [0, 1] {
        for body in ["{}", r#"{"overlapSeconds": 3600}"#] {
            let old = world.service.issue().await;
            let path = format!("/api-keys/{}/rotate", old.key.id);
            let (_, lost) = issued(&post(&servers, server, &path, "r1", body).await);
            clock.advance(SECOND * 10);
            let (_, kept) = issued(&post(&servers, server, &path, "r1", body).await);
            assert!(!works(world.keys(), &lost).await, "it was never received");
            assert!(works(world.keys(), &kept).await);
            for wait in [Duration::ZERO, SECOND * 10, HOUR] {
                clock.advance(wait);
                let again = post(&servers, server, &path, "r1", body).await;
                assert_eq!(problem(&again), reused(), "after {wait:?}");
                assert!(works(world.keys(), &kept).await, "the secret is in use");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_rotation_is_compared_with_the_first_one_for_a_day() {
    let world = World::new();
    let (servers, clock) = (start(world.keys()), &world.service.clock);
    for server in [0, 1] {
        let old = world.service.issue().await;
        let path = format!("/api-keys/{}/rotate", old.key.id);
        let minute = r#"{"overlapSeconds": 60}"#;
        let (_, made) = issued(&post(&servers, server, &path, "r1", minute).await);
        clock.advance(SECOND * 10);
        for other in ["", "{}", r#"{"overlapSeconds": 0}"#, r#"{"overlapSeconds": 61}"#] {
            let reply = post(&servers, server, &path, "r1", other).await;
            assert_eq!(problem(&reply), reused(), "{other}");
        }
        assert!(works(world.keys(), old.secret.expose()).await, "its overlap is not over");
        clock.advance(DAY);
        let (_, later) = issued(&post(&servers, server, &path, "r1", "{}").await);
        assert!(works(world.keys(), &later).await);
        assert!(!works(world.keys(), &made).await, "a rotation of its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_create_compares_everything_that_was_asked_for() {
    let world = World::new();
    let (servers, clock) = (start(world.keys()), &world.service.clock);
    let at = |after| world.service.now().after(after).to_string();
    let (soon, later) = (at(DAY), at(DAY * 2));
    let name = json!({ "name": "ci" });
    let with = |field: &str, value: Value| {
        let mut body = name.clone();
        body[field] = value;
        body
    };
    let bodies = [
        name.clone(),
        json!({ "name": "cd" }),
        with("scopes", json!([])),
        with("scopes", json!(["a"])),
        with("scopes", json!(["a", "b"])),
        with("expiresInDays", json!(3)),
        with("expiresInDays", json!(4)),
        with("expiresAt", json!(soon)),
        with("expiresAt", json!(later)),
        with("allowedNetworks", json!(["192.0.2.0/24"])),
        with("allowedNetworks", json!(["192.0.2.0/25"])),
        with("metadata", json!({ "team": "a" })),
        with("metadata", json!({ "team": "b" })),
    ];
    for server in [0, 1] {
        for (n, first) in bodies.iter().enumerate() {
            let token = format!("{server}-{n}");
            let create = async |body: &Value| {
                post(&servers, server, "/api-keys", &token, &body.to_string()).await
            };
            let (id, _) = issued(&create(first).await);
            clock.advance(SECOND * 10);
            for (other, body) in bodies.iter().enumerate().filter(|(other, _)| *other != n) {
                assert_eq!(problem(&create(body).await), reused(), "{first}, then {other}: {body}");
            }
            assert_eq!(issued(&create(first).await).0, id, "{first}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_create_lists_no_keys() {
    let world = World::new();
    let servers = start(world.keys());
    for _ in 0..100 {
        let _ = world.service.issue().await;
    }
    world.store.corrupt_keys_of("acme");
    for server in [0, 1] {
        let token = format!("c{server}");
        for _ in 0..2 {
            let _ = issued(&post(&servers, server, "/api-keys", &token, r#"{"name": "x"}"#).await);
            world.service.clock.advance(SECOND * 10);
        }
    }
}

async fn report(to: SocketAddr, matches: &Value) -> Reply {
    let body = matches.to_string();
    let signature = sign("one", body.as_bytes());
    let head = format!(
        "POST /leaks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         Github-Public-Key-Identifier: one\r\nGithub-Public-Key-Signature: {signature}\r\n\r\n",
        body.len(),
    );
    send(to, &[head.as_bytes(), body.as_bytes()].concat()).await
}

fn places(secret: &str, count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(move |n| {
        json!({ "token": secret, "type": "acme", "url": format!("https://x.test/{n}"), "source": "commit" })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_found_in_3000_places_is_looked_up_once() {
    let world = World::new();
    let servers = start(world.keys());
    for (name, to) in servers.both {
        let (one, two) = (world.service.issue().await, world.service.issue().await);
        // Alternately in the report.
        let matches = places(one.secret.expose(), 3_000).zip(places(two.secret.expose(), 3_000));
        let matches: Value = matches.flat_map(|(one, two)| [one, two]).collect();
        let finds = world.store.finds();
        // One read of the known leaks of each key.
        world.store.allow_audit_reads(2);
        let reply = report(to, &matches).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
        assert_eq!(world.store.finds() - finds, 2, "{name}");
        world.store.allow_audit_reads(2);
        assert_eq!(report(to, &matches).await.body, reply.body, "the same report again");
        let labels: Vec<Value> = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(labels.len(), 6_000);
        assert!(labels.iter().all(|label| label["label"] == "true_positive"));
        world.store.allow_audit_reads(usize::MAX);
        for issued in [&one, &two] {
            assert!(!works(world.keys(), issued.secret.expose()).await);
            let query = AuditQuery::new(&world.service.owner).key(issued.key.id);
            let leaks = query.kind(EventKind::Leaked).limit(1_000);
            let leaks = world.keys().events(leaks).await.unwrap();
            assert_eq!(leaks.len(), 100, "places in the log");
            assert!(
                leaks
                    .iter()
                    .any(|event| event.reason.as_deref() == Some("commit https://x.test/0"))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_with_too_many_matches_is_rejected_before_any_look_up() {
    let world = World::new();
    let servers = start(world.keys());
    let issued = world.service.issue().await;
    let secret = issued.secret.expose();
    let finds = world.store.finds();
    for (name, to) in servers.both {
        let reply = report(to, &places(secret, 10_001).collect()).await;
        assert_eq!(problem(&reply), (413, "too_large".into()), "{name}");
    }
    assert_eq!(world.store.finds(), finds);
    assert!(works(world.keys(), secret).await);
    let (_, to) = servers.both[0];
    assert_eq!(report(to, &places(secret, 10_000).collect()).await.status, 200);
}
