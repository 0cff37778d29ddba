//! The audit log, with the fields of the page.

use reqwest::Method;
use serde_json::Value;

use super::{ADA, BOB, LOG, Lumio, MEMBER, Site, invited, make, with};
use crate::products::place::{Place, in_each_place};
use crate::support::servers::eventually;

/// > Every authentication event, deployment, and settings change is logged in the audit log under
/// > Account → Security → Audit Log. timestamp: UTC timestamp of the event. event: Event type (e.g.
/// > api_key.created, extension.deployed). actor: Email or API key label. ip: Source IP address. result:
/// > success or failure
async fn authentication_deployments_and_settings_are_logged_with_the_documented_fields(
    place: &Place,
) {
    let lumio = Site::new(place).now();
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
async fn the_whole_log_is_readable_by_pagination(place: &Place) {
    let lumio = Site::new(place).now();
    let ada = lumio.founder(ADA).await;
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
async fn audit_events_are_retained_for_90_days(place: &Place) {
    let site = Site::new(place);
    let dates = ["2026-02-09", "2026-02-11"];
    let first = site.at(dates[0]);
    let ada = first.founder(ADA).await;
    let key = with(&first.create(&ada, "ci").await);
    assert_eq!(first.deploy(&key).await, 200);
    assert_eq!(site.at(dates[1]).deploy(&key).await, 200);
    // A session is good on all servers.
    let deployed = async |lumio: &Lumio| {
        let log = lumio.log(&ada).await;
        let deployed = log.iter().filter(|entry| entry["event"] == "extension.deployed");
        let days = deployed.map(|entry| entry["timestamp"].as_str().unwrap()[..10].to_owned());
        days.collect::<Vec<_>>()
    };
    let within = site.at("2026-05-10");
    assert_eq!(deployed(&within).await, dates);
    let beyond = site.at("2026-05-11");
    assert_eq!(beyond.deploy(&key).await, 200, "which brings the server to life");
    let left = [dates[1], "2026-05-11"];
    eventually("the older is gone", async || deployed(&beyond).await == left).await;
}

in_each_place!([sqlite, postgres_and_redis] {
    authentication_deployments_and_settings_are_logged_with_the_documented_fields,
    the_whole_log_is_readable_by_pagination,
    audit_events_are_retained_for_90_days,
});
