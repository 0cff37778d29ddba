//! The audit log, with the fields of the page.

use reqwest::Method;
use serde_json::Value;

use super::{ADA, BOB, Lumio, MEMBER, Place, invited, make, with};
use crate::support::servers::eventually;

/// > Every authentication event, deployment, and settings change is logged in the audit log under
/// > Account → Security → Audit Log. timestamp: UTC timestamp of the event. event: Event type (e.g.
/// > api_key.created, extension.deployed). actor: Email or API key label. ip: Source IP address. result:
/// > success or failure
#[tokio::test]
async fn authentication_deployments_and_settings_are_logged_with_the_fields_of_the_page() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let bob = invited(&lumio, &ada, BOB, "member").await;
    let made = lumio.create(&bob, "ci-github-actions").await;
    assert_eq!(lumio.powers(&with(&made)).await, MEMBER);
    assert_eq!(make(&lumio, &bob, BOB, "owner").await, 403);
    lumio.revoke(&bob, &made).await;
    assert_eq!(lumio.deploy(&with(&made)).await, 401);
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
    let told = |entry: &Value| {
        ["event", "actor", "result"].map(|field| entry[field].as_str().unwrap().to_owned())
    };
    let log = lumio.log(&bob).await;
    let expected = expected.map(|(event, actor, result)| [event, actor, result].map(str::to_owned));
    for expected in &expected {
        let found = log.iter().filter(|entry| told(entry) == *expected).count();
        assert_eq!(found, 1, "{expected:?} in {log:#?}");
    }
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for entry in &log {
        assert_eq!(entry["timestamp"], "2026-02-09T12:00:00.000Z");
        assert_eq!(entry["ip"], "127.0.0.1", "{entry}");
    }
    let hers: Vec<_> = lumio.log(&ada).await.iter().map(told).collect();
    let event = |event: &str| [event, ADA, "success"].map(str::to_owned);
    assert_eq!(hers, [event("session.created"), event("team.member_invited")]);
}

/// Beyond the page: the log is read to its end, page by page.
#[tokio::test]
async fn the_log_is_read_to_its_end() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    for _ in 0..2 {
        // Not by a key, for these have a rate.
        for _ in 0..60 {
            assert_eq!(lumio.deploy(&ada).await, 200);
        }
    }
    let (mut path, mut seen) = ("/account/security/audit-log".to_owned(), 0);
    loop {
        let log = lumio.get(&path, &ada).await;
        let entries = log["entries"].as_array().unwrap();
        let Some(last) = entries.last() else { break };
        seen += entries.len();
        let id = last["id"].as_str().unwrap();
        path = format!("/account/security/audit-log?before={id}");
    }
    assert_eq!(seen, 121);
    for wrong in ["?before=", "?before=x", "?after=x"] {
        let path = format!("/account/security/audit-log{wrong}");
        assert_eq!(lumio.call(Method::GET, &path, &ada, Value::Null).await.0, 400, "{wrong}");
    }
}

/// > Audit logs are retained for 90 days.
#[tokio::test]
async fn the_audit_log_is_kept_for_90_days() {
    let place = Place::new();
    let dates = ["2026-02-09", "2026-02-11"];
    let first = place.at(dates[0]);
    let key = with(&first.create(&first.founder(ADA).await, "ci").await);
    assert_eq!(first.deploy(&key).await, 200);
    assert_eq!(place.at(dates[1]).deploy(&key).await, 200);
    let deployed = async |lumio: &Lumio| {
        let log = lumio.log(&lumio.sign_in(ADA).await).await;
        let deployed = log.iter().filter(|entry| entry["event"] == "extension.deployed");
        let days = deployed.map(|entry| entry["timestamp"].as_str().unwrap()[..10].to_owned());
        days.collect::<Vec<_>>()
    };
    let within = place.at("2026-05-10");
    assert_eq!(deployed(&within).await, dates);
    let beyond = place.at("2026-05-11");
    assert_eq!(beyond.deploy(&key).await, 200, "which brings the server to life");
    let left = [dates[1], "2026-05-11"];
    eventually("the older is gone", async || deployed(&beyond).await == left).await;
}
