use std::{sync::Arc, time::Duration};

use keyward::{
    Error, ErrorKind,
    manage::Retention,
    totp::{TotpError, TotpSecret},
};

use super::{Phone, bob, code};
use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{HOUR, MICRO, SECOND, on_each_store, owner, stores},
};

const QUARTER: Duration = Duration::from_secs(900);
const STEP: Duration = Duration::from_secs(30);

fn wait(refused: Result<keyward::Timestamp, TotpError>) -> Duration {
    match refused {
        Err(TotpError::TooOften(wait)) => wait,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_code_is_right_in_its_own_step_and_in_those_beside_it() {
    for (steps, right) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        for late in [Duration::ZERO, STEP - MICRO] {
            let phone = Phone::new(stores::memory());
            phone.service.clock.advance(late);
            let checked = phone.check(&phone.code(steps)).await;
            assert_eq!(checked.is_ok(), right, "{steps} steps away, {late:?} into its own");
            if right {
                assert_eq!(checked.unwrap(), phone.service.now());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_accepted_once_and_none_that_is_older() {
    on_each_store(async |handles| {
        let phone = Phone::new(handles);
        let (before, now, next) = (phone.code(-1), phone.code(0), phone.code(1));
        assert!(phone.check_at(0, &now).await.is_ok());
        for node in [0, 1] {
            for used in [&now, &before] {
                let refused = phone.check_at(node, used).await;
                assert!(matches!(refused, Err(TotpError::UsedCode)), "{refused:?}");
            }
        }
        assert!(phone.check_at(1, &next).await.is_ok());
        let refused = phone.check_at(0, &now).await;
        assert!(matches!(refused, Err(TotpError::UsedCode)), "{refused:?}");
        phone.err(5).await;
        phone.service.clock.advance(QUARTER);
        assert!(phone.check(&phone.code(0)).await.is_ok(), "a used code took no try");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_code_brings_no_used_one_back() {
    on_each_store(async |handles| {
        let phone = Phone::new(handles);
        let used = phone.code(0);
        assert!(phone.check(&used).await.is_ok());
        phone.service.clock.advance(STEP);
        phone.err(1).await;
        assert!(matches!(phone.check_at(1, &used).await, Err(TotpError::UsedCode)));
        phone.service.keys().purge(Retention::default(), |_| ()).await.unwrap();
        assert!(matches!(phone.check_at(1, &used).await, Err(TotpError::UsedCode)));
    })
    .await;
}

#[tokio::test]
async fn a_code_is_read_as_people_type_it_and_a_slip_takes_no_try() {
    let phone = Phone::new(stores::memory());
    for slip in ["", "12345", "1234567", "12345a", "+12345", "١٢٣٤٥٦", "123456\0", "0x1234"] {
        for _ in 0..10 {
            assert!(matches!(phone.check(slip).await, Err(TotpError::WrongCode)), "{slip:?}");
        }
    }
    phone.err(4).await;
    let code = phone.code(0);
    assert!(phone.check(&format!(" {} {}\n", &code[..3], &code[3..])).await.is_ok());
    phone.service.clock.advance(STEP);
    let code = phone.code(0);
    assert!(phone.check(&format!("{}-{}", &code[..3], &code[3..])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_five_wrong_codes_none_is_looked_at_for_the_rest_of_the_quarter() {
    on_each_store(async |handles| {
        let phone = Phone::new(handles);
        phone.service.clock.advance(SECOND * 100);
        phone.err(5).await;
        for node in [0, 1] {
            assert_eq!(wait(phone.check_at(node, &phone.code(0)).await), SECOND * 800, "right");
            assert_eq!(wait(phone.check_at(node, &phone.wrong(9)).await), SECOND * 800, "wrong");
        }
        phone.service.clock.advance(SECOND * 800 - MICRO);
        assert_eq!(wait(phone.check(&phone.code(0)).await), MICRO);
        phone.service.clock.advance(MICRO);
        assert!(phone.check(&phone.code(0)).await.is_ok());
        phone.err(5).await;
    })
    .await;
}

#[tokio::test]
async fn twenty_wrong_codes_end_a_day_and_nobody_is_locked_out_for_longer() {
    on_each_store(async |handles| {
        let phone = Phone::new(handles);
        for _ in 0..4 {
            phone.err(5).await;
            phone.service.clock.advance(QUARTER);
        }
        for hour in 1..24 {
            let left = HOUR * (24 - hour);
            assert_eq!(wait(phone.check_at(hour as usize, &phone.code(0)).await), left);
            phone.service.keys().purge(Retention::default(), |_| ()).await.unwrap();
            phone.service.clock.advance(HOUR);
        }
        assert!(phone.check(&phone.code(0)).await.is_ok(), "on the next day");
        phone.err(5).await;
    })
    .await;
}

#[tokio::test]
async fn right_codes_take_no_tries() {
    let phone = Phone::new(stores::memory());
    phone.err(4).await;
    for _ in 0..20 {
        assert!(phone.check(&phone.code(0)).await.is_ok());
        phone.service.clock.advance(STEP);
    }
    phone.err(1).await;
    assert_eq!(wait(phone.check(&phone.code(0)).await), QUARTER - STEP * 20);
}

#[tokio::test]
async fn tries_are_the_accounts_and_used_codes_the_secrets() {
    let mut phone = Phone::new(stores::memory());
    let (bob, by) = bob();
    let now = phone.service.now();
    phone.err(5).await;
    let elsewhere = owner("other", "ada");
    for owner in [&bob, &elsewhere] {
        let secret = TotpSecret::generate().unwrap();
        let checked = phone.nodes[0].check(owner, &secret, &code(&secret, now, 0), &by).await;
        assert!(checked.is_ok(), "{owner:?}");
    }
    phone.secret = TotpSecret::generate().unwrap();
    assert_eq!(wait(phone.check(&phone.code(0)).await), QUARTER, "another secret is no other try");

    phone.service.clock.advance(QUARTER);
    assert!(phone.check(&phone.code(0)).await.is_ok());
    phone.secret = TotpSecret::generate().unwrap();
    assert!(phone.check(&phone.code(0)).await.is_ok(), "in the same step, but of another secret");
}

#[tokio::test]
async fn ten_thousand_guesses_in_a_day_have_twenty_tries() {
    let phone = Phone::new(stores::memory());
    let mut looked_at = 0;
    for n in 0..10_000 {
        let right = [-1, 0, 1].map(|step| phone.code(step));
        match phone.check(&format!("{n:06}")).await {
            Err(TotpError::TooOften(_)) => {}
            Err(TotpError::WrongCode) => looked_at += 1,
            other => panic!("{n:06} of {right:?}: {other:?}"),
        }
        phone.service.clock.advance(SECOND * 8);
    }
    assert_eq!(looked_at, 20);
}

#[tokio::test]
async fn a_store_that_is_down_refuses_nothing_and_uses_up_nothing() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let phone = Phone::new(vec![Arc::new(store.clone())]);
    store.set_charge_fault(Fault::Unavailable);
    for typed in [phone.code(0), phone.wrong(0)] {
        for _ in 0..6 {
            let failed = phone.check(&typed).await;
            let unavailable = |error: &Error| error.is_unavailable();
            assert!(matches!(&failed, Err(TotpError::Failed(e)) if unavailable(e)), "{failed:?}");
        }
    }
    store.set_charge_fault(Fault::None);
    assert!(phone.check(&phone.code(0)).await.is_ok());
    phone.service.clock.advance(STEP);
    store.set_charge_fault(Fault::AnswerLost);
    let Err(TotpError::Failed(lost)) = phone.check(&phone.code(0)).await else { panic!("failed") };
    assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
    store.set_charge_fault(Fault::None);
    assert!(matches!(phone.check(&phone.code(0)).await, Err(TotpError::UsedCode)));
}

#[tokio::test]
async fn a_code_is_the_second_factor_that_a_policy_demands() {
    let phone = Phone::new(stores::memory());
    let (keys, by) = (phone.service.keys(), &phone.service.actor);
    phone.service.policy.demand(Some(QUARTER));
    let refused = keys.issue(phone.service.new_key(), by).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
    let confirmed_at = phone.check(&phone.code(0)).await.unwrap();
    let confirmed = by.clone().second_factor_at(confirmed_at);
    phone.service.clock.advance(QUARTER);
    assert!(keys.issue(phone.service.new_key(), &confirmed).await.is_ok());
    phone.service.clock.advance(MICRO);
    assert!(keys.issue(phone.service.new_key(), &confirmed).await.is_err());
}
