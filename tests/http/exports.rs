//! Exports of the audit log, from both servers.

use std::net::SocketAddr;

use reqwest::{Client, Response};
use serde_json::Value;

use super::{manage, table::start, world::World};
use crate::support::DAY;

async fn try_get(server: SocketAddr, path: &str) -> reqwest::Result<Response> {
    let client = Client::builder().no_proxy().build()?;
    client.get(format!("http://{server}/v1{path}")).header("x-session", "ada").send().await
}

async fn get(server: SocketAddr, path: &str) -> Response {
    try_get(server, path).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(response.bytes().await.unwrap().into()).unwrap()
}

/// Creates more events than an export reads from the store at a time.
async fn events(world: &World) {
    for _ in 0..300 {
        let _ = world.service.issue().await;
    }
    let (owner, by) = (&world.service.owner, &world.service.actor);
    world.keys().revoke_all(owner, "=1+1", by).await.unwrap();
}

#[tokio::test]
async fn an_export_contains_every_event_that_the_pages_list() {
    let world = World::new();
    events(&world).await;
    for (name, server) in start(&world).both {
        let (mut shown, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = text(get(server, &format!("/audit?limit=200{cursor}")).await).await;
            let page: Value = serde_json::from_str(&page).unwrap();
            shown.extend(page["events"].as_array().unwrap().iter().cloned());
            let Some(next) = page.get("next") else { break };
            cursor = format!("&cursor={}", next.as_str().unwrap());
        }
        assert_eq!(shown.len(), 600);
        let lines = get(server, "/audit.jsonl").await;
        assert_eq!(lines.headers()["content-type"], "application/jsonl");
        let lines = text(lines).await;
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, shown, "{name}");

        let table = get(server, "/audit.csv").await;
        for (field, value) in [
            ("content-type", "text/csv; charset=utf-8"),
            ("content-disposition", "attachment"),
            ("cache-control", "no-store"),
            ("transfer-encoding", "chunked"),
        ] {
            assert_eq!(table.headers()[field], value, "{name}");
        }
        let table = text(table).await;
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 600);
        for (row, event) in rows.iter().zip(&shown) {
            assert_eq!(row[0], *event["id"].as_str().unwrap());
            assert_eq!(row[9] == *"'=1+1", event["event"] == "key.revoked", "{name}: {row:?}");
        }
    }
}

#[tokio::test]
async fn text_from_others_cannot_act_on_a_terminal_or_reorder_the_answer() {
    let world = World::new();
    // Sets the color of a terminal, reverses text, breaks lines, hides text in tags, and shows nothing.
    let hostile = "\u{9b}31m\u{202e}\u{2028}\u{2029}\u{e0041}\u{e0100}\u{7f}\u{3164}\u{1d173}";
    let by = keyward::Actor::account(&format!("ada{hostile}")).user_agent(hostile);
    let name = format!("ci{hostile}x");
    let new = keyward::NewKey::new(&world.service.owner, &name).unwrap();
    let id = world.keys().issue(new, &by).await.unwrap().key.id;
    world.keys().revoke(&world.service.owner, id, hostile, &by).await.unwrap();
    for (server, address) in start(&world).both {
        for path in ["/audit", "/audit.jsonl", "/audit.csv", "/api-keys"]
            .map(String::from)
            .into_iter()
            .chain([format!("/api-keys/{id}"), format!("/api-keys/{id}/events")])
            .chain([format!("/audit?event={hostile}")])
        {
            let answer = text(get(address, &path).await).await;
            for character in hostile.chars().filter(|c| !c.is_ascii_digit() && *c != 'm') {
                assert!(!answer.contains(character), "{server} {path} {character:?}: {answer:?}");
            }
            if !path.contains('.') && !path.contains('?') {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                let found = match (&answer["events"][0], &answer["keys"][0]) {
                    (Value::Null, Value::Null) => answer["name"] == name,
                    (Value::Null, key) => key["name"] == name,
                    (event, _) => event["userAgent"] == hostile && event["reason"] == hostile,
                };
                assert!(found, "{server} {path}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn an_export_interrupted_by_the_store_is_not_mistaken_for_a_complete_one() {
    let world = World::new();
    events(&world).await;
    for (name, server) in start(&world).both {
        for path in ["/audit.jsonl", "/audit.csv"] {
            world.store.allow_audit_reads(1);
            // The connection may fail before or after the first bytes.
            let cut = async { try_get(server, path).await?.error_for_status()?.bytes().await };
            let cut = cut.await.unwrap_err();
            assert_eq!(cut.status(), None, "{name}: {path}: {cut}");
            world.store.allow_audit_reads(0);
            let refused = get(server, path).await;
            assert_eq!(refused.status(), 503, "{name}: {path}");
            assert_eq!(refused.headers()["content-type"], "application/problem+json");
            assert!(refused.headers().get("retry-after").is_some());
            world.store.allow_audit_reads(usize::MAX);
            assert!(get(server, path).await.bytes().await.is_ok());
        }
    }
}

#[tokio::test]
async fn an_export_contains_only_events_that_match_the_filters() {
    let world = World::new();
    let ada = manage::Client::new(world.keys(), "acme/ada");
    for _ in 0..3 {
        let _ = world.service.issue().await;
        world.service.clock.advance(DAY);
    }
    for (query, lines) in [
        ("", 3),
        ("?event=key.revoked", 0),
        ("?from=2026-01-02T00:00:00Z", 2),
        ("?event=key.created&from=2026-01-02T00:00:00Z&until=2026-01-03T00:00:00Z", 1),
    ] {
        let jsonl = ada.call("GET", &format!("/audit.jsonl{query}"), "").await;
        assert_eq!((jsonl.status, jsonl.text.lines().count()), (200, lines), "{query}");
        let csv = ada.call("GET", &format!("/audit.csv{query}"), "").await;
        assert_eq!((csv.status, csv.text.lines().count()), (200, lines + 1), "{query}");
    }
    for query in ["?limit=1", "?cursor=x", "?event=none", "?from=yesterday", "?until=1&until=2"] {
        let refused = ada.call("GET", &format!("/audit.csv{query}"), "").await;
        assert_eq!(refused.problem(), (422, "invalid".into()), "{query}");
    }
}
