use serde_json::json;

use super::Client;
use crate::support::{SECOND, Service, stores};

#[tokio::test]
async fn a_missing_second_factor_is_reported_with_its_max_age_and_changes_nothing() {
    let service = Service::new(stores::memory());
    let ada = Client::new(service.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci", "scopes": ["a"]}"#).await;
    let key = format!("/api-keys/{}", made["id"].as_str().unwrap());
    let off = ada.call("POST", &format!("{key}/disable"), "").await.json();
    service.policy.demand(Some(SECOND * 900));
    let confirmed = ada.as_session("acme/ada/confirmed");
    for (method, path, body, done) in [
        ("POST", "/api-keys".to_owned(), r#"{"name": "laptop"}"#, 201),
        ("PATCH", key.clone(), r#"{"scopes": ["a", "b"]}"#, 200),
        ("POST", format!("{key}/rotate"), "", 200),
        ("POST", format!("{key}/enable"), "", 200),
    ] {
        let before = ada.call("GET", &key, "").await.json();
        let refused = ada.call(method, &path, body).await;
        assert_eq!(refused.problem(), (403, "second_factor_required".into()), "{method} {path}");
        assert_eq!(refused.json()["maxAge"], json!(900));
        assert_eq!(ada.call("GET", &key, "").await.json(), before);
        assert_eq!(confirmed.call(method, &path, body).await.status, done, "{method} {path}");
        service.policy.fail(true);
        let down = confirmed.call("POST", "/api-keys", r#"{"name": "laptop"}"#).await;
        assert_eq!(down.problem(), (503, "unavailable".into()));
        assert_eq!(down.fields["retry-after"], "5");
        service.policy.fail(false);
    }
    assert!(off["disabledAt"].is_string());
    for (method, path, body) in [
        ("PATCH", key.clone(), r#"{"name": "narrow", "scopes": []}"#),
        ("POST", format!("{key}/disable"), ""),
        ("DELETE", key.clone(), ""),
        ("DELETE", format!("{key}/record"), ""),
    ] {
        assert_eq!(ada.call(method, &path, body).await.status, 200, "{method} {path}");
    }
}

#[tokio::test]
async fn a_suspended_owner_cannot_widen_or_enable_a_key() {
    let service = Service::new(stores::memory());
    let ada = Client::new(service.keys(), "acme/ada");
    let made = ada.create(r#"{"name": "ci", "scopes": ["a"]}"#).await;
    let key = format!("/api-keys/{}", made["id"].as_str().unwrap());
    ada.call("POST", &format!("{key}/disable"), "").await.json();
    service.host.set(&service.owner, |account| account.suspended = true);
    let wider = ada.call("PATCH", &key, r#"{"scopes": ["b"]}"#).await;
    assert_eq!(wider.problem(), (403, "suspended".into()));
    let on = ada.call("POST", &format!("{key}/enable"), "").await;
    assert_eq!(on.problem(), (403, "suspended".into()));
}
