use std::{sync::Arc, time::Duration};

use keyward::{
    Error, ErrorKind, Timestamp,
    manage::Retention,
    totp::{TotpError, TotpSecret},
};

use super::{TotpHarness, bob, code};
use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{HOUR, MICRO, SECOND, on_each_store, owner, stores},
};

const QUARTER: Duration = Duration::from_secs(900);
const STEP: Duration = Duration::from_secs(30);

fn wait(refused: Result<keyward::Timestamp, TotpError>) -> Duration {
    match refused {
        Err(TotpError::TooManyAttempts(wait)) => wait,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_code_is_valid_in_its_own_step_and_one_step_before_and_after() {
    for (steps, valid) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        for late in [Duration::ZERO, STEP - MICRO] {
            let harness = TotpHarness::new(stores::memory());
            harness.service.clock.advance(late);
            let checked = harness.check(&harness.code(steps)).await;
            assert_eq!(checked.is_ok(), valid, "{steps} steps away, {late:?} into its own");
            if valid {
                assert_eq!(checked.unwrap(), harness.service.now());
            }
        }
    }
}

/// The test vectors have eight digits; apps show the last six.
#[tokio::test]
async fn the_test_vectors_of_rfc_6238_appendix_b_are_accepted_around_their_time() {
    for (time, code) in [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ] {
        let begin = Timestamp::from_unix_micros(0).after(Duration::from_secs(time));
        for (now, valid) in [
            (begin.before(STEP), true),
            (begin, true),
            (begin.after(STEP), true),
            (begin.after(STEP * 2), false),
        ] {
            let harness = TotpHarness::new(stores::memory());
            harness.service.clock.set(now);
            assert_eq!(harness.check(code).await.is_ok(), valid, "{code} at {now}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_accepted_once_and_older_codes_are_rejected() {
    on_each_store(async |handles| {
        let harness = TotpHarness::new(handles);
        let (before, now, next) = (harness.code(-1), harness.code(0), harness.code(1));
        assert!(harness.check_at(0, &now).await.is_ok());
        for node in [0, 1] {
            for used in [&now, &before] {
                let refused = harness.check_at(node, used).await;
                assert!(matches!(refused, Err(TotpError::UsedCode)), "{refused:?}");
            }
        }
        assert!(harness.check_at(1, &next).await.is_ok());
        let refused = harness.check_at(0, &now).await;
        assert!(matches!(refused, Err(TotpError::UsedCode)), "{refused:?}");
        harness.enter_wrong_codes(5).await;
        harness.service.clock.advance(QUARTER);
        assert!(harness.check(&harness.code(0)).await.is_ok(), "a used code uses no attempt");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_code_does_not_make_a_used_code_valid_again() {
    on_each_store(async |handles| {
        let harness = TotpHarness::new(handles);
        let used = harness.code(0);
        assert!(harness.check(&used).await.is_ok());
        harness.service.clock.advance(STEP);
        harness.enter_wrong_codes(1).await;
        assert!(matches!(harness.check_at(1, &used).await, Err(TotpError::UsedCode)));
        harness.service.keys().purge(Retention::default(), |_| ()).await.unwrap();
        assert!(matches!(harness.check_at(1, &used).await, Err(TotpError::UsedCode)));
    })
    .await;
}

#[tokio::test]
async fn codes_may_contain_spaces_and_dashes_and_a_malformed_code_uses_no_attempt() {
    let harness = TotpHarness::new(stores::memory());
    for malformed in
        ["", "12345", "1234567", "12345a", "+12345", "-12345", "١٢٣٤٥٦", "123456\0", "0x1234"]
    {
        for _ in 0..10 {
            assert!(
                matches!(harness.check(malformed).await, Err(TotpError::WrongCode)),
                "{malformed:?}"
            );
        }
    }
    harness.enter_wrong_codes(4).await;
    let code = harness.code(0);
    assert!(harness.check(&format!(" {} {}\n", &code[..3], &code[3..])).await.is_ok());
    harness.service.clock.advance(STEP);
    let code = harness.code(0);
    assert!(harness.check(&format!("{}-{}", &code[..3], &code[3..])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_five_wrong_codes_none_is_checked_until_the_quarter_hour_ends() {
    on_each_store(async |handles| {
        let harness = TotpHarness::new(handles);
        harness.service.clock.advance(SECOND * 100);
        harness.enter_wrong_codes(5).await;
        for node in [0, 1] {
            assert_eq!(
                wait(harness.check_at(node, &harness.code(0)).await),
                SECOND * 800,
                "correct"
            );
            assert_eq!(
                wait(harness.check_at(node, &harness.wrong_code(9)).await),
                SECOND * 800,
                "wrong"
            );
        }
        harness.service.clock.advance(SECOND * 800 - MICRO);
        assert_eq!(wait(harness.check(&harness.code(0)).await), MICRO);
        harness.service.clock.advance(MICRO);
        assert!(harness.check(&harness.code(0)).await.is_ok());
        harness.enter_wrong_codes(5).await;
    })
    .await;
}

#[tokio::test]
async fn after_twenty_wrong_codes_none_is_checked_until_the_day_ends() {
    on_each_store(async |handles| {
        let harness = TotpHarness::new(handles);
        for _ in 0..4 {
            harness.enter_wrong_codes(5).await;
            harness.service.clock.advance(QUARTER);
        }
        for hour in 1..24 {
            let left = HOUR * (24 - hour);
            assert_eq!(wait(harness.check_at(hour as usize, &harness.code(0)).await), left);
            harness.service.keys().purge(Retention::default(), |_| ()).await.unwrap();
            harness.service.clock.advance(HOUR);
        }
        assert!(harness.check(&harness.code(0)).await.is_ok(), "on the next day");
        harness.enter_wrong_codes(5).await;
    })
    .await;
}

#[tokio::test]
async fn correct_codes_use_no_attempts() {
    let harness = TotpHarness::new(stores::memory());
    harness.enter_wrong_codes(4).await;
    for _ in 0..20 {
        assert!(harness.check(&harness.code(0)).await.is_ok());
        harness.service.clock.advance(STEP);
    }
    harness.enter_wrong_codes(1).await;
    assert_eq!(wait(harness.check(&harness.code(0)).await), QUARTER - STEP * 20);
}

#[tokio::test]
async fn attempts_are_counted_per_account_and_used_codes_per_secret() {
    let mut harness = TotpHarness::new(stores::memory());
    let (bob, by) = bob();
    let now = harness.service.now();
    harness.enter_wrong_codes(5).await;
    let elsewhere = owner("other", "ada");
    for owner in [&bob, &elsewhere] {
        let secret = TotpSecret::generate().unwrap();
        let checked = harness.nodes[0].check(owner, &secret, &code(&secret, now, 0), &by).await;
        assert!(checked.is_ok(), "{owner:?}");
    }
    harness.secret = TotpSecret::generate().unwrap();
    assert_eq!(
        wait(harness.check(&harness.code(0)).await),
        QUARTER,
        "a new secret has no new attempts"
    );

    harness.service.clock.advance(QUARTER);
    assert!(harness.check(&harness.code(0)).await.is_ok());
    harness.secret = TotpSecret::generate().unwrap();
    assert!(harness.check(&harness.code(0)).await.is_ok(), "the same step of another secret");
}

#[tokio::test]
async fn of_ten_thousand_guesses_in_a_day_twenty_are_checked() {
    let harness = TotpHarness::new(stores::memory());
    let mut checked = 0;
    for n in 0..10_000 {
        let valid = [-1, 0, 1].map(|step| harness.code(step));
        match harness.check(&format!("{n:06}")).await {
            Err(TotpError::TooManyAttempts(_)) => {}
            Err(TotpError::WrongCode) => checked += 1,
            other => panic!("{n:06}, valid {valid:?}: {other:?}"),
        }
        harness.service.clock.advance(SECOND * 8);
    }
    assert_eq!(checked, 20);
}

#[tokio::test]
async fn a_failing_store_is_reported_as_unavailable_and_uses_up_nothing() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let harness = TotpHarness::new(vec![Arc::new(store.clone())]);
    store.set_charge_fault(Fault::Unavailable);
    for typed in [harness.code(0), harness.wrong_code(0)] {
        for _ in 0..6 {
            let failed = harness.check(&typed).await;
            let unavailable = |error: &Error| error.is_unavailable();
            assert!(matches!(&failed, Err(TotpError::Failed(e)) if unavailable(e)), "{failed:?}");
        }
    }
    store.set_charge_fault(Fault::None);
    assert!(harness.check(&harness.code(0)).await.is_ok());
    harness.service.clock.advance(STEP);
    store.set_charge_fault(Fault::AnswerLost);
    let Err(TotpError::Failed(lost)) = harness.check(&harness.code(0)).await else {
        panic!("failed")
    };
    assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
    store.set_charge_fault(Fault::None);
    assert!(matches!(harness.check(&harness.code(0)).await, Err(TotpError::UsedCode)));
}

#[tokio::test]
async fn an_accepted_code_satisfies_a_step_up_policy() {
    let harness = TotpHarness::new(stores::memory());
    let (keys, by) = (harness.service.keys(), &harness.service.actor);
    harness.service.policy.demand(Some(QUARTER));
    let refused = keys.issue(harness.service.new_key(), by).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
    let confirmed_at = harness.check(&harness.code(0)).await.unwrap();
    let confirmed = by.clone().second_factor_at(confirmed_at);
    harness.service.clock.advance(QUARTER);
    assert!(keys.issue(harness.service.new_key(), &confirmed).await.is_ok());
    harness.service.clock.advance(MICRO);
    assert!(keys.issue(harness.service.new_key(), &confirmed).await.is_err());
}
