use std::{sync::Arc, time::Duration};

use keyward::{
    ApiKeys, KeyStore, VerifyError, VerifyRequest,
    manage::Issued,
    verify::{CacheOptions, FeedState},
};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{MICRO, Service, stores};

/// Two nodes on one store, the second behind a wrapper that can be cut off. It has the key cached.
async fn two_nodes(options: CacheOptions) -> (Service, FaultyStore, Issued) {
    let store = stores::memory().remove(0);
    let wrapper = FaultyStore::new(store.clone());
    let handles: Vec<Arc<dyn KeyStore>> = vec![store, Arc::new(wrapper.clone())];
    let service = Service::with(handles, |builder| builder.cache(options.clone()));
    let issued = service.issue().await;
    service.nodes[1].catch_up().await.unwrap();
    for _ in 0..2 {
        assert_eq!(says(&service.nodes[1], &issued).await, "ok");
    }
    (service, wrapper, issued)
}

async fn says(node: &ApiKeys, issued: &Issued) -> &'static str {
    match node.verify(issued.secret.expose(), &VerifyRequest::new()).await {
        Ok(_) => "ok",
        Err(VerifyError::Denied(denied)) => denied.reason().as_str(),
        Err(VerifyError::Limited(_)) => "limited",
        Err(VerifyError::Unavailable(_)) => "unavailable",
    }
}

/// Waits until the follower has noticed.
async fn feed_becomes(node: &ApiKeys, state: FeedState) {
    let noticed = tokio::time::timeout(Duration::from_secs(30), async {
        while node.health().feed != state {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(noticed.await.is_ok(), "the feed never was {state:?}, but {:?}", node.health());
}

#[tokio::test]
async fn with_the_feed_failing_or_hanging_no_stale_key_is_accepted_after_the_bound() {
    for mood in [Fault::Unavailable, Fault::Hangs] {
        let (service, wrapper, issued) = two_nodes(CacheOptions::default()).await;
        let other = &service.nodes[1];
        wrapper.set_feed_fault(mood);
        // What was under way before the cut may still tell: from here on nothing does.
        feed_becomes(other, FeedState::Down).await;
        let staleness = other.health().staleness.unwrap();
        service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
        assert_eq!(says(other, &issued).await, "ok", "within the bound it cannot know");
        service.clock.advance(BOUND - staleness);
        assert_eq!(says(other, &issued).await, "ok", "until its very end");
        service.clock.advance(MICRO);
        assert_eq!(says(other, &issued).await, "revoked", "{mood:?}");
    }
}

#[tokio::test]
async fn with_the_store_down_a_stale_key_is_unavailable_and_never_denied() {
    let (service, wrapper, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    wrapper.set_feed_fault(Fault::Unavailable);
    wrapper.set_find_fault(Fault::Unavailable);
    assert_eq!(says(other, &issued).await, "ok");
    service.clock.advance(BOUND + MICRO);
    assert_eq!(says(other, &issued).await, "unavailable");
    wrapper.set_feed_fault(Fault::None);
    wrapper.set_find_fault(Fault::None);
    assert_eq!(says(other, &issued).await, "ok");
}

#[tokio::test]
async fn a_stale_entry_is_not_served_after_the_feed_recovers() {
    let (service, wrapper, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    wrapper.set_feed_fault(Fault::Unavailable);
    feed_becomes(other, FeedState::Down).await;
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(BOUND * 100);
    wrapper.set_feed_fault(Fault::None);
    other.catch_up().await.unwrap();
    assert_eq!(says(other, &issued).await, "revoked");
}

#[tokio::test]
async fn a_node_that_missed_feed_entries_clears_its_cache() {
    let (service, wrapper, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    wrapper.set_feed_fault(Fault::Unavailable);
    feed_becomes(other, FeedState::Down).await;
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    // The entry is removed before this node has read it.
    let later = service.now().after(BOUND * 2);
    assert!(wrapper.purge_changes(later).await.unwrap() > 0);
    wrapper.set_feed_fault(Fault::None);
    other.catch_up().await.unwrap();
    assert_eq!(says(other, &issued).await, "revoked");
}

#[tokio::test]
async fn a_strict_node_uses_no_cached_key_while_the_feed_is_down() {
    let (service, wrapper, issued) = two_nodes(CacheOptions::default().strict()).await;
    let other = &service.nodes[1];
    wrapper.set_feed_fault(Fault::Unavailable);
    wrapper.set_find_fault(Fault::Unavailable);
    feed_becomes(other, FeedState::Down).await;
    assert_eq!(says(other, &issued).await, "unavailable");
    wrapper.set_find_fault(Fault::None);
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    assert_eq!(says(other, &issued).await, "revoked", "the store itself is asked");
}

#[tokio::test]
async fn an_account_is_refreshed_after_the_bound_without_a_notification() {
    let (service, wrapper, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    let asked = wrapper.finds();
    service.host.set(&service.owner, |account| account.suspended = true);
    service.clock.advance(BOUND);
    assert_eq!(says(other, &issued).await, "ok");
    service.clock.advance(MICRO);
    other.catch_up().await.unwrap();
    assert_eq!(says(other, &issued).await, "owner_suspended");
    assert_eq!(wrapper.finds(), asked, "the key itself was not read again");
}

#[tokio::test]
async fn health_reports_the_feed_state_and_the_cache_size() {
    let (service, wrapper, _issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    feed_becomes(other, FeedState::Pushed).await;
    let health = other.health();
    assert_eq!((health.cached_keys, health.cached_unknown), (1, 0));
    assert!(health.staleness.is_some());
    wrapper.set_feed_fault(Fault::Unavailable);
    feed_becomes(other, FeedState::Down).await;
    wrapper.set_feed_fault(Fault::None);
    feed_becomes(other, FeedState::Pushed).await;
    other.shutdown().await.unwrap();
    feed_becomes(other, FeedState::Idle).await;
    assert_eq!(other.health().unwritten_uses, 0);
}

#[tokio::test]
async fn a_key_with_a_refreshed_account_counts_once_in_unwritten_uses() {
    let (service, _, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    other.flush().await.unwrap();
    assert_eq!(says(other, &issued).await, "ok");
    service.clock.advance(BOUND + MICRO);
    other.catch_up().await.unwrap();
    assert_eq!(says(other, &issued).await, "ok");
    assert_eq!(other.health().unwritten_uses, 1);
}

#[tokio::test]
async fn a_shutdown_writes_uses_and_stops_the_background_tasks() {
    let (service, _, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    other.shutdown().await.unwrap();
    let stored = service.stored(issued.key.id).await;
    assert_eq!(stored.last_used_at, Some(service.now()));
    assert_eq!(says(other, &issued).await, "ok");
    service.clock.advance(BOUND + MICRO);
    assert_eq!(says(other, &issued).await, "ok", "it asks the store");
    assert_eq!(other.health().feed, FeedState::Idle);
}

#[tokio::test]
async fn without_a_cache_every_verification_queries_the_store() {
    let wrapper = FaultyStore::new(stores::memory().remove(0));
    let service = Service::with(vec![Arc::new(wrapper.clone())], |builder| builder.no_cache());
    let issued = service.issue().await;
    for _ in 0..5 {
        assert_eq!(says(service.keys(), &issued).await, "ok");
    }
    assert_eq!(wrapper.finds(), 5);
    assert_eq!(service.keys().health().feed, FeedState::Idle);
}

const BOUND: Duration = Duration::from_secs(5);
