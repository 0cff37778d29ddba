use std::sync::Arc;

use keyward::{
    KeyStore, NewKey, Owner, VerifyError, VerifyRequest, audit::EventKind, manage::Issued,
    model::Rate, verify::CacheOptions,
};
use tokio::task::JoinSet;

use super::faulty_store::FaultyStore;
use crate::support::{MICRO, SECOND, Service, format, stores};

fn service(options: CacheOptions) -> (Service, FaultyStore) {
    let store = FaultyStore::new(stores::memory().remove(0));
    let handles: Vec<Arc<dyn KeyStore>> = vec![Arc::new(store.clone())];
    (Service::with(handles, |builder| builder.cache(options.clone())), store)
}

async fn verify(service: &Service, secret: &str, ip: &str) -> Result<(), VerifyError> {
    let request = VerifyRequest::new().ip(ip.parse().unwrap());
    service.keys().verify(secret, &request).await.map(drop)
}

#[tokio::test]
async fn a_flood_of_unknown_keys_uses_bounded_memory_and_evicts_no_valid_key() {
    let options = CacheOptions::default().max_unknown(1_000).unknown_lookups_per_second(u32::MAX);
    let (service, store) = service(options);
    let mut good: Vec<Issued> = Vec::new();
    for _ in 0..100 {
        good.push(service.issue().await);
    }
    service.keys().catch_up().await.unwrap();
    for issued in &good {
        verify(&service, issued.secret.expose(), HOME).await.unwrap();
    }
    for n in 0..UNKNOWN_KEYS {
        let unknown = format().generate().unwrap();
        verify(&service, unknown.expose(), HOME).await.unwrap_err();
        if n % 100 == 0 {
            service.clock.advance(MICRO);
        }
    }
    let health = service.keys().health();
    assert!(health.cached_unknown <= 1_000, "{health:?}");
    assert_eq!(health.cached_keys, 100);
    let before = store.finds();
    for issued in &good {
        verify(&service, issued.secret.expose(), HOME).await.unwrap();
    }
    assert_eq!(store.finds(), before, "all of them are still cached");
}

#[tokio::test]
async fn keys_beyond_the_cache_capacity_still_verify() {
    let (service, _) = service(CacheOptions::default().max_keys(10));
    let mut issued = Vec::new();
    for _ in 0..50 {
        issued.push(service.issue().await);
    }
    for _ in 0..3 {
        for issued in &issued {
            verify(&service, issued.secret.expose(), HOME).await.unwrap();
        }
    }
    assert_eq!(service.keys().health().cached_keys, 10);
}

#[tokio::test]
async fn a_cache_holds_as_many_keys_as_it_may() {
    let (service, store) = service(CacheOptions::default().max_keys(5_000));
    let mut issued = Vec::new();
    for n in 0..5_000 {
        // Counting the keys of one owner would make this quadratic.
        let owner = Owner::new("acme", &format!("ada-{n}")).unwrap();
        let new = NewKey::new(&owner, "ci").unwrap();
        issued.push(service.keys().issue(new, &service.actor).await.unwrap());
    }
    service.keys().catch_up().await.unwrap();
    for _ in 0..2 {
        for issued in &issued {
            verify(&service, issued.secret.expose(), HOME).await.unwrap();
        }
    }
    assert_eq!((store.finds(), service.keys().health().cached_keys), (5_000, 5_000));
}

#[tokio::test]
async fn keys_that_are_used_stay_in_a_full_cache_and_a_new_key_finds_room() {
    let (service, store) = service(CacheOptions::default().max_keys(20));
    let mut issued = Vec::new();
    for _ in 0..60 {
        issued.push(service.issue().await);
    }
    service.keys().catch_up().await.unwrap();
    let (hot, cold) = issued.split_at(10);
    for key in cold {
        for hot in hot {
            verify(&service, hot.secret.expose(), HOME).await.unwrap();
        }
        verify(&service, key.secret.expose(), HOME).await.unwrap();
    }
    assert_eq!(store.finds(), 60, "each key is read once");
    // All 20 cached keys were used. A new one still finds room.
    for key in &cold[40..] {
        verify(&service, key.secret.expose(), HOME).await.unwrap();
    }
    for _ in 0..2 {
        verify(&service, cold[0].secret.expose(), HOME).await.unwrap();
    }
    assert_eq!((store.finds(), service.keys().health().cached_keys), (61, 20));
    // A key that is read again replaces itself.
    service.keys().account_changed(&service.owner).await.unwrap();
    verify(&service, cold[0].secret.expose(), HOME).await.unwrap();
    assert_eq!((store.finds(), service.keys().health().cached_keys), (62, 20));
}

#[tokio::test]
async fn lookups_of_unknown_keys_are_rate_limited_and_valid_keys_still_verify() {
    let (service, store) = service(CacheOptions::default().unknown_lookups_per_second(100));
    let (cached, stale) = (service.issue().await, service.issue().await);
    let mut cold = Vec::new();
    for _ in 0..CLIENTS {
        cold.push(service.issue().await);
    }
    for issued in [&cached, &stale] {
        verify(&service, issued.secret.expose(), HOME).await.unwrap();
    }
    let before = store.finds();
    let mut unavailable = 0;
    for _ in 0..10_000 {
        service.clock.advance(SECOND / 1_000);
        let unknown = format().generate().unwrap();
        match verify(&service, unknown.expose(), ELSEWHERE).await.unwrap_err() {
            VerifyError::Denied(_) => {}
            VerifyError::Unavailable(_) => unavailable += 1,
            VerifyError::Limited(limited) => panic!("{limited}"),
        }
    }
    let finds = store.finds() - before;
    assert!(finds <= 1_000 + 100, "100 per second for 10 seconds: {finds}");
    assert!(finds >= 500, "half of them is for every network: {finds}");
    for request in [VerifyRequest::new().ip(ELSEWHERE.parse().unwrap()), VerifyRequest::new()] {
        let unknown = format().generate().unwrap();
        let answer = service.keys().verify(unknown.expose(), &request).await.unwrap_err();
        assert!(matches!(answer, VerifyError::Unavailable(_)), "{answer}");
    }
    assert_eq!(unavailable, 10_000 - finds, "a key is denied only after a look-up");

    let (ada, by) = (&service.owner, &service.actor);
    service.keys().disable(ada, stale.key.id, by).await.unwrap();
    service.keys().enable(ada, stale.key.id, by).await.unwrap();
    verify(&service, cached.secret.expose(), ELSEWHERE).await.unwrap();
    verify(&service, stale.secret.expose(), ELSEWHERE).await.unwrap();
    // A network shares both buckets of the flooding network with a probability of 1 in 65,536.
    for (n, issued) in cold.iter().enumerate() {
        let ip = format!("192.0.{n}.7");
        let answer = verify(&service, issued.secret.expose(), &ip).await;
        answer.expect("no unknown keys came from this network");
    }
}

/// Half of the permits are for every network: ten look-ups a second.
#[tokio::test]
async fn lookups_in_flight_together_are_made_up_for_by_waiting() {
    let (service, store) = service(CacheOptions::default().unknown_lookups_per_second(20));
    let service = Arc::new(service);
    for _ in 0..100 {
        let issued = service.issue().await;
        let found = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
        found.expect("a look-up that finds a key is free");
    }
    store.hold_finds();
    let look_up = |service: Arc<Service>| async move {
        let unknown = format().generate().unwrap();
        service.keys().verify(unknown.expose(), &VerifyRequest::new()).await.unwrap_err()
    };
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        tasks.spawn(look_up(service.clone()));
    }
    while store.finds() < 200 {
        tokio::task::yield_now().await;
    }
    store.release_finds(101);
    for answer in tasks.join_all().await {
        assert!(matches!(answer, VerifyError::Denied(_)), "{answer}");
    }
    service.clock.advance(SECOND * 9);
    assert!(matches!(look_up(service.clone()).await, VerifyError::Unavailable(_)));
    service.clock.advance(SECOND);
    assert!(matches!(look_up(service.clone()).await, VerifyError::Denied(_)));
}

#[tokio::test]
async fn a_network_with_too_many_failures_is_limited_before_any_lookup() {
    let options = CacheOptions::default().failed_attempts_per_network(Rate::per_minute(10));
    let (service, store) = service(options);
    let (cached, cold) = (service.issue().await, service.issue().await);
    verify(&service, cached.secret.expose(), ELSEWHERE).await.unwrap();
    let before = store.finds();
    for n in 0..100 {
        let unknown = format().generate().unwrap();
        // Another host of the same network each time.
        let ip = format!("198.51.100.{n}");
        let refused = verify(&service, unknown.expose(), &ip).await.unwrap_err();
        match refused {
            VerifyError::Denied(_) => assert!(n < 10, "{n}"),
            VerifyError::Limited(limited) => {
                assert!(n >= 10 && limited.retry_after <= Some(SECOND * 6), "{n}: {limited:?}");
            }
            VerifyError::Unavailable(error) => panic!("{error}"),
        }
    }
    assert_eq!(store.finds() - before, 10);
    service.keys().flush().await.unwrap();
    let reasons = service.events.all().into_iter().filter(|event| event.kind == EventKind::Denied);
    let reasons: Vec<_> = reasons.map(|event| (event.reason.unwrap(), event.count)).collect();
    assert_eq!(reasons, [("unknown".into(), 10), ("throttled".into(), 90)]);
    let throttled = verify(&service, cold.secret.expose(), ELSEWHERE).await;
    assert!(
        matches!(throttled, Err(VerifyError::Limited(_))),
        "a valid key that is not cached is limited too"
    );
    verify(&service, cold.secret.expose(), HOME).await.expect("another network is open");

    verify(&service, cached.secret.expose(), ELSEWHERE).await.expect("a cached key always works");
    let unknown = format().generate().unwrap();
    let refused = verify(&service, unknown.expose(), ELSEWHERE).await.unwrap_err();
    assert!(matches!(refused, VerifyError::Denied(_)), "its success compensates one failure");
    service.clock.advance(SECOND * 6);
    let refused = verify(&service, unknown.expose(), ELSEWHERE).await.unwrap_err();
    assert!(matches!(refused, VerifyError::Denied(_)), "and so does time");
}

#[tokio::test]
async fn attempts_without_an_address_share_a_third_of_the_limit() {
    let options = CacheOptions::default().failed_attempts_per_network(Rate::per_minute(30));
    let (service, store) = service(options);
    let (cached, cold) = (service.issue().await, service.issue().await);
    let attempt = async |secret: &str| service.keys().verify(secret, &VerifyRequest::new()).await;
    attempt(cached.secret.expose()).await.unwrap();
    let before = store.finds();
    for n in 0..40 {
        let unknown = format().generate().unwrap();
        match attempt(unknown.expose()).await.unwrap_err() {
            VerifyError::Denied(_) => assert!(n < 10, "{n}"),
            VerifyError::Limited(limited) => {
                assert!(n >= 10 && limited.retry_after <= Some(SECOND * 6), "{n}: {limited:?}");
            }
            VerifyError::Unavailable(error) => panic!("{error}"),
        }
    }
    assert_eq!(store.finds() - before, 10);
    let unknown = format().generate().unwrap();
    let elsewhere = verify(&service, unknown.expose(), ELSEWHERE).await.unwrap_err();
    assert!(matches!(elsewhere, VerifyError::Denied(_)), "a network has a limit of its own");

    let limited = attempt(cold.secret.expose()).await;
    assert!(matches!(limited, Err(VerifyError::Limited(_))), "as in a network");
    attempt(cached.secret.expose()).await.expect("a cached key always works");
    attempt(cold.secret.expose()).await.expect("its success compensates one failure");
    attempt(cold.secret.expose()).await.expect("it is cached by now");
}

const UNKNOWN_KEYS: usize = 120_000;
/// Networks that send no unknown keys.
const CLIENTS: usize = 40;
const HOME: &str = "192.0.2.7";
const ELSEWHERE: &str = "198.51.100.7";
