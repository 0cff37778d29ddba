use keyward::VerifyRequest;

use super::{Client, routes_of};
use crate::http::world::World;

#[tokio::test]
async fn keys_of_other_owners_get_the_same_response_as_unknown_keys() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci"}"#).await;
    let id = made["id"].as_str().unwrap();
    let before = ada.call("GET", &format!("/api-keys/{id}"), "").await.text;
    let unknown = "0190a5b2-0000-7000-8000-000000000000";
    for session in ["acme/bob", "umbrella/ada", "umbrella/root/administrator"] {
        let stranger = ada.as_session(session);
        let theirs = routes_of(id).into_iter();
        for ((method, path, body), (_, absent, _)) in theirs.zip(routes_of(unknown)) {
            let (one, other) = (
                stranger.call(method, &path, body).await,
                stranger.call(method, &absent, body).await,
            );
            assert_eq!(one.problem(), (404, "not_found".into()), "{session}: {method} {path}");
            assert_eq!((&one.text, &one.fields), (&other.text, &other.fields), "{method} {path}");
        }
        for page in ["/api-keys", "/audit", "/audit.jsonl", "/audit.csv"] {
            assert!(!stranger.call("GET", page, "").await.text.contains(id), "{session}: {page}");
        }
    }
    for (method, path, body) in routes_of("no-id-at-all") {
        assert_eq!(ada.call(method, &path, body).await.problem().0, 404, "{path}");
    }
    assert_eq!(ada.call("GET", &format!("/api-keys/{id}"), "").await.text, before);
    let secret = made["key"].as_str().unwrap();
    assert!(world.keys().verify(secret, &VerifyRequest::new()).await.is_ok());
}

#[tokio::test]
async fn unauthenticated_requests_are_rejected_on_every_route() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci"}"#).await;
    let id = made["id"].as_str().unwrap();
    let mut routes = routes_of(id);
    routes.extend([
        ("GET", "/api-keys".into(), ""),
        ("POST", "/api-keys".into(), r#"{"name": "x"}"#),
        ("GET", "/audit".into(), ""),
        ("GET", "/audit.csv".into(), ""),
        ("POST", "/introspect".into(), "token=x"),
        ("GET", "/api-keys/a/b/c".into(), ""),
    ]);
    for session in ["", "ada", "/", "acme/", "/ada", "acme/ada/administrator/more"] {
        for (method, path, body) in &routes {
            let reply = ada.as_session(session).call(method, path, body).await;
            assert_eq!(
                (reply.status, reply.text.as_str()),
                (401, ""),
                "{session}: {method} {path}"
            );
        }
    }
    assert!(
        world.keys().verify(made["key"].as_str().unwrap(), &VerifyRequest::new()).await.is_ok()
    );
}

#[tokio::test]
async fn an_administrator_sees_all_keys_of_its_tenant_with_their_accounts() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci"}"#).await;
    let id = made["id"].as_str().unwrap();
    let root = ada.as_session("acme/root/administrator");
    let list = root.call("GET", "/api-keys", "").await.json();
    assert_eq!(
        (&list["keys"][0]["id"], list["keys"][0]["account"].as_str()),
        (&made["id"], Some("ada"))
    );
    assert_eq!(root.create(r#"{"name": "own"}"#).await["account"], "root");
    assert_eq!(root.call("DELETE", &format!("/api-keys/{id}"), "").await.status, 200);
    assert!(
        world.keys().verify(made["key"].as_str().unwrap(), &VerifyRequest::new()).await.is_err()
    );
}

#[tokio::test]
async fn a_caller_cannot_name_an_owner_or_grant_more_than_it_has() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    for field in
        ["owner", "userId", "accountId", "tenant", "account", "id", "key", "limits", "revoked"]
    {
        let body = format!(r#"{{"name": "x", "{field}": "bob"}}"#);
        assert_eq!(ada.call("POST", "/api-keys", &body).await.problem(), (422, "invalid".into()));
    }
    assert_eq!(ada.call("GET", "/api-keys", "").await.text, r#"{"keys":[]}"#);
    let narrow = ada.as_session("acme/ada/builds:read");
    let made = narrow.create(r#"{"name": "x", "scopes": ["builds:read"]}"#).await;
    for body in [r#"{"name": "x"}"#, r#"{"name": "x", "scopes": ["deploy"]}"#] {
        let reply = narrow.call("POST", "/api-keys", body).await;
        assert_eq!(reply.problem(), (403, "beyond_reach".into()), "{body}");
    }
    let path = format!("/api-keys/{}", made["id"].as_str().unwrap());
    let wider = narrow.call("PATCH", &path, r#"{"scopes": ["builds:read", "deploy"]}"#).await;
    assert_eq!(wider.problem(), (403, "beyond_reach".into()));
}
