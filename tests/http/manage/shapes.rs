use std::collections::BTreeSet;

use keyward::VerifyRequest;
use serde_json::{Value, json};

use super::Client;
use crate::{http::world::World, support::DAY};

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn responses_match_the_documentation_of_lunaos() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci-pipeline"}"#).await;
    assert_eq!(names(&made), ["createdAt", "expiresAt", "id", "key", "name", "prefix", "scopes"]);
    for field in ["expiresAt", "scopes"] {
        assert_eq!(made[field], Value::Null, "what a key without limits may do is explicit");
    }
    let (key, prefix) = (made["key"].as_str().unwrap(), made["prefix"].as_str().unwrap());
    assert!(key.starts_with(prefix) && key.len() > prefix.len());
    assert_eq!(made["createdAt"], "2026-01-01T00:00:00.000Z");

    let list = ada.call("GET", "/api-keys", "").await;
    assert!(!list.text.contains(key));
    let expected = json!({"keys": [{
        "id": made["id"], "name": "ci-pipeline", "prefix": prefix,
        "createdAt": "2026-01-01T00:00:00.000Z", "lastUsedAt": null, "expiresAt": null, "scopes": null,
    }]});
    assert_eq!(list.json(), expected);

    let path = format!("/api-keys/{}", made["id"].as_str().unwrap());
    assert!(world.keys().verify(key, &VerifyRequest::new()).await.is_ok());
    world.keys().flush().await.unwrap();
    let used = ada.call("GET", &path, "").await.json();
    assert_eq!(used["lastUsedAt"], "2026-01-01T00:00:00.000Z");

    let revoked = ada.call("DELETE", &path, "").await;
    assert_eq!((revoked.status, revoked.text.as_str()), (200, r#"{"message":"API key revoked"}"#));
    assert!(world.keys().verify(key, &VerifyRequest::new()).await.is_err());
    let again = ada.call("DELETE", &path, "").await;
    assert_eq!(again.status, 200, "revoking again changes nothing");
    assert_eq!(ada.call("GET", &path, "").await.json()["revokedAt"], "2026-01-01T00:00:00.000Z");
    assert_eq!(ada.call("DELETE", &format!("{path}/record"), "").await.status, 200);
    assert_eq!(ada.call("GET", &path, "").await.status, 404);
}

#[tokio::test]
async fn all_properties_of_a_key_are_returned_and_can_be_changed() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let body = r#"{"name": "ci", "scopes": ["b", "a"], "expiresInDays": 7,
        "allowedNetworks": ["192.0.2.0/24"], "metadata": {"team": "x"}}"#;
    let made = ada.create(body).await;
    let path = format!("/api-keys/{}", made["id"].as_str().unwrap());
    let shown = ada.call("GET", &path, "").await.json();
    assert_eq!(shown["scopes"], json!(["a", "b"]));
    assert_eq!(shown["expiresAt"], "2026-01-08T00:00:00.000Z");
    assert_eq!(shown["allowedNetworks"], json!(["192.0.2.0/24"]));
    assert_eq!(shown["metadata"], json!({"team": "x"}));

    let change = r#"{"name": "cd", "scopes": [], "metadata": {}}"#;
    let changed = ada.call("PATCH", &path, change).await.json();
    assert_eq!((&changed["name"], &changed["scopes"]), (&json!("cd"), &json!([])));
    assert_eq!(changed.get("metadata"), None);
    assert_eq!(changed["expiresAt"], shown["expiresAt"]);
    let off = ada.call("POST", &format!("{path}/disable"), "").await.json();
    assert_eq!(off["disabledAt"], "2026-01-01T00:00:00.000Z");
    let on = ada.call("POST", &format!("{path}/enable"), "").await.json();
    assert_eq!(on.get("disabledAt"), None);

    let rotated = ada.call("POST", &format!("{path}/rotate"), r#"{"overlapSeconds": 60}"#).await;
    let rotated = rotated.json();
    assert_eq!(
        (rotated["id"].as_str(), rotated["name"].as_str()),
        (made["id"].as_str(), Some("cd"))
    );
    assert_eq!(rotated["retiring"]["endsAt"], "2026-01-01T00:01:00.000Z");
    assert_ne!(rotated["key"], made["key"]);
    world.service.clock.advance(MINUTE);
    let over = ada.call("GET", &path, "").await.json();
    assert_eq!(over.get("retiring"), None, "the overlap has ended");
    let events = ada.call("GET", &format!("{path}/events"), "").await.json();
    let kinds: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| &e["event"]).collect();
    let expected = ["key.rotated", "key.enabled", "key.disabled", "key.updated", "key.created"];
    assert_eq!(kinds, expected);
    assert_eq!(events["events"][0]["actor"], "ada");
}

#[tokio::test]
async fn pages_list_every_item_once() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    for n in 0..5 {
        ada.create(&format!(r#"{{"name": "key {n}"}}"#)).await;
    }
    for (path, field) in [("/api-keys", "keys"), ("/audit", "events")] {
        let (mut seen, mut pages, mut cursor) = (BTreeSet::new(), 0, String::new());
        loop {
            let page = ada.call("GET", &format!("{path}?limit=2{cursor}"), "").await.json();
            for item in page[field].as_array().unwrap() {
                assert!(seen.insert(item["id"].to_string()));
            }
            pages += 1;
            let Some(next) = page.get("next") else { break };
            cursor = format!("&cursor={}", next.as_str().unwrap());
        }
        assert_eq!((seen.len(), pages), (5, 3), "{path}");
    }
    let list = ada.call("GET", "/api-keys?status=revoked", "").await.json();
    assert_eq!(list, json!({"keys": []}));
    world.service.clock.advance(DAY);
    ada.create(r#"{"name": "late"}"#).await;
    let late = "/audit?event=key.created&from=2026-01-02T00%3A00%3A00Z&until=2026-01-03T00:00:00Z";
    let late = ada.call("GET", late, "").await.json();
    assert_eq!(late["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn introspection_is_active_only_for_valid_keys_that_the_caller_may_see() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci", "scopes": ["a", "b"], "expiresInDays": 1}"#).await;
    let ask = async |client: &Client, body: String| {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        client.call_with("POST", "/introspect", &body, &kind).await
    };
    let token = format!("token={}&token_type_hint=access_token", made["key"].as_str().unwrap());
    let expected = json!({"active": true, "scope": "a b", "sub": "ada", "client_id": made["id"],
        "token_type": "Bearer", "iat": 1_767_225_600, "exp": 1_767_312_000});
    assert_eq!(ask(&ada, token.clone()).await.json(), expected);
    assert_eq!(
        ask(&ada.as_session("acme/root/administrator"), token.clone()).await.json(),
        expected
    );
    let limited = world.limited(keyward::model::Rate::per_minute(1)).await;
    for _ in 0..2 {
        assert_eq!(ask(&ada, format!("token={limited}")).await.json()["active"], true);
    }
    let trial = world.metered(keyward::model::Quota::total(0)).await;
    assert_eq!(ask(&ada, format!("token={trial}")).await.json()["active"], true);
    let no = json!({"active": false});
    for session in ["acme/bob", "umbrella/ada", "umbrella/root/administrator"] {
        assert_eq!(ask(&ada.as_session(session), token.clone()).await.json(), no, "{session}");
    }
    assert_eq!(ask(&ada, "token=guess".into()).await.json(), no);
    assert_eq!(ask(&ada, format!("token={}", world.unknown())).await.json(), no);
    assert_eq!(ask(&ada, "toke=1".into()).await.problem(), (422, "invalid".into()));
    assert_eq!(ask(&ada, "token=a&token=b".into()).await.problem(), (422, "invalid".into()));
    world.service.clock.advance(DAY);
    assert_eq!(ask(&ada, token).await.json(), no);
}
