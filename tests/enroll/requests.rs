use std::time::Duration;

use keyward::{
    Actor, ErrorKind, NewKey, VerifyRequest,
    audit::{EventKind, Outcome},
    enroll::{EmailAddress, EnrollError, Enrollment},
    manage::Retention,
};

use super::support::{EnrollmentHarness, HostMode, ada, ada_actor, pepper, stranger, wrong};
use crate::support::{DAY, HOUR, MICRO, on_each_store, stores};

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_issues_one_key() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let code = harness.code().await;
        let issued = harness.redeem(&format!(" {code}\n")).await.unwrap();
        assert_eq!(issued.key.owner, harness.service.owner);
        assert!(harness.service.verify(&issued).await.is_ok());
        let again = harness.redeem(&code).await.unwrap_err();
        assert!(matches!(again, EnrollError::WrongCode), "{again:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_expires_after_ten_minutes() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let code = harness.code().await;
        harness.service.clock.advance(TEN_MINUTES - MICRO);
        assert!(harness.redeem(&code).await.is_ok());
        let code = harness.code().await;
        harness.service.clock.advance(TEN_MINUTES);
        let late = harness.redeem(&code).await.unwrap_err();
        assert!(matches!(late, EnrollError::ExpiredCode), "{late:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_codes_are_purged() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let code = harness.code().await;
        harness.service.clock.advance(HOUR);
        let next = harness.code().await;
        harness.service.keys().purge(Retention::default(), drop).await.unwrap();
        harness.service.clock.advance(HOUR);
        let late = harness.redeem(&next).await.unwrap_err();
        assert!(matches!(late, EnrollError::ExpiredCode), "{late:?}");
        harness.service.clock.advance(DAY + 2 * HOUR);
        harness.service.keys().purge(Retention::default(), drop).await.unwrap();
        for code in [code, next] {
            let gone = harness.redeem(&code).await.unwrap_err();
            assert!(matches!(gone, EnrollError::WrongCode), "{gone:?}");
        }
        assert_eq!(harness.logged("code.refused", Some("no_code")).await.count, 2);
    })
    .await;
}

#[tokio::test]
async fn only_the_last_requested_code_is_valid() {
    let harness = EnrollmentHarness::new(stores::memory());
    let (first, mut second) = (harness.code().await, harness.code().await);
    // The codes are equal by chance once in a million runs.
    while first == second {
        second = harness.code().await;
    }
    assert!(matches!(harness.redeem(&first).await, Err(EnrollError::WrongCode)));
    assert!(harness.redeem(&second).await.is_ok());
}

#[tokio::test]
async fn an_address_without_an_account_gets_the_same_responses_and_no_message() {
    let harness = EnrollmentHarness::new(stores::memory());
    for address in [ada(), stranger()] {
        harness.node().request_code(&address, &ada_actor()).await.unwrap();
        let answer = harness.node().redeem_code(&address, "12 34", &ada_actor()).await.unwrap_err();
        assert_eq!(answer.to_string(), EnrollError::WrongCode.to_string());
    }
    harness.message().await;
    harness.logged("code.refused", Some("no_account")).await;
    assert!(harness.sent_nothing().await);
    // A code is stored for both addresses, so a wrong code is reported in the same way.
    for address in [ada(), stranger()] {
        // The code is correct by chance twice in a million runs.
        let _ = harness.node().redeem_code(&address, "000000", &ada_actor()).await;
    }
    assert_eq!(harness.logged("code.refused", Some("wrong_code")).await.count, 2);
}

/// Tokio's paused clock advances only while a task waits.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_neither_the_account_lookup_nor_the_sender() {
    let (harness, begun) = (EnrollmentHarness::new(stores::memory()), tokio::time::Instant::now());
    for mode in [HostMode::Frozen, HostMode::Failing] {
        harness.host.set_mode(mode);
        harness.node().request_code(&ada(), &ada_actor()).await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    harness.logged("code.refused", Some("not_sent")).await;
}

#[tokio::test(start_paused = true)]
async fn sending_is_cancelled_after_a_minute() {
    let (harness, begun) = (EnrollmentHarness::new(stores::memory()), tokio::time::Instant::now());
    harness.host.set_mode(HostMode::Frozen);
    harness.node().request_code(&ada(), &ada_actor()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    harness.logged("code.refused", Some("not_sent")).await;
    assert!(begun.elapsed() < Duration::from_secs(65), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn at_most_a_thousand_messages_are_pending() {
    let harness = EnrollmentHarness::unlimited(stores::memory());
    harness.host.set_mode(HostMode::Frozen);
    for n in 0..1_000 {
        let address = format!("a{n}@example.com").parse().unwrap();
        harness.node().request_code(&address, &ada_actor()).await.unwrap();
    }
    for address in [ada(), stranger()] {
        let busy = harness.node().request_code(&address, &ada_actor()).await.unwrap_err();
        assert!(matches!(&busy, EnrollError::Failed(error) if error.is_unavailable()), "{busy:?}");
    }
}

#[tokio::test]
async fn a_deleted_account_gets_no_key() {
    let harness = EnrollmentHarness::new(stores::memory());
    let code = harness.code().await;
    harness.host.set_mode(HostMode::NoAccount);
    assert!(matches!(harness.redeem(&code).await, Err(EnrollError::WrongCode)));
    harness.logged("code.refused", Some("no_account")).await;
}

#[tokio::test]
async fn a_failing_host_is_reported_as_unavailable() {
    let harness = EnrollmentHarness::new(stores::memory());
    let code = harness.code().await;
    harness.host.set_mode(HostMode::Failing);
    let failed = harness.redeem(&code).await.unwrap_err();
    assert!(matches!(&failed, EnrollError::Failed(error) if error.is_unavailable()), "{failed:?}");
}

#[tokio::test]
async fn a_failing_store_is_reported_as_unavailable() {
    use crate::cache::faulty_store::{Fault, FaultyStore};
    let store = FaultyStore::new(stores::memory().remove(0));
    let harness = EnrollmentHarness::new(vec![std::sync::Arc::new(store.clone())]);
    let code = harness.code().await;
    store.set_change_fault(Fault::Unavailable);
    let failed = harness.redeem(&code).await.unwrap_err();
    assert!(matches!(&failed, EnrollError::Failed(error) if error.is_unavailable()), "{failed:?}");
    let failed = harness.node().request_code(&ada(), &ada_actor()).await.unwrap_err();
    assert!(matches!(&failed, EnrollError::Failed(error) if error.is_unavailable()), "{failed:?}");
    store.set_change_fault(Fault::None);
    assert!(harness.redeem(&code).await.is_ok(), "the code is still valid");
}

#[tokio::test]
async fn an_owner_at_the_key_limit_gets_a_limit_error() {
    let harness = EnrollmentHarness::new(stores::memory());
    let none = keyward::model::Limits::default().max_active_keys(0);
    harness.service.host.limit(&harness.service.owner, none);
    let code = harness.code().await;
    let refused = harness.redeem(&code).await.unwrap_err();
    let kind = |error: &EnrollError| match error {
        EnrollError::Failed(error) => Some(error.kind()),
        _ => None,
    };
    assert_eq!(kind(&refused), Some(ErrorKind::LimitReached));
}

#[tokio::test]
async fn the_host_chooses_the_issued_key() {
    let harness = EnrollmentHarness::with(stores::memory(), |builder| {
        builder.new_key(|owner| {
            Ok(NewKey::new(owner, "lua-cli")?.expiry(keyward::model::Expiry::days(30)))
        })
    });
    let code = harness.code().await;
    let issued = harness.redeem(&code).await.unwrap();
    assert_eq!(issued.key.name.as_str(), "lua-cli");
    assert!(issued.key.expires_at.is_some());
    assert!(
        harness.service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok()
    );
}

#[tokio::test]
async fn codes_cannot_be_checked_without_the_pepper() {
    let (harness, handles) = {
        let handles = stores::memory();
        (EnrollmentHarness::new(handles.clone()), handles)
    };
    let code = harness.code().await;
    let thief = crate::support::Service::new(handles);
    let host = harness.host.clone();
    let thief =
        Enrollment::builder(thief.nodes[0].clone(), host.clone(), host, pepper(2)).build().unwrap();
    let tried = thief.redeem_code(&ada(), &code, &ada_actor()).await;
    assert!(matches!(tried, Err(EnrollError::WrongCode)), "another pepper");
    assert!(harness.redeem(&code).await.is_ok(), "the thief used no attempt of this code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requested_accepted_and_refused_codes_are_audited() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let code = harness.code().await;
        let _key = harness.redeem(&code).await.unwrap();
        let requested = harness.logged("code.requested", None).await;
        let accepted = harness.logged("code.accepted", None).await;
        for event in [&requested, &accepted] {
            assert_eq!(event.outcome, Outcome::Success);
            assert_eq!(event.account.as_deref(), Some(harness.service.owner.account()));
            assert_eq!(event.actor, "ada@example.com");
            assert_eq!(event.ip, Some("192.0.2.7".parse().unwrap()));
            assert_eq!(event.user_agent.as_deref(), Some("lua/1"));
        }
        let code = harness.code().await;
        let _ = harness.redeem(&wrong(&code)).await;
        let refused = harness.logged("code.refused", Some("wrong_code")).await;
        assert_eq!((refused.outcome, refused.count), (Outcome::Failure, 1));
        let all = harness.log().await;
        assert!(all.iter().all(|event| !event.to_string().contains(&code)), "{all:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_refused_codes_is_aggregated_per_reason() {
    let harness = EnrollmentHarness::new(stores::memory());
    for _ in 0..1_000 {
        let _ = harness.node().redeem_code(&stranger(), "000000", &ada_actor()).await;
        let _ = harness.node().request_code(&stranger(), &ada_actor()).await;
        let _ = harness.node().redeem_code(&stranger(), "nonsense", &Actor::account("x")).await;
    }
    let refused = harness.log().await.into_iter();
    let refused: Vec<_> = refused.filter(|event| event.kind == EventKind::CodeRefused).collect();
    let total: u32 = refused.iter().map(|event| event.count).sum();
    assert!(refused.len() <= 8, "{refused:#?}");
    assert!(total >= 2_900, "{refused:#?}");
}

#[test]
fn only_ascii_addresses_without_quotes_or_line_breaks_are_accepted() {
    for valid in ["ada@example.com", "A.da+lua@sub.xn--bcher-kva.example", "o'hara@localhost"] {
        assert!(valid.parse::<EmailAddress>().is_ok(), "{valid}");
    }
    let long = format!("{}@example.com", "a".repeat(65));
    for invalid in [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@@example.com",
        "a da@example.com",
        "ada@exa mple.com",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com,eve@example.com",
        "ada@example.com>",
        "\"ada\"@example.com",
        "ada@exämple.com",
        "ada@example..com",
        "adа@example.com",
        ".ada@example.com",
        "ada@[127.0.0.1]",
        "ada@-example.com",
        "ada\0@example.com",
        &long,
    ] {
        assert!(invalid.parse::<EmailAddress>().is_err(), "{invalid:?}");
    }
    assert_eq!("ADA@Example.COM".parse::<EmailAddress>().unwrap(), ada());
}
