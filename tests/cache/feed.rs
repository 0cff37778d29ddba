//! How a node reads the change feed.

use std::{sync::Arc, time::Duration};

use keyward::{
    ApiKeys, KeyStore, VerifyError, VerifyRequest, manage::Issued, verify::CacheOptions,
};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{MICRO, SECOND, Service, owner, stores};

/// Two nodes on one store; the second uses it through a `FaultyStore`.
fn two_nodes() -> (Arc<Service>, FaultyStore) {
    let inner = stores::memory().remove(0);
    let store = FaultyStore::new(inner.clone());
    let handles: Vec<Arc<dyn KeyStore>> = vec![inner, Arc::new(store.clone())];
    let options = CacheOptions::default().max_staleness(BOUND);
    let service = Service::with(handles, |builder| builder.cache(options.clone()));
    (Arc::new(service), store)
}

async fn says(node: &ApiKeys, issued: &Issued) -> &'static str {
    match node.verify(issued.secret.expose(), &VerifyRequest::new()).await {
        Ok(_) => "ok",
        Err(VerifyError::Denied(denied)) => denied.reason().as_str(),
        Err(other) => panic!("{other}"),
    }
}

/// The first reading returns the end of the feed, and none of the changes before it.
#[tokio::test]
async fn the_first_reading_of_the_feed_invalidates_what_was_cached_before_it() {
    let (service, store) = two_nodes();
    let other = &service.nodes[1];
    // While the feed fails, this node has no position in it.
    store.set_feed_fault(Fault::Unavailable);
    let issued = service.issue().await;
    let kept = service.issue().await;
    for issued in [&issued, &kept] {
        assert_eq!(says(other, issued).await, "ok");
    }
    let asked = store.finds();
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    assert_eq!(says(other, &issued).await, "ok", "it cannot know yet");
    assert_eq!(store.finds(), asked, "it was a cache hit");

    store.set_feed_fault(Fault::None);
    other.catch_up().await.unwrap();
    assert_eq!(says(other, &issued).await, "revoked");
    assert_eq!(says(other, &kept).await, "ok");
}

#[tokio::test]
async fn the_bound_counts_from_the_beginning_of_a_reading_however_late_its_answer_comes() {
    let (service, store) = two_nodes();
    let other = &service.nodes[1];
    let issued = service.issue().await;
    other.catch_up().await.unwrap();
    // After a shutdown only this test reads the feed.
    other.shutdown().await.unwrap();
    assert_eq!(says(other, &issued).await, "ok");
    other.flush().await.unwrap();
    service.clock.advance(SECOND * 2);

    store.hold_feed();
    let read = store.feed_reads();
    let reading = tokio::spawn({
        let service = service.clone();
        async move { service.nodes[1].catch_up().await }
    });
    while store.feed_reads() == read {
        tokio::task::yield_now().await;
    }
    // The reading has seen the feed as it was; then the key is revoked, and then the answer comes.
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(SECOND * 3);
    store.release_feed(1);
    reading.await.unwrap().unwrap();

    service.clock.advance(BOUND - SECOND * 3);
    assert_eq!(says(other, &issued).await, "ok", "the bound has not passed");
    service.clock.advance(MICRO);
    assert_eq!(says(other, &issued).await, "revoked");
}

/// The feed of the memory store has pages of 1,000 entries.
#[tokio::test]
async fn a_feed_that_is_read_in_part_extends_no_trust() {
    let (service, store) = two_nodes();
    let (keys, other) = (service.keys(), &service.nodes[1]);
    let issued = service.issue().await;
    let bob = owner("acme", "bob");
    let of_bob = keyward::NewKey::new(&bob, "ci").unwrap();
    let _ = keys.issue(of_bob, &service.actor).await.unwrap();
    other.catch_up().await.unwrap();
    other.shutdown().await.unwrap();
    assert_eq!(says(other, &issued).await, "ok");
    for _ in 0..1_000 {
        keys.account_changed(&bob).await.unwrap();
    }
    keys.revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(SECOND * 4);

    store.hold_feed();
    let read = store.feed_reads();
    let reading = tokio::spawn({
        let service = service.clone();
        async move { service.nodes[1].catch_up().await }
    });
    store.release_feed(1);
    while store.feed_reads() < read + 2 {
        tokio::task::yield_now().await;
    }
    // The first page is invalidated. The second one names the key, and is held.
    assert_eq!(says(other, &issued).await, "ok", "the bound has not passed");
    service.clock.advance(SECOND + MICRO);
    assert_eq!(says(other, &issued).await, "revoked");
    store.release_feed(1);
    reading.await.unwrap().unwrap();
}

const BOUND: Duration = Duration::from_secs(5);
