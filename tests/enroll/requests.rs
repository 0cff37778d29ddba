use std::time::Duration;

use keyward::{
    Actor, ErrorKind, NewKey, VerifyRequest,
    audit::{EventKind, Outcome},
    enroll::{EmailAddress, EnrolError, Enrolment},
    manage::Retention,
};

use super::support::{Mood, Office, ada, at_home, pepper, stranger, wrong};
use crate::support::{DAY, HOUR, MICRO, on_each_store, stores};

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_makes_one_key() {
    on_each_store(async |handles| {
        let office = Office::new(handles);
        let code = office.code().await;
        let issued = office.present(&format!(" {code}\n")).await.unwrap();
        assert_eq!(issued.key.owner, office.service.owner);
        assert!(office.service.verify(&issued).await.is_ok());
        let again = office.present(&code).await.unwrap_err();
        assert!(matches!(again, EnrolError::WrongCode), "{again:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_lasts_ten_minutes() {
    on_each_store(async |handles| {
        let office = Office::new(handles);
        let code = office.code().await;
        office.service.clock.advance(TEN_MINUTES - MICRO);
        assert!(office.present(&code).await.is_ok());
        let code = office.code().await;
        office.service.clock.advance(TEN_MINUTES);
        let late = office.present(&code).await.unwrap_err();
        assert!(matches!(late, EnrolError::LateCode), "{late:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_of_long_ago_are_cleaned_away() {
    on_each_store(async |handles| {
        let office = Office::new(handles);
        let code = office.code().await;
        office.service.clock.advance(HOUR);
        let next = office.code().await;
        office.service.keys().purge(Retention::default(), drop).await.unwrap();
        office.service.clock.advance(HOUR);
        let late = office.present(&next).await.unwrap_err();
        assert!(matches!(late, EnrolError::LateCode), "{late:?}");
        office.service.clock.advance(DAY + 2 * HOUR);
        office.service.keys().purge(Retention::default(), drop).await.unwrap();
        for code in [code, next] {
            let gone = office.present(&code).await.unwrap_err();
            assert!(matches!(gone, EnrolError::WrongCode), "{gone:?}");
        }
        assert_eq!(office.logged("code.refused", Some("no_code")).await.count, 2);
    })
    .await;
}

#[tokio::test]
async fn only_the_last_code_counts() {
    let office = Office::new(stores::memory());
    let (first, mut second) = (office.code().await, office.code().await);
    // Chance makes them alike once in a million runs.
    while first == second {
        second = office.code().await;
    }
    assert!(matches!(office.present(&first).await, Err(EnrolError::WrongCode)));
    assert!(office.present(&second).await.is_ok());
}

#[tokio::test]
async fn an_address_without_an_account_gets_the_same_answers_and_no_letter() {
    let office = Office::new(stores::memory());
    for address in [ada(), stranger()] {
        office.any().request(&address, &at_home()).await.unwrap();
        let answer = office.any().verify(&address, "12 34", &at_home()).await.unwrap_err();
        assert_eq!(answer.to_string(), EnrolError::WrongCode.to_string());
    }
    office.letter().await;
    office.logged("code.refused", Some("no_account")).await;
    assert!(office.sent_nothing().await);
    // The store has been asked the same: a wrong code for either is one of a code that is there.
    for address in [ada(), stranger()] {
        // Chance makes it the right one twice in a million runs.
        let _ = office.any().verify(&address, "000000", &at_home()).await;
    }
    assert_eq!(office.logged("code.refused", Some("wrong_code")).await.count, 2);
}

/// The clock stands still, and goes on only where somebody waits.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_accounts_or_mail() {
    let (office, begun) = (Office::new(stores::memory()), tokio::time::Instant::now());
    for mood in [Mood::Frozen, Mood::Failing] {
        office.host.is(mood);
        office.any().request(&ada(), &at_home()).await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    office.logged("code.refused", Some("not_sent")).await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_takes_a_minute_is_given_up() {
    let (office, begun) = (Office::new(stores::memory()), tokio::time::Instant::now());
    office.host.is(Mood::Frozen);
    office.any().request(&ada(), &at_home()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    office.logged("code.refused", Some("not_sent")).await;
    assert!(begun.elapsed() < Duration::from_secs(65), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_thousand_letters_may_wait_and_no_more() {
    let office = Office::unlimited(stores::memory());
    office.host.is(Mood::Frozen);
    for n in 0..1_000 {
        let address = format!("a{n}@example.com").parse().unwrap();
        office.any().request(&address, &at_home()).await.unwrap();
    }
    for address in [ada(), stranger()] {
        let busy = office.any().request(&address, &at_home()).await.unwrap_err();
        assert!(matches!(&busy, EnrolError::Failed(error) if error.is_unavailable()), "{busy:?}");
    }
}

#[tokio::test]
async fn an_account_that_is_gone_gets_no_key() {
    let office = Office::new(stores::memory());
    let code = office.code().await;
    office.host.is(Mood::Deserted);
    assert!(matches!(office.present(&code).await, Err(EnrolError::WrongCode)));
    office.logged("code.refused", Some("no_account")).await;
}

#[tokio::test]
async fn a_host_that_cannot_tell_is_unavailable() {
    let office = Office::new(stores::memory());
    let code = office.code().await;
    office.host.is(Mood::Failing);
    let failed = office.present(&code).await.unwrap_err();
    assert!(matches!(&failed, EnrolError::Failed(error) if error.is_unavailable()), "{failed:?}");
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable() {
    use crate::cache::faulty_store::{Fault, FaultyStore};
    let store = FaultyStore::new(stores::memory().remove(0));
    let office = Office::new(vec![std::sync::Arc::new(store.clone())]);
    let code = office.code().await;
    store.set_change_fault(Fault::Unavailable);
    let failed = office.present(&code).await.unwrap_err();
    assert!(matches!(&failed, EnrolError::Failed(error) if error.is_unavailable()), "{failed:?}");
    let failed = office.any().request(&ada(), &at_home()).await.unwrap_err();
    assert!(matches!(&failed, EnrolError::Failed(error) if error.is_unavailable()), "{failed:?}");
    store.set_change_fault(Fault::None);
    assert!(office.present(&code).await.is_ok(), "nothing was used up");
}

#[tokio::test]
async fn a_plan_that_has_no_room_says_so() {
    let office = Office::new(stores::memory());
    let none = keyward::model::Limits::default().max_active_keys(0);
    office.service.host.limit(&office.service.owner, none);
    let code = office.code().await;
    let refused = office.present(&code).await.unwrap_err();
    let kind = |error: &EnrolError| match error {
        EnrolError::Failed(error) => Some(error.kind()),
        _ => None,
    };
    assert_eq!(kind(&refused), Some(ErrorKind::LimitReached));
}

#[tokio::test]
async fn what_a_key_becomes_is_up_to_the_host() {
    let office = Office::with(stores::memory(), |builder| {
        builder.new_key(|owner| {
            Ok(NewKey::new(owner, "lua-cli")?.expiry(keyward::model::Expiry::days(30)))
        })
    });
    let code = office.code().await;
    let issued = office.present(&code).await.unwrap();
    assert_eq!(issued.key.name.as_str(), "lua-cli");
    assert!(issued.key.expires_at.is_some());
    assert!(
        office.service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok()
    );
}

#[tokio::test]
async fn who_has_the_database_alone_cannot_test_codes() {
    let (office, handles) = {
        let handles = stores::memory();
        (Office::new(handles.clone()), handles)
    };
    let code = office.code().await;
    let thief = crate::support::Service::new(handles);
    let host = office.host.clone();
    let thief = Enrolment::builder(thief.nodes[0].clone(), host.clone(), host, pepper(2)).build();
    let tried = thief.verify(&ada(), &code, &at_home()).await;
    assert!(matches!(tried, Err(EnrolError::WrongCode)), "under another pepper");
    assert!(office.present(&code).await.is_ok(), "its tries are not even those of this code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_their_ends_are_logged() {
    on_each_store(async |handles| {
        let office = Office::new(handles);
        let code = office.code().await;
        let _key = office.present(&code).await.unwrap();
        let requested = office.logged("code.requested", None).await;
        let accepted = office.logged("code.accepted", None).await;
        for event in [&requested, &accepted] {
            assert_eq!(event.outcome, Outcome::Success);
            assert_eq!(event.account.as_deref(), Some(office.service.owner.account()));
            assert_eq!(event.actor, "ada@example.com");
            assert_eq!(event.ip, Some("192.0.2.7".parse().unwrap()));
            assert_eq!(event.user_agent.as_deref(), Some("lua/1"));
        }
        let code = office.code().await;
        let _ = office.present(&wrong(&code)).await;
        let refused = office.logged("code.refused", Some("wrong_code")).await;
        assert_eq!((refused.outcome, refused.count), (Outcome::Failure, 1));
        let all = office.log().await;
        assert!(all.iter().all(|event| !event.to_string().contains(&code)), "{all:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_line_for_each_reason() {
    let office = Office::new(stores::memory());
    for _ in 0..1_000 {
        let _ = office.any().verify(&stranger(), "000000", &at_home()).await;
        let _ = office.any().request(&stranger(), &at_home()).await;
        let _ = office.any().verify(&stranger(), "nonsense", &Actor::account("x")).await;
    }
    let refused = office.log().await.into_iter();
    let refused: Vec<_> = refused.filter(|event| event.kind == EventKind::CodeRefused).collect();
    let total: u32 = refused.iter().map(|event| event.count).sum();
    assert!(refused.len() <= 8, "{refused:#?}");
    assert!(total >= 2_900, "{refused:#?}");
}

#[test]
fn an_address_is_one_line_of_ascii() {
    for good in ["ada@example.com", "A.da+lua@sub.xn--bcher-kva.example", "o'hara@localhost"] {
        assert!(good.parse::<EmailAddress>().is_ok(), "{good}");
    }
    let long = format!("{}@example.com", "a".repeat(65));
    for bad in [
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
        assert!(bad.parse::<EmailAddress>().is_err(), "{bad:?}");
    }
    assert_eq!("ADA@Example.COM".parse::<EmailAddress>().unwrap(), ada());
}
