use keyward::{
    Actor, AuditEvent, AuditQuery, OwnerScope,
    audit::{EventKind, Outcome},
    totp::TotpSecret,
};

use super::{TotpHarness, bob};
use crate::support::{on_each_store, owner, stores};

async fn log(harness: &TotpHarness, tenant: &str) -> Vec<AuditEvent> {
    for node in &harness.service.nodes {
        node.flush().await.unwrap();
    }
    let query = AuditQuery::new(OwnerScope::Tenant(tenant)).limit(1_000);
    harness.service.keys().events(query).await.unwrap()
}

#[tokio::test]
async fn accepted_and_refused_codes_are_audited_with_their_account() {
    on_each_store(async |handles| {
        let harness = TotpHarness::new(handles);
        let code = harness.code(0);
        harness.enter_wrong_codes(2).await;
        assert!(harness.check(&code).await.is_ok());
        assert!(harness.check(&code).await.is_err());
        assert!(harness.check("123").await.is_err());
        harness.enter_wrong_codes(3).await;
        assert!(harness.check(&code).await.is_err());

        let (bob, by) = bob();
        let secret = TotpSecret::generate().unwrap();
        assert!(harness.nodes[0].check(&bob, &secret, "slip", &by).await.is_err());
        let log = log(&harness, "acme").await;
        let events_of =
            |account: &str, kind: EventKind, reason: Option<&str>| -> Vec<&AuditEvent> {
                let matches = |event: &&AuditEvent| {
                    let actual = (event.account.as_deref(), event.kind, event.reason.as_deref());
                    actual == (Some(account), kind, reason)
                };
                log.iter().filter(matches).collect()
            };
        let accepted = events_of("ada", EventKind::SecondFactorAccepted, None);
        assert_eq!(accepted.len(), 1);
        assert_eq!((accepted[0].outcome, accepted[0].count), (Outcome::Success, 1));
        for (account, reason, times) in [
            ("ada", "wrong_code", 5),
            ("ada", "used_code", 1),
            ("ada", "malformed_code", 1),
            ("ada", "too_many_tries", 1),
            ("bob", "malformed_code", 1),
        ] {
            let refused = events_of(account, EventKind::SecondFactorRefused, Some(reason));
            assert_eq!(refused.iter().map(|event| event.count).sum::<u32>(), times, "{reason}");
            assert!(refused.iter().all(|event| event.outcome == Outcome::Failure));
        }
        for event in log.iter().filter(|event| event.account.as_deref() == Some("ada")) {
            assert_eq!(event.actor, "ada@example.com");
            assert_eq!(event.ip, Some("192.0.2.7".parse().unwrap()));
            assert_eq!(event.user_agent.as_deref(), Some("Mozilla/5.0"));
        }
        for event in &log {
            let name = event.kind.as_str();
            assert!(["second_factor.accepted", "second_factor.refused"].contains(&name));
            assert_eq!(name.parse::<EventKind>().unwrap(), event.kind);
        }
        let kinds = harness.service.events.kinds();
        assert!(kinds.contains(&EventKind::SecondFactorAccepted), "sinks receive it");
        assert!(kinds.contains(&EventKind::SecondFactorRefused), "sinks receive it");
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_refused_codes_is_aggregated() {
    let harness = TotpHarness::new(stores::memory());
    for n in 0..1_000 {
        let (account, by) = (owner("acme", &format!("u{n}")), Actor::account("flood"));
        for _ in 0..3 {
            let refused = harness.nodes[0].check(&account, &harness.secret, "slip", &by).await;
            assert!(refused.is_err());
        }
    }
    let (known, unknown) = (log(&harness, "acme").await, log(&harness, "").await);
    assert_eq!((known.len(), unknown.len()), (256, 1));
    let total = |events: &[AuditEvent]| events.iter().map(|event| event.count).sum::<u32>();
    assert_eq!((total(&known), total(&unknown)), (3 * 256, 3 * (1_000 - 256)));
    assert_eq!((unknown[0].actor.as_str(), &unknown[0].account), ("unknown", &None));
}
