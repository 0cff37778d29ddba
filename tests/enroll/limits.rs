use std::time::Duration;

use keyward::{
    Actor,
    enroll::{EmailAddress, EnrollError},
};

use super::support::{Office, ada, at_home, from, stranger};
use crate::support::{HOUR, on_each_store, stores};

fn wait(answer: Result<(), EnrollError>) -> Option<Duration> {
    match answer {
        Ok(()) => None,
        Err(EnrollError::TooManyAttempts(wait)) => Some(wait),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_gets_five_codes_an_hour_whether_it_has_an_account_or_not() {
    on_each_store(async |handles| {
        let office = Office::new(handles);
        for address in [ada(), stranger()] {
            for n in 0..5 {
                let node = &office.nodes[n % office.nodes.len()];
                node.request_code(&address, &from(&format!("192.0.2.{n}"))).await.unwrap();
            }
            let wait = wait(office.any().request_code(&address, &from("192.0.2.99")).await);
            assert_eq!(wait, Some(HOUR), "the clock stands at the beginning of an hour");
        }
        office.service.clock.advance(HOUR - Duration::from_secs(60));
        let left = wait(office.any().request_code(&ada(), &at_home()).await);
        assert_eq!(left, Some(Duration::from_secs(60)));
        office.service.clock.advance(Duration::from_secs(60));
        assert_eq!(wait(office.any().request_code(&ada(), &at_home()).await), None);
    })
    .await;
}

#[tokio::test]
async fn a_network_gets_thirty_codes_an_hour() {
    for (network, neighbour) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1")] {
        let office = Office::new(stores::memory());
        let address = |n| format!("a{n}@example.com").parse::<EmailAddress>().unwrap();
        for n in 0..30 {
            office.any().request_code(&address(n), &from(network)).await.unwrap();
        }
        // Another address in the same 64 bits is the same network.
        let same = if network.contains(':') { "2001:db8::ffff:2" } else { network };
        assert!(
            wait(office.any().request_code(&address(30), &from(same)).await).is_some(),
            "{same}"
        );
        assert!(wait(office.any().request_code(&address(30), &from(neighbour)).await).is_none());
        assert!(
            wait(office.any().request_code(&address(30), &Actor::account("?")).await).is_none()
        );
    }
}

#[tokio::test]
async fn a_refused_request_counts_for_nobody_and_leaves_the_code() {
    let office = Office::with(stores::memory(), |builder| builder.codes_per_network(1));
    let code = office.code().await;
    for _ in 0..10 {
        assert!(wait(office.any().request_code(&ada(), &at_home()).await).is_some());
    }
    for n in 0..4 {
        let answer =
            office.any().request_code(&stranger(), &from(&format!("198.51.100.{n}"))).await;
        assert!(wait(answer).is_none());
    }
    assert!(office.present(&code).await.is_ok(), "what was refused replaces nothing");
}

#[tokio::test]
async fn a_network_tries_sixty_codes_an_hour() {
    let office = Office::new(stores::memory());
    for n in 0..60 {
        let address: EmailAddress = format!("a{n}@example.com").parse().unwrap();
        let answer = office.any().redeem_code(&address, "000000", &at_home()).await;
        assert!(matches!(answer, Err(EnrollError::WrongCode)), "{answer:?}");
    }
    let code = office.code().await;
    let answer = office.present(&code).await;
    assert!(
        matches!(answer, Err(EnrollError::TooManyAttempts(wait)) if wait == HOUR),
        "{answer:?}"
    );
    let elsewhere = office.any().redeem_code(&ada(), &code, &from("198.51.100.7")).await;
    assert!(elsewhere.is_ok(), "nothing was looked at, so no try was taken");
}
