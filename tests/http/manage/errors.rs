use keyward::{Limits, Owner};
use serde_json::json;

use super::Client;
use crate::{cache::faulty_store::Fault, http::world::World, support::DAY};

#[tokio::test]
async fn plan_limits_are_reported_with_their_number() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let owner = Owner::new("acme", "ada").unwrap();
    world.service.host.limit(&owner, Limits::default().max_active_keys(2).max_lifetime(DAY * 30));
    let body = r#"{"name": "x", "expiresInDays": 30}"#;
    for too_long in [r#"{"name": "x", "expiresInDays": 31}"#, r#"{"name": "x"}"#] {
        let reply = ada.call("POST", "/api-keys", too_long).await;
        assert_eq!(reply.problem(), (422, "lifetime_limit".into()));
        assert_eq!(reply.json()["limit"], json!(30));
    }
    ada.create(body).await;
    ada.create(body).await;
    let reply = ada.call("POST", "/api-keys", body).await;
    assert_eq!(reply.problem(), (409, "limit_reached".into()));
    assert_eq!(reply.json()["limit"], json!(2));
    world.service.host.set(&owner, |account| account.suspended = true);
    assert_eq!(ada.call("POST", "/api-keys", body).await.problem(), (403, "suspended".into()));
}

#[tokio::test]
async fn every_invalid_request_gets_its_status_and_code() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci"}"#).await;
    let id = made["id"].as_str().unwrap();
    let (key, json, form) = (format!("/api-keys/{id}"), "application/json", "text/plain");
    let big = format!(r#"{{"name": "{}"}}"#, "x".repeat(70_000));
    let rotate = format!("{key}/rotate");
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("POST", "/api-keys", json, "", 400, "malformed_body"),
        ("POST", "/api-keys", json, "{", 400, "malformed_body"),
        ("POST", "/api-keys", json, "[]", 422, "invalid"),
        ("POST", "/api-keys", json, r#"["x"]"#, 422, "invalid"),
        ("POST", "/api-keys", json, "{}", 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": ""}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": null}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "scopes": null}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "scopes": "a"}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "scopes": ["a b"]}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "name": "y"}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "expiresAt": "tomorrow"}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "expiresAt": "2020-01-01T00:00:00Z"}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "expiresAt": "2027-01-01T00:00:00Z", "expiresInDays": 1}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "expiresInDays": -1}"#, 422, "invalid"),
        ("POST", "/api-keys", json, r#"{"name": "x", "allowedNetworks": ["all"]}"#, 422, "invalid"),
        ("POST", "/api-keys", json, &big, 413, "too_large"),
        ("POST", "/api-keys", form, r#"{"name": "x"}"#, 415, "media_type"),
        ("POST", "/api-keys", "", r#"{"name": "x"}"#, 415, "media_type"),
        ("PUT", "/api-keys", json, "", 405, "method_not_allowed"),
        ("POST", &key, json, "", 405, "method_not_allowed"),
        ("GET", &rotate, json, "", 405, "method_not_allowed"),
        ("PATCH", &key, json, r#"{"name": null}"#, 422, "invalid"),
        ("PATCH", &key, json, " []", 422, "invalid"),
        ("PATCH", &key, json, r#"["y"]"#, 422, "invalid"),
        ("PATCH", &key, json, r#"{"expiresAt": "2027-01-01T00:00:00Z"}"#, 422, "invalid"),
        ("POST", &rotate, json, r#"{"overlapSeconds": -1}"#, 422, "invalid"),
        ("POST", &rotate, json, "[60]", 422, "invalid"),
        ("POST", &rotate, form, "overlapSeconds=1", 415, "media_type"),
        ("GET", "/api-keys?limit=0", "", "", 422, "invalid"),
        ("GET", "/api-keys?limit=201", "", "", 422, "invalid"),
        ("GET", "/api-keys?limit=1&limit=2", "", "", 422, "invalid"),
        ("GET", "/api-keys?status=alive", "", "", 422, "invalid"),
        ("GET", "/api-keys?cursor=x", "", "", 422, "invalid"),
        ("GET", "/api-keys?owner=bob", "", "", 422, "invalid"),
        ("GET", "/audit?event=nothing", "", "", 422, "invalid"),
        ("GET", "/audit?from=yesterday", "", "", 422, "invalid"),
        ("GET", "/api-keys/", "", "", 404, "no_such_page"),
        ("GET", "/api-keys/a/b", "", "", 404, "no_such_page"),
        ("GET", "/api-keys/a/rotate/b", "", "", 404, "no_such_page"),
        ("GET", "/introspect", "", "", 405, "method_not_allowed"),
        ("POST", "/introspect", json, "{}", 415, "media_type"),
    ];
    for (method, path, kind, body, status, code) in table {
        let reply = ada.call_with(method, path, body, &[("content-type", kind)]).await;
        assert_eq!(
            reply.problem(),
            (*status, (*code).into()),
            "{method} {path} {body}: {}",
            reply.text
        );
        assert_eq!(reply.fields.contains_key("allow"), *status == 405);
    }
    assert_eq!(ada.call("DELETE", &key, "").await.status, 200);
    for act in ["rotate", "disable", "enable"] {
        let reply = ada.call("POST", &format!("{key}/{act}"), "").await;
        assert_eq!(reply.problem(), (409, "not_live".into()), "{act}");
    }
}

#[tokio::test]
async fn strings_in_problem_details_are_escaped() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let reply = ada.call("POST", "/api-keys", r#"{"a \"b\" \\ c\né": null}"#).await;
    let expected = concat!(
        r#"{"type":"about:blank","title":"Unprocessable Entity","status":422,"code":"invalid","#,
        r#""detail":"`a \"b\" \\ c\u000aé` is null: send a value, or omit it"}"#
    );
    assert_eq!(reply.text, expected);
}

#[tokio::test]
async fn an_unavailable_store_is_reported_as_503() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let body = r#"{"name": "x"}"#;
    for (mood, code) in
        [(Fault::Unavailable, "unavailable"), (Fault::AnswerLost, "outcome_unknown")]
    {
        world.store.set_change_fault(mood);
        let reply = ada.call("POST", "/api-keys", body).await;
        assert_eq!(reply.problem(), (503, code.into()));
        assert_eq!(reply.fields["retry-after"], "5");
    }
    world.store.set_change_fault(Fault::None);
    world.service.host.fail(true);
    assert_eq!(ada.call("POST", "/api-keys", body).await.problem(), (503, "unavailable".into()));
}

#[tokio::test]
async fn a_busy_store_says_when_to_try_again() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    for (fault, wait) in [(Fault::Busy, "7"), (Fault::Unavailable, "5")] {
        world.store.set_change_fault(fault);
        let reply = ada.call("POST", "/api-keys", r#"{"name": "ci"}"#).await;
        assert_eq!(reply.problem(), (503, "unavailable".into()));
        assert_eq!(reply.fields["retry-after"], wait);
    }
}
