use keyward::{
    Actor, AuditEvent, AuditQuery, OwnerScope,
    audit::{EventKind, Outcome},
    totp::TotpSecret,
};

use super::{Phone, bob};
use crate::support::{on_each_store, owner, stores};

async fn log(phone: &Phone, tenant: &str) -> Vec<AuditEvent> {
    for node in &phone.service.nodes {
        node.flush().await.unwrap();
    }
    let query = AuditQuery::new(OwnerScope::Tenant(tenant)).limit(1_000);
    phone.service.keys().events(query).await.unwrap()
}

#[tokio::test]
async fn what_becomes_of_codes_is_in_the_accounts_log() {
    on_each_store(async |handles| {
        let phone = Phone::new(handles);
        let code = phone.code(0);
        phone.err(2).await;
        assert!(phone.check(&code).await.is_ok());
        assert!(phone.check(&code).await.is_err());
        assert!(phone.check("123").await.is_err());
        phone.err(3).await;
        assert!(phone.check(&code).await.is_err());

        let (bob, by) = bob();
        let secret = TotpSecret::generate().unwrap();
        assert!(phone.nodes[0].check(&bob, &secret, "slip", &by).await.is_err());
        let log = log(&phone, "acme").await;
        let of = |account: &str, kind: EventKind, reason: Option<&str>| -> Vec<&AuditEvent> {
            let fits = |event: &&AuditEvent| {
                let its = (event.account.as_deref(), event.kind, event.reason.as_deref());
                its == (Some(account), kind, reason)
            };
            log.iter().filter(fits).collect()
        };
        let accepted = of("ada", EventKind::SecondFactorAccepted, None);
        assert_eq!(accepted.len(), 1);
        assert_eq!((accepted[0].outcome, accepted[0].count), (Outcome::Success, 1));
        for (account, reason, times) in [
            ("ada", "wrong_code", 5),
            ("ada", "used_code", 1),
            ("ada", "malformed_code", 1),
            ("ada", "too_many_tries", 1),
            ("bob", "malformed_code", 1),
        ] {
            let refused = of(account, EventKind::SecondFactorRefused, Some(reason));
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
        let told = phone.service.events.kinds();
        assert!(told.contains(&EventKind::SecondFactorAccepted), "sinks hear of it");
        assert!(told.contains(&EventKind::SecondFactorRefused), "and of that");
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_codes_leaves_few_lines() {
    let phone = Phone::new(stores::memory());
    for n in 0..1_000 {
        let (account, by) = (owner("acme", &format!("u{n}")), Actor::account("flood"));
        for _ in 0..3 {
            let refused = phone.nodes[0].check(&account, &phone.secret, "slip", &by).await;
            assert!(refused.is_err());
        }
    }
    let (known, unknown) = (log(&phone, "acme").await, log(&phone, "").await);
    assert_eq!((known.len(), unknown.len()), (256, 1));
    let times = |events: &[AuditEvent]| events.iter().map(|event| event.count).sum::<u32>();
    assert_eq!((times(&known), times(&unknown)), (3 * 256, 3 * (1_000 - 256)));
    assert_eq!((unknown[0].actor.as_str(), &unknown[0].account), ("unknown", &None));
}
