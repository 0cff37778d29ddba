use std::{future::poll_fn, sync::Arc, task::Poll};

use keyward::{VerifyError, VerifyRequest, manage::Issued};
use tokio::task::JoinSet;

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{Service, format, stores};

fn service() -> (Arc<Service>, FaultyStore) {
    let wrapper = FaultyStore::new(stores::memory().remove(0));
    (Arc::new(Service::new(vec![Arc::new(wrapper.clone())])), wrapper)
}

fn many(service: &Arc<Service>, secret: &str) -> JoinSet<Result<(), VerifyError>> {
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let (service, secret) = (service.clone(), secret.to_owned());
        tasks.spawn(async move {
            service.keys().verify(&secret, &VerifyRequest::new()).await.map(drop)
        });
    }
    tasks
}

async fn is_asked(wrapper: &FaultyStore) {
    while wrapper.finds() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..WAITERS * 4 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn concurrent_lookups_of_a_digest_query_the_store_once() {
    let (service, wrapper) = service();
    let issued = service.issue().await;
    service.keys().catch_up().await.unwrap();
    wrapper.hold_finds();
    let tasks = many(&service, issued.secret.expose());
    is_asked(&wrapper).await;
    wrapper.release_finds(1);
    assert!(tasks.join_all().await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(wrapper.finds(), 1);
}

#[tokio::test]
async fn concurrent_lookups_of_an_unknown_digest_query_the_store_once() {
    let (service, wrapper) = service();
    let secret = format().generate().unwrap();
    service.keys().catch_up().await.unwrap();
    wrapper.hold_finds();
    let tasks = many(&service, secret.expose());
    is_asked(&wrapper).await;
    wrapper.release_finds(1);
    assert!(tasks.join_all().await.into_iter().all(|a| matches!(a, Err(VerifyError::Denied(_)))));
    assert_eq!(wrapper.finds(), 1);
}

#[tokio::test]
async fn dropped_waiters_do_not_affect_others() {
    let (service, wrapper) = service();
    let issued: Issued = service.issue().await;
    service.keys().catch_up().await.unwrap();
    wrapper.hold_finds();
    let request = VerifyRequest::new();
    let mut first = Box::pin(service.keys().verify(issued.secret.expose(), &request));
    let mut idle = Box::pin(service.keys().verify(issued.secret.expose(), &request));
    for waiter in [&mut first, &mut idle] {
        let begun = poll_fn(|context| Poll::Ready(waiter.as_mut().poll(context).is_pending()));
        assert!(begun.await);
    }
    assert_eq!(wrapper.finds(), 1);
    drop(first);
    let mut gone = many(&service, issued.secret.expose());
    is_asked(&wrapper).await;
    gone.abort_all();
    while gone.join_next().await.is_some() {}
    let rest = many(&service, issued.secret.expose());
    is_asked(&wrapper).await;
    wrapper.release_finds(1);
    assert!(rest.join_all().await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(wrapper.finds(), 1, "others drove it on from where it was");
    assert!(idle.await.is_ok(), "one that was not polled meanwhile learns it, too");
}

#[tokio::test]
async fn a_lookup_after_all_waiters_were_dropped_starts_again() {
    let (service, wrapper) = service();
    let issued = service.issue().await;
    service.keys().catch_up().await.unwrap();
    wrapper.hold_finds();
    let mut tasks = many(&service, issued.secret.expose());
    is_asked(&wrapper).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    wrapper.release_finds(1);
    assert!(service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
    assert_eq!(wrapper.finds(), 2);
}

#[tokio::test]
async fn a_lookup_that_fails_or_panics_is_unavailable_to_all_waiters_and_caches_nothing() {
    let (service, wrapper) = service();
    let issued = service.issue().await;
    for mood in [Fault::Unavailable, Fault::Panics] {
        wrapper.set_find_fault(mood);
        for answer in many(&service, issued.secret.expose()).join_all().await {
            assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{mood:?}: {answer:?}");
        }
        assert_eq!(service.keys().health().cached_keys, 0);
    }
    wrapper.set_find_fault(Fault::None);
    assert!(service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
}

const WAITERS: usize = 50;
