//! What is charged, counted and recorded, on the paths that few tests take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    Hasher as _, Limits, Sha256Hasher, VerifyError, VerifyRequest,
    audit::EventKind,
    model::{KeyLimits, Quota, Rate},
    verify::{CacheOptions, RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome},
};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{SECOND, Service, format, reason, stores},
};

#[tokio::test]
async fn a_new_plan_sets_the_rate_when_the_account_is_read_again() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    for uses in [10, 20, 5] {
        let rate = Rate::per_minute(uses);
        service.host.limit(&service.owner, Limits::default().rate(rate));
        service.clock.advance(SECOND * 6);
        let verified = service.verify(&issued).await.unwrap();
        assert_eq!(verified.rates().owner.map(|state| state.rate), Some(rate));
    }
}

#[tokio::test]
async fn an_unknown_secret_that_is_repeated_fails_an_attempt_each_time() {
    let options = CacheOptions::default().failed_attempts_per_network(Rate::per_minute(10));
    let service = Service::with(stores::memory(), |builder| builder.cache(options.clone()));
    let unknown = format().generate().unwrap();
    let request = VerifyRequest::new().ip("198.51.100.7".parse().unwrap());
    for n in 0..20 {
        match service.keys().verify(unknown.expose(), &request).await.unwrap_err() {
            VerifyError::Denied(_) => assert!(n < 10, "{n}"),
            VerifyError::Limited(_) => assert!(n >= 10, "{n}"),
            VerifyError::Unavailable(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_refused_reservation_is_counted_and_recorded() {
    let service = Service::new(stores::memory());
    let limits = KeyLimits { quota: Some(Quota::total(10)), ..KeyLimits::default() };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    let ip = "198.51.100.7".parse().unwrap();
    let request = VerifyRequest::new().ip(ip).cost(0);
    let verified = service.keys().verify(issued.secret.expose(), &request).await.unwrap();
    assert!(matches!(service.keys().reserve(&verified, 11).await, Err(VerifyError::Limited(_))));
    service.keys().flush().await.unwrap();
    let history = service.keys().usage_history(&service.owner, issued.key.id, 1).await.unwrap();
    assert_eq!(history[0].limited, 1);
    let denied = service.events.all().into_iter().filter(|event| event.kind == EventKind::Denied);
    let denied: Vec<_> =
        denied.map(|event| (event.key_id, event.reason, event.count, event.ip)).collect();
    assert_eq!(denied, [(Some(issued.key.id), Some("quota_exhausted".into()), 1, Some(ip))]);
}

#[tokio::test]
async fn a_key_that_the_store_finds_for_another_digest_is_unknown() {
    for cached in [true, false] {
        let store = FaultyStore::new(stores::memory().remove(0));
        let service = Service::with(vec![Arc::new(store.clone())], |builder| match cached {
            true => builder,
            false => builder.no_cache(),
        });
        let issued = service.issue().await;
        store.confuse_finds(Sha256Hasher.digest(issued.secret.expose().as_bytes()));
        let guessed = format().generate().unwrap();
        let answer = service.keys().verify(guessed.expose(), &VerifyRequest::new()).await;
        assert_eq!(reason(answer.unwrap_err()).as_str(), "unknown", "cached: {cached}");
        assert!(service.keys().identify(guessed.expose()).await.unwrap().is_none());
        assert!(service.verify(&issued).await.is_ok());
    }
}

#[tokio::test]
async fn a_first_use_that_is_written_late_has_its_user_agent() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(store.clone())]);
    let issued = service.issue().await;
    store.set_use_fault(Fault::Unavailable);
    for agent in ["curl/8", "wget/1"] {
        let request = VerifyRequest::new().user_agent(agent);
        service.verify_for(&issued, &request).await.unwrap();
        assert!(service.keys().flush().await.is_err());
        service.clock.advance(SECOND);
    }
    store.set_use_fault(Fault::None);
    service.keys().flush().await.unwrap();
    let events = service.events.all().into_iter();
    let agents: Vec<_> = events
        .filter(|event| event.kind == EventKind::FirstUsed)
        .map(|event| event.user_agent.unwrap())
        .collect();
    assert_eq!(agents, ["curl/8"]);
}

/// Grants everything and counts how often it is asked.
#[derive(Clone, Default)]
struct Generous(Arc<AtomicUsize>);

#[async_trait]
impl RateLimiter for Generous {
    async fn charge(&self, charge: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let full_at = charge.rates.iter().map(|_| charge.at).collect();
        Ok(RateOutcome::Granted(RateLevels { at: charge.at, full_at }))
    }

    async fn refund(&self, _: &RateCharge<'_>, _: &RateLevels) {}
}

#[tokio::test]
async fn a_rate_limiter_is_not_asked_about_a_cost_of_zero() {
    let limiter = Generous::default();
    let service = Service::with(stores::memory(), |builder| builder.rate_limiter(limiter.clone()));
    let limits = KeyLimits { rate: Some(Rate::per_minute(10)), ..KeyLimits::default() };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    for (cost, asked) in [(0, 0), (1, 1), (0, 1), (3, 2)] {
        let request = VerifyRequest::new().cost(cost);
        assert!(service.keys().verify(issued.secret.expose(), &request).await.is_ok());
        assert_eq!(limiter.0.load(Ordering::SeqCst), asked, "cost {cost}");
        service.clock.advance(Duration::from_millis(1));
    }
}
