use std::{future::poll_fn, sync::Arc, task::Poll};

use keyward::{KeyStore, VerifyError, VerifyRequest, manage::Issued, verify::CacheOptions};
use tokio::task::{JoinHandle, JoinSet};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{SECOND, Service, format, reason, stores};

fn service() -> (Arc<Service>, FaultyStore) {
    let store = FaultyStore::new(stores::memory().remove(0));
    (Arc::new(Service::new(vec![Arc::new(store.clone())])), store)
}

fn spawn_verifications(service: &Arc<Service>, secret: &str) -> JoinSet<Result<(), VerifyError>> {
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let (service, secret) = (service.clone(), secret.to_owned());
        tasks.spawn(async move {
            service.keys().verify(&secret, &VerifyRequest::new()).await.map(drop)
        });
    }
    tasks
}

async fn wait_until_queried(store: &FaultyStore) {
    while store.finds() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..WAITERS * 4 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn concurrent_lookups_of_a_digest_query_the_store_once() {
    let (service, store) = service();
    let issued = service.issue().await;
    service.keys().catch_up().await.unwrap();
    store.hold_finds();
    let tasks = spawn_verifications(&service, issued.secret.expose());
    wait_until_queried(&store).await;
    store.release_finds(1);
    assert!(tasks.join_all().await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(store.finds(), 1);
}

#[tokio::test]
async fn concurrent_lookups_of_an_unknown_digest_query_the_store_once() {
    let (service, store) = service();
    let secret = format().generate().unwrap();
    service.keys().catch_up().await.unwrap();
    store.hold_finds();
    let tasks = spawn_verifications(&service, secret.expose());
    wait_until_queried(&store).await;
    store.release_finds(1);
    assert!(tasks.join_all().await.into_iter().all(|a| matches!(a, Err(VerifyError::Denied(_)))));
    assert_eq!(store.finds(), 1);
}

#[tokio::test]
async fn dropped_waiters_do_not_affect_others() {
    let (service, store) = service();
    let issued: Issued = service.issue().await;
    service.keys().catch_up().await.unwrap();
    store.hold_finds();
    let request = VerifyRequest::new();
    let mut first = Box::pin(service.keys().verify(issued.secret.expose(), &request));
    let mut idle = Box::pin(service.keys().verify(issued.secret.expose(), &request));
    for waiter in [&mut first, &mut idle] {
        let begun = poll_fn(|context| Poll::Ready(waiter.as_mut().poll(context).is_pending()));
        assert!(begun.await);
    }
    assert_eq!(store.finds(), 1);
    drop(first);
    let mut dropped = spawn_verifications(&service, issued.secret.expose());
    wait_until_queried(&store).await;
    dropped.abort_all();
    while dropped.join_next().await.is_some() {}
    let rest = spawn_verifications(&service, issued.secret.expose());
    wait_until_queried(&store).await;
    store.release_finds(1);
    assert!(rest.join_all().await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(store.finds(), 1, "the other waiters continued the same look-up");
    assert!(idle.await.is_ok(), "a waiter that was not polled meanwhile gets the result too");
}

#[tokio::test]
async fn a_lookup_after_all_waiters_were_dropped_starts_again() {
    let (service, store) = service();
    let issued = service.issue().await;
    service.keys().catch_up().await.unwrap();
    store.hold_finds();
    let mut tasks = spawn_verifications(&service, issued.secret.expose());
    wait_until_queried(&store).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    store.release_finds(1);
    assert!(service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
    assert_eq!(store.finds(), 2);
}

/// Two nodes on one store. The second uses it through a `FaultyStore` whose change feed is down, so it learns of no
/// change, and trusts what it knows for one second.
fn node_without_a_feed() -> (Arc<Service>, FaultyStore) {
    let inner = stores::memory().remove(0);
    let store = FaultyStore::new(inner.clone());
    store.set_feed_fault(Fault::Unavailable);
    let handles: Vec<Arc<dyn KeyStore>> = vec![inner, Arc::new(store.clone())];
    let options = CacheOptions::default().max_staleness(SECOND);
    (Arc::new(Service::with(handles, |builder| builder.cache(options.clone()))), store)
}

async fn verify_in_task(
    service: &Arc<Service>,
    secret: &str,
) -> JoinHandle<Result<(), VerifyError>> {
    let (service, secret) = (service.clone(), secret.to_owned());
    let task = tokio::spawn(async move {
        service.nodes[1].verify(&secret, &VerifyRequest::new()).await.map(drop)
    });
    for _ in 0..WAITERS {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn a_lookup_that_takes_longer_than_the_bound_does_not_answer_callers_that_join_it() {
    let (service, store) = node_without_a_feed();
    let issued = service.issue().await;
    let secret = issued.secret.expose();
    store.hold_finds();
    let first = verify_in_task(&service, secret).await;
    assert_eq!(store.finds(), 1, "the key was read, and the answer is held");
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(SECOND * 2);
    let late = verify_in_task(&service, secret).await;
    assert_eq!(store.finds(), 1, "the second caller joins the look-up");
    store.release_finds(2);
    // Also the first caller, which began before the revocation: the bound has passed.
    for caller in [first, late] {
        let denied = caller.await.unwrap().unwrap_err();
        assert_eq!(reason(denied).as_str(), "revoked");
    }
    assert_eq!(store.finds(), 2, "both share the second look-up");
}

#[tokio::test]
async fn a_slow_reload_of_an_account_does_not_extend_the_trust_in_the_key() {
    let (service, store) = node_without_a_feed();
    let issued = service.issue().await;
    let secret = issued.secret.expose();
    // The feed is read once, later than the key: the key is trusted when its account is already stale.
    assert!(verify_in_task(&service, secret).await.await.unwrap().is_ok());
    service.clock.advance(SECOND * 3 / 4);
    store.set_feed_fault(Fault::None);
    service.nodes[1].catch_up().await.unwrap();
    assert!(verify_in_task(&service, secret).await.await.unwrap().is_ok());
    store.set_feed_fault(Fault::Unavailable);
    service.clock.advance(SECOND * 9 / 10);

    service.host.hold();
    let first = verify_in_task(&service, secret).await;
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(SECOND * 2);
    let late = verify_in_task(&service, secret).await;
    service.host.release();
    drop(first.await.unwrap());
    let denied = late.await.unwrap().unwrap_err();
    assert_eq!(reason(denied).as_str(), "revoked");
}

#[tokio::test]
async fn a_lookup_that_fails_or_panics_is_unavailable_to_all_waiters_and_caches_nothing() {
    let (service, store) = service();
    let issued = service.issue().await;
    for fault in [Fault::Unavailable, Fault::Panics] {
        store.set_find_fault(fault);
        for answer in spawn_verifications(&service, issued.secret.expose()).join_all().await {
            assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{fault:?}: {answer:?}");
        }
        assert_eq!(service.keys().health().cached_keys, 0);
    }
    store.set_find_fault(Fault::None);
    assert!(service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
}

const WAITERS: usize = 50;
