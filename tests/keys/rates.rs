use std::sync::Arc;

use keyward::{
    Limits, VerifyError, VerifyRequest,
    manage::{Issued, Rotation},
    model::{KeyLimits, Rate},
    verify::Limited,
};
use tokio::task::JoinSet;

use crate::support::{HOUR, SECOND, Service, stores};

async fn charge(service: &Service, issued: &Issued) -> Result<keyward::Verified, Limited> {
    match service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await {
        Ok(verified) => Ok(verified),
        Err(VerifyError::Limited(limited)) => Err(*limited),
        Err(other) => panic!("{other}"),
    }
}

async fn limited_key(service: &Service, rate: Rate) -> Issued {
    let new = service.new_key().limits(KeyLimits { rate: Some(rate), ..KeyLimits::default() });
    service.keys().issue(new, &service.actor).await.unwrap()
}

#[tokio::test]
async fn a_key_is_limited_at_its_rate_and_the_error_has_the_retry_time() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_minute(3)).await;
    for left in [2, 1, 0] {
        let verified = charge(&service, &issued).await.unwrap();
        assert_eq!(verified.rates().key.unwrap().remaining, left);
    }
    let limited = charge(&service, &issued).await.unwrap_err();
    assert_eq!(limited.retry_after, Some(SECOND * 20));
    assert_eq!(limited.rates.key.unwrap().reset, SECOND * 60);

    // Rejected attempts do not extend the wait.
    for _ in 0..19 {
        service.clock.advance(SECOND);
        assert!(charge(&service, &issued).await.is_err());
    }
    service.clock.advance(SECOND);
    assert!(charge(&service, &issued).await.is_ok());
    assert!(charge(&service, &issued).await.is_err());
}

#[tokio::test]
async fn all_keys_of_an_owner_share_the_rate_of_the_plan() {
    let service = Service::new(stores::memory());
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_minute(4)));
    let keys = [service.issue().await, service.issue().await];
    for n in 0..4 {
        assert!(charge(&service, &keys[n % 2]).await.is_ok());
    }
    for issued in &keys {
        assert!(charge(&service, issued).await.is_err());
    }
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_minute(600)));
    service.keys().account_changed(&service.owner).await.unwrap();
    assert!(charge(&service, &keys[0]).await.is_ok(), "a larger plan takes effect immediately");
}

#[tokio::test]
async fn each_key_of_an_owner_has_the_rate_of_the_plan_or_a_lower_one() {
    let service = Service::new(stores::memory());
    let plan = Limits::default().rate_per_key(Rate::per_minute(4)).rate(Rate::per_minute(11));
    service.host.limit(&service.owner, plan);
    let plain = [service.issue().await, service.issue().await];
    let (lower, higher) = (
        limited_key(&service, Rate::per_minute(2)).await,
        limited_key(&service, Rate::per_minute(9)).await,
    );
    for (issued, uses) in [(&plain[0], 4), (&lower, 2), (&higher, 4)] {
        for n in 1..=uses {
            let rates = charge(&service, issued).await.unwrap().rates();
            let reported = rates.key.map(|state| (state.rate.uses.get(), state.remaining));
            assert_eq!(reported, Some((uses, uses - n)));
        }
        let rates = charge(&service, issued).await.unwrap_err().rates;
        assert_eq!(rates.key.unwrap().remaining, 0);
    }
    assert!(charge(&service, &plain[1]).await.is_ok());
    let rates = charge(&service, &plain[1]).await.unwrap_err().rates;
    let left = [rates.key, rates.owner].map(|state| state.unwrap().remaining);
    assert_eq!(left, [3, 0], "the owner's keys share eleven");

    service.host.limit(&service.owner, Limits::default().rate_per_key(Rate::per_minute(40)));
    service.keys().account_changed(&service.owner).await.unwrap();
    assert!(charge(&service, &plain[0]).await.is_ok(), "a larger plan takes effect immediately");
}

#[tokio::test]
async fn the_stricter_rate_and_burst_of_key_and_plan_apply() {
    let service = Service::new(stores::memory());
    let per_hour = |uses, burst| Rate::per_hour(uses).burst(burst);
    for (plan, own, expected) in [
        (per_hour(60, 10), per_hour(30, 30), per_hour(30, 10)),
        (per_hour(60, 60), per_hour(90, 3), per_hour(60, 3)),
        (per_hour(60, 10), Rate::per_minute(1), Rate::per_minute(1)),
        (per_hour(60, 10), Rate::per_second(9), per_hour(60, 9)),
        (per_hour(60, 10), per_hour(90, 90), per_hour(60, 10)),
    ] {
        service.host.limit(&service.owner, Limits::default().rate_per_key(plan));
        service.keys().account_changed(&service.owner).await.unwrap();
        let issued = limited_key(&service, own).await;
        for _ in 0..expected.burst.get() {
            assert_eq!(
                charge(&service, &issued).await.unwrap().rates().key.unwrap().rate,
                expected
            );
        }
        let wait = charge(&service, &issued).await.unwrap_err().retry_after;
        assert_eq!(wait, Some(expected.period / expected.uses.get()), "{plan:?}, {own:?}");
    }
}

#[tokio::test]
async fn a_use_rejected_by_one_rate_is_charged_to_neither() {
    let service = Service::new(stores::memory());
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_hour(10)));
    let narrow = limited_key(&service, Rate::per_hour(1)).await;
    let wide = service.issue().await;
    assert!(charge(&service, &narrow).await.is_ok());
    for _ in 0..50 {
        let limited = charge(&service, &narrow).await.unwrap_err();
        assert_eq!(limited.rates.owner.unwrap().remaining, 9);
    }
    for _ in 0..9 {
        assert!(charge(&service, &wide).await.is_ok());
    }
    assert!(charge(&service, &wide).await.is_err());
    service.clock.advance(HOUR);
    assert!(
        charge(&service, &narrow).await.is_ok(),
        "rejections by the owner's rate did not charge the key's rate"
    );
}

#[tokio::test]
async fn a_denied_request_charges_no_rate() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_hour(1)).await;
    for request in [VerifyRequest::new().tenant("other"), VerifyRequest::new().tenant("")] {
        assert!(service.verify_for(&issued, &request).await.is_err());
    }
    assert!(charge(&service, &issued).await.is_ok());
}

#[tokio::test]
async fn a_rotation_does_not_reset_the_rate() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_hour(1)).await;
    assert!(charge(&service, &issued).await.is_ok());
    let id = issued.key.id;
    let rotated = service.keys().rotate(&service.owner, id, Rotation::immediate(), &service.actor);
    assert!(charge(&service, &rotated.await.unwrap()).await.is_err());
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_block_a_key() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_minute(2)).await;
    service.clock.advance(HOUR);
    assert!(charge(&service, &issued).await.is_ok());
    service.clock.set(service.now().before(HOUR));
    assert!(charge(&service, &issued).await.is_ok());
    let limited = charge(&service, &issued).await.unwrap_err();
    let wait = limited.retry_after.unwrap();
    assert!(wait <= SECOND * 60, "{limited}");
    service.clock.advance(wait);
    assert!(charge(&service, &issued).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_at_a_rate_of_a_hundred_get_exactly_a_hundred() {
    let service = Arc::new(Service::new(stores::memory()));
    let issued = Arc::new(limited_key(&service, Rate::per_hour(100)).await);
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (service, issued) = (service.clone(), issued.clone());
        tasks.spawn(async move {
            let mut passed = 0;
            for _ in 0..10 {
                passed += usize::from(charge(&service, &issued).await.is_ok());
            }
            passed
        });
    }
    assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 100);
}

#[tokio::test]
async fn limited_requests_are_in_the_log() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_hour(1)).await;
    for _ in 0..5 {
        let _ = charge(&service, &issued).await;
    }
    service.keys().flush().await.unwrap();
    let refused = service.events.all().pop().unwrap();
    assert_eq!((refused.reason.as_deref(), refused.count), (Some("rate_limited"), 4));
}

#[tokio::test]
async fn a_request_charges_its_cost() {
    let service = Service::new(stores::memory());
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_hour(20)));
    let issued = limited_key(&service, Rate::per_minute(6)).await;
    let verify = async |uses| match service
        .keys()
        .verify(issued.secret.expose(), &VerifyRequest::new().cost(uses))
        .await
    {
        Ok(verified) => Ok(verified.rates().key.unwrap().remaining),
        Err(VerifyError::Limited(limited)) => Err(limited.retry_after),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(verify(4).await, Ok(2));
    assert_eq!(verify(5).await, Err(Some(SECOND * 30)), "all uses or none");
    assert_eq!(verify(2).await, Ok(0));
    assert_eq!(verify(0).await, Ok(0), "cost zero is never limited");
    assert_eq!(verify(7).await, Err(None), "the cost exceeds the burst");
    service.clock.advance(HOUR);
    assert_eq!(verify(u32::MAX).await, Err(None));
    assert_eq!(verify(6).await, Ok(0));
}
