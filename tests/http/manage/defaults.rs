use keyward::{
    Expiry,
    http::manage::{ManagementApi, NewKeyDefaults},
};
use serde_json::{Value, json};

use super::Client;
use crate::http::{servers, world::World};

fn strict(world: &World) -> ManagementApi {
    let defaults = NewKeyDefaults::new().expiry(Expiry::days(7)).require_scopes();
    ManagementApi::new(world.keys().clone()).new_key_defaults(defaults)
}

#[tokio::test]
async fn the_host_decides_what_a_new_key_gets_if_the_request_does_not_say() {
    let world = World::new();
    let ada = Client::of(strict(&world), "acme/ada");
    let refused = ada.call("POST", "/api-keys", r#"{"name": "ci"}"#).await;
    assert_eq!(refused.problem(), (422, "invalid".into()));
    assert!(refused.text.contains("`scopes` is missing"), "{}", refused.text);

    let made = ada.create(r#"{"name": "ci", "scopes": ["a"]}"#).await;
    assert_eq!(made["expiresAt"], "2026-01-08T00:00:00.000Z");
    assert_eq!(made["scopes"], json!(["a"]));
    let made = ada.create(r#"{"name": "ci", "scopes": [], "expiresInDays": 30}"#).await;
    assert_eq!(made["expiresAt"], "2026-01-31T00:00:00.000Z", "the request says when");
    assert_eq!(made["scopes"], json!([]));
    let at = r#"{"name": "ci", "scopes": ["a"], "expiresAt": "2026-01-02T00:00:00Z"}"#;
    assert_eq!(ada.create(at).await["expiresAt"], "2026-01-02T00:00:00.000Z");

    let lenient = Client::new(world.keys(), "acme/ada");
    let made = lenient.create(r#"{"name": "ci"}"#).await;
    assert_eq!((&made["scopes"], &made["expiresAt"]), (&Value::Null, &Value::Null));
}

#[test]
fn actix_web_takes_the_same_defaults() {
    let world = World::new();
    let (status, body) = servers::actix_creates(strict(&world), r#"{"name": "ci"}"#);
    assert_eq!((status, &body["code"]), (422, &json!("invalid")));
    let (status, made) =
        servers::actix_creates(strict(&world), r#"{"name": "ci", "scopes": ["a"]}"#);
    assert_eq!((status, &made["expiresAt"]), (201, &json!("2026-01-08T00:00:00.000Z")));
}
