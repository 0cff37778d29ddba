//! The audit log.

use reqwest::Method;
use serde_json::Value;

use super::{ADA, BOB, Deployment, LOG, Lumio, MEMBER, change_role, invite, present};
use crate::products::backend::{Backend, on_each_backend};
use crate::support::servers::eventually;

/// > Every authentication event, deployment, and settings change is logged in the audit log under
/// > Account → Security → Audit Log. timestamp: UTC timestamp of the event. event: Event type (e.g.
/// > api_key.created, extension.deployed). actor: Email or API key label. ip: Source IP address. result:
/// > success or failure
async fn authentication_deployments_and_settings_are_logged_with_the_documented_fields(
    backend: &Backend,
) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let bob = invite(&lumio, &ada, BOB, "member").await;
    let created = lumio.create(&bob, "ci-github-actions").await;
    assert_eq!(lumio.permissions(&present(&created)).await, MEMBER);
    assert_eq!(change_role(&lumio, &bob, BOB, "owner").await, 403);
    lumio.revoke(&bob, &created).await;
    assert_eq!(lumio.deploy(&present(&created)).await, 401);
    let expected = [
        ("session.created", BOB, "success"),
        ("api_key.created", BOB, "success"),
        ("extension.published", "ci-github-actions", "failure"),
        ("billing.changed", "ci-github-actions", "failure"),
        ("extension.deployed", "ci-github-actions", "success"),
        ("team.role_changed", BOB, "failure"),
        ("api_key.revoked", BOB, "success"),
        ("api_key.first_used", "ci-github-actions", "success"),
        ("api_key.denied", "ci-github-actions", "failure"),
    ];
    let response = |entry: &Value| {
        ["event", "actor", "result"].map(|field| entry[field].as_str().unwrap().to_owned())
    };
    let log = lumio.log(&bob).await;
    let expected = expected.map(|(event, actor, result)| [event, actor, result].map(str::to_owned));
    for expected in &expected {
        let found = log.iter().filter(|entry| response(entry) == *expected).count();
        assert_eq!(found, 1, "{expected:?} in {log:#?}");
    }
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for entry in &log {
        assert_eq!(entry["timestamp"], "2026-02-09T12:00:00.000Z");
        assert_eq!(entry["ip"], "127.0.0.1", "{entry}");
    }
    let entries: Vec<_> = lumio.log(&ada).await.iter().map(response).collect();
    let event = |event: &str| [event, ADA, "success"].map(str::to_owned);
    assert_eq!(entries, [event("session.created"), event("team.member_invited")]);
}

/// Not on the page: the log is paginated.
async fn the_whole_log_is_readable_by_pagination(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    for _ in 0..120 {
        assert_eq!(lumio.deploy(&ada).await, 200, "in a session, which has no rate");
    }
    let log = lumio.log(&ada).await;
    assert_eq!(log.iter().filter(|entry| entry["event"] == "extension.deployed").count(), 120);
    assert!(log.is_sorted_by(|a, b| a["id"].as_str() < b["id"].as_str()), "each once");
    for wrong in ["?before=", "?before=x", "?after=x"] {
        let path = format!("{LOG}{wrong}");
        assert_eq!(lumio.call(Method::GET, &path, &ada, Value::Null).await.0, 400, "{wrong}");
    }
}

/// > Audit logs are retained for 90 days.
async fn audit_events_are_retained_for_90_days(backend: &Backend) {
    let deployment = Deployment::new(backend);
    let dates = ["2026-02-09", "2026-02-11"];
    let first = deployment.server_on(dates[0]);
    let ada = first.sign_up(ADA).await;
    let key = present(&first.create(&ada, "ci").await);
    assert_eq!(first.deploy(&key).await, 200);
    assert_eq!(deployment.server_on(dates[1]).deploy(&key).await, 200);
    // A session is valid on all servers.
    let deployed = async |lumio: &Lumio| {
        let log = lumio.log(&ada).await;
        let deployed = log.iter().filter(|entry| entry["event"] == "extension.deployed");
        let days = deployed.map(|entry| entry["timestamp"].as_str().unwrap()[..10].to_owned());
        days.collect::<Vec<_>>()
    };
    let within = deployment.server_on("2026-05-10");
    assert_eq!(deployed(&within).await, dates);
    let beyond = deployment.server_on("2026-05-11");
    assert_eq!(beyond.deploy(&key).await, 200, "a request starts the background tasks");
    let left = [dates[1], "2026-05-11"];
    eventually("the older is gone", async || deployed(&beyond).await == left).await;
}

on_each_backend!([sqlite, postgres_and_redis] {
    authentication_deployments_and_settings_are_logged_with_the_documented_fields,
    the_whole_log_is_readable_by_pagination,
    audit_events_are_retained_for_90_days,
});
