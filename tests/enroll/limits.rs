use std::time::Duration;

use keyward::{
    Actor,
    enroll::{EmailAddress, EnrollError},
};

use super::support::{EnrollmentHarness, actor_from, ada, ada_actor, stranger};
use crate::support::{HOUR, on_each_store, stores};

fn wait(answer: Result<(), EnrollError>) -> Option<Duration> {
    match answer {
        Ok(()) => None,
        Err(EnrollError::TooManyAttempts(wait)) => Some(wait),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_limited_to_five_codes_per_hour_with_or_without_an_account() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        for address in [ada(), stranger()] {
            for n in 0..5 {
                let node = &harness.nodes[n % harness.nodes.len()];
                node.request_code(&address, &actor_from(&format!("192.0.2.{n}"))).await.unwrap();
            }
            let wait = wait(harness.node().request_code(&address, &actor_from("192.0.2.99")).await);
            assert_eq!(wait, Some(HOUR), "the clock is at the beginning of an hour");
        }
        harness.service.clock.advance(HOUR - Duration::from_secs(60));
        let left = wait(harness.node().request_code(&ada(), &ada_actor()).await);
        assert_eq!(left, Some(Duration::from_secs(60)));
        harness.service.clock.advance(Duration::from_secs(60));
        assert_eq!(wait(harness.node().request_code(&ada(), &ada_actor()).await), None);
    })
    .await;
}

#[tokio::test]
async fn a_network_is_limited_to_thirty_codes_per_hour() {
    for (network, neighbour) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1")] {
        let harness = EnrollmentHarness::new(stores::memory());
        let address = |n| format!("a{n}@example.com").parse::<EmailAddress>().unwrap();
        for n in 0..30 {
            harness.node().request_code(&address(n), &actor_from(network)).await.unwrap();
        }
        // Another address in the same IPv6 /64 is the same network.
        let same = if network.contains(':') { "2001:db8::ffff:2" } else { network };
        assert!(
            wait(harness.node().request_code(&address(30), &actor_from(same)).await).is_some(),
            "{same}"
        );
        assert!(
            wait(harness.node().request_code(&address(30), &actor_from(neighbour)).await).is_none()
        );
        assert!(
            wait(harness.node().request_code(&address(30), &Actor::account("?")).await).is_none()
        );
    }
}

#[tokio::test]
async fn callers_without_an_address_share_a_third_of_a_networks_limits() {
    let harness = EnrollmentHarness::new(stores::memory());
    let address = |n| format!("a{n}@example.com").parse::<EmailAddress>().unwrap();
    for n in 0..20 {
        let caller = Actor::account(&format!("caller {n}"));
        let answer = harness.node().request_code(&address(n), &caller).await;
        assert_eq!(wait(answer), (n >= 10).then_some(HOUR), "{n}");
    }
    for n in 0..40 {
        let caller = Actor::account(&format!("caller {n}"));
        let answer = harness.node().redeem_code(&address(n), "000000", &caller).await.unwrap_err();
        let is_checked = matches!(answer, EnrollError::WrongCode);
        assert_eq!(is_checked, n < 20, "{n}: {answer:?}");
    }
    let code = harness.code().await;
    assert!(harness.redeem(&code).await.is_ok(), "a network has limits of its own");
}

#[tokio::test]
async fn a_host_without_addresses_can_set_their_limits() {
    let harness = EnrollmentHarness::with(stores::memory(), |builder| {
        builder.codes_without_address(40).attempts_without_address(80)
    });
    let address = |n| format!("a{n}@example.com").parse::<EmailAddress>().unwrap();
    let caller = Actor::account("caller");
    for n in 0..40 {
        assert_eq!(wait(harness.node().request_code(&address(n), &caller).await), None);
    }
    assert!(wait(harness.node().request_code(&address(40), &caller).await).is_some());
    for n in 0..80 {
        let answer = harness.node().redeem_code(&address(n), "000000", &caller).await;
        assert!(matches!(answer, Err(EnrollError::WrongCode)), "{n}: {answer:?}");
    }
    let answer = harness.node().redeem_code(&address(0), "000000", &caller).await;
    assert!(matches!(answer, Err(EnrollError::TooManyAttempts(_))), "{answer:?}");
}

#[tokio::test]
async fn a_rejected_request_charges_no_counter_and_keeps_the_code_valid() {
    let harness = EnrollmentHarness::with(stores::memory(), |builder| builder.codes_per_network(1));
    let code = harness.code().await;
    for _ in 0..10 {
        assert!(wait(harness.node().request_code(&ada(), &ada_actor()).await).is_some());
    }
    for n in 0..4 {
        let answer =
            harness.node().request_code(&stranger(), &actor_from(&format!("198.51.100.{n}"))).await;
        assert!(wait(answer).is_none());
    }
    assert!(harness.redeem(&code).await.is_ok(), "a rejected request replaces no code");
}

#[tokio::test]
async fn a_network_is_limited_to_sixty_attempts_per_hour() {
    let harness = EnrollmentHarness::new(stores::memory());
    for n in 0..60 {
        let address: EmailAddress = format!("a{n}@example.com").parse().unwrap();
        let answer = harness.node().redeem_code(&address, "000000", &ada_actor()).await;
        assert!(matches!(answer, Err(EnrollError::WrongCode)), "{answer:?}");
    }
    let code = harness.code().await;
    let answer = harness.redeem(&code).await;
    assert!(
        matches!(answer, Err(EnrollError::TooManyAttempts(wait)) if wait == HOUR),
        "{answer:?}"
    );
    let elsewhere = harness.node().redeem_code(&ada(), &code, &actor_from("198.51.100.7")).await;
    assert!(elsewhere.is_ok(), "a rejected attempt is not checked, so none is used up");
}
