//! Rates that a node counts in its own memory: no server is needed.

use std::time::Duration;

use keyward::{
    Limits, Timestamp, Verified, VerifyError, VerifyRequest,
    manage::Issued,
    model::{KeyLimits, Rate},
    verify::Limited,
};

use super::limited_key;
use crate::support::{Service, stores};

async fn charge(service: &Service, issued: &Issued) -> Result<Verified, Limited> {
    let verified = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
    verified.map_err(|error| match error {
        VerifyError::Limited(limited) => *limited,
        other => panic!("{other}"),
    })
}

/// Each use comes at the first instant at which it is granted.
#[tokio::test]
async fn a_rate_that_does_not_divide_its_period_is_never_exceeded() {
    for (uses, period) in [
        (3, Duration::from_secs(1)),
        (7, Duration::from_secs(1)),
        (7, Duration::from_secs(60)),
        (999, Duration::from_millis(1)),
        (7, Duration::from_micros(10)),
        (1_000, Duration::from_micros(1)),
    ] {
        let service = Service::new(stores::memory());
        let rate = Rate { period, ..Rate::per_second(uses).burst(1) };
        let issued = limited_key(&service, rate).await;
        let (start, mut granted) = (service.now(), 0);
        let end: Timestamp = start.after(period);
        while service.now() < end {
            match charge(&service, &issued).await {
                Ok(_) => granted += 1,
                Err(limited) => service.clock.advance(limited.retry_after.unwrap()),
            }
        }
        assert!((1..=uses).contains(&granted), "{granted} of {uses} in {period:?}");
    }
}

#[tokio::test]
async fn the_interval_of_a_rate_is_rounded_up_to_whole_microseconds() {
    for (uses, micros) in [(3, 333_334), (7, 142_858), (1_000, 1_000), (2_000_000, 1)] {
        let service = Service::new(stores::memory());
        let issued = limited_key(&service, Rate::per_second(uses).burst(1)).await;
        let state = charge(&service, &issued).await.unwrap().rates().key.unwrap();
        assert_eq!(state.reset, Duration::from_micros(micros), "{uses} per second");
    }
}

/// Uses of a plan stay used under the next one, for keys with a rate each and for a shared rate.
#[tokio::test]
async fn a_change_of_plan_neither_fills_nor_empties_a_bucket() {
    for shared in [false, true] {
        let plan = |uses| match shared {
            true => Limits::default().rate(Rate::per_minute(uses)),
            false => Limits::default().rate_per_key(Rate::per_minute(uses)),
        };
        for (before, used, after, left) in [
            (10, 7, 20, Some(13)),
            (10, 3, 5, Some(2)),
            (10, 7, 5, None),
            (10, 10, 20, Some(10)),
            (20, 2, 10, Some(8)),
            (6, 1, 600, Some(599)),
        ] {
            let service = Service::new(stores::memory());
            let issued = service.issue().await;
            service.host.limit(&service.owner, plan(before));
            service.keys().account_changed(&service.owner).await.unwrap();
            for _ in 0..used {
                charge(&service, &issued).await.unwrap();
            }
            service.host.limit(&service.owner, plan(after));
            service.keys().account_changed(&service.owner).await.unwrap();
            let case = format!("shared: {shared}, {used} of {before}, then {after} per minute");
            match (charge(&service, &issued).await, left) {
                (Ok(verified), Some(left)) => {
                    let rates = verified.rates();
                    let state = if shared { rates.owner } else { rates.key };
                    assert_eq!(state.unwrap().remaining, left - 1, "{case}");
                }
                (Err(_), None) => {}
                (Ok(_), None) => panic!("{case}: granted"),
                (Err(_), Some(_)) => panic!("{case}: refused"),
            }
        }
    }
}

/// The same where a key's own rate is changed.
#[tokio::test]
async fn a_key_whose_own_rate_is_changed_keeps_what_it_has_used() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_minute(10)).await;
    for _ in 0..5 {
        charge(&service, &issued).await.unwrap();
    }
    let limits = KeyLimits { rate: Some(Rate::per_minute(30)), ..KeyLimits::default() };
    let change = keyward::manage::KeyChange::default().limits(limits);
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    keys.update(ada, issued.key.id, &change, by).await.unwrap();
    let state = charge(&service, &issued).await.unwrap().rates().key.unwrap();
    assert_eq!((state.rate.uses.get(), state.remaining), (30, 24));
}
