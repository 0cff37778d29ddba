use std::{sync::Arc, time::Duration};

use keyward::{
    ApiKeys, KeyStore, VerifyError, VerifyRequest,
    manage::Issued,
    store::ChangeFeed,
    verify::{CacheOptions, FeedState},
};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{MICRO, Service, stores};

/// Two nodes on one store. The second uses a `FaultyStore` and has the key cached.
async fn two_nodes(options: CacheOptions) -> (Service, FaultyStore, Issued) {
    let store = stores::memory().remove(0);
    let faulty = FaultyStore::new(store.clone());
    let handles: Vec<Arc<dyn KeyStore>> = vec![store, Arc::new(faulty.clone())];
    let service = Service::with(handles, |builder| builder.cache(options.clone()));
    let issued = service.issue().await;
    service.nodes[1].catch_up().await.unwrap();
    for _ in 0..2 {
        assert_eq!(outcome(&service.nodes[1], &issued).await, "ok");
    }
    (service, faulty, issued)
}

async fn outcome(node: &ApiKeys, issued: &Issued) -> &'static str {
    match node.verify(issued.secret.expose(), &VerifyRequest::new()).await {
        Ok(_) => "ok",
        Err(VerifyError::Denied(denied)) => denied.reason().as_str(),
        Err(VerifyError::Limited(_)) => "limited",
        Err(VerifyError::Unavailable(_)) => "unavailable",
    }
}

/// Waits until the node reports this feed state.
async fn wait_for_feed_state(node: &ApiKeys, state: FeedState) {
    let reached = tokio::time::timeout(Duration::from_secs(30), async {
        while node.health().feed != state {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(reached.await.is_ok(), "the feed is not {state:?}: {:?}", node.health());
}

#[tokio::test]
async fn with_the_feed_failing_or_hanging_no_stale_key_is_accepted_after_the_bound() {
    for fault in [Fault::Unavailable, Fault::Hangs] {
        let (service, faulty, issued) = two_nodes(CacheOptions::default()).await;
        let other = &service.nodes[1];
        faulty.set_feed_fault(fault);
        // A read of the feed that began before the fault may still complete until here.
        wait_for_feed_state(other, FeedState::Down).await;
        let staleness = other.health().staleness.unwrap();
        service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
        assert_eq!(outcome(other, &issued).await, "ok", "the change is not known yet");
        service.clock.advance(BOUND - staleness);
        assert_eq!(outcome(other, &issued).await, "ok", "until the end of the bound");
        service.clock.advance(MICRO);
        assert_eq!(outcome(other, &issued).await, "revoked", "{fault:?}");
    }
}

#[tokio::test]
async fn with_the_store_down_a_stale_key_is_unavailable_and_never_denied() {
    let (service, faulty, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    faulty.set_feed_fault(Fault::Unavailable);
    faulty.set_find_fault(Fault::Unavailable);
    assert_eq!(outcome(other, &issued).await, "ok");
    service.clock.advance(BOUND + MICRO);
    assert_eq!(outcome(other, &issued).await, "unavailable");
    faulty.set_feed_fault(Fault::None);
    faulty.set_find_fault(Fault::None);
    assert_eq!(outcome(other, &issued).await, "ok");
}

#[tokio::test]
async fn a_stale_entry_is_not_served_after_the_feed_recovers() {
    let (service, faulty, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    faulty.set_feed_fault(Fault::Unavailable);
    wait_for_feed_state(other, FeedState::Down).await;
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(BOUND * 100);
    faulty.set_feed_fault(Fault::None);
    other.catch_up().await.unwrap();
    assert_eq!(outcome(other, &issued).await, "revoked");
}

#[tokio::test]
async fn a_node_that_missed_feed_entries_clears_its_cache() {
    let (service, faulty, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    faulty.set_feed_fault(Fault::Unavailable);
    wait_for_feed_state(other, FeedState::Down).await;
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    // The feed entry is purged before this node has read it.
    let later = service.now().after(BOUND * 2);
    assert!(faulty.purge_changes(later).await.unwrap() > 0);
    faulty.set_feed_fault(Fault::None);
    other.catch_up().await.unwrap();
    assert_eq!(outcome(other, &issued).await, "revoked");
}

#[tokio::test]
async fn a_strict_node_uses_no_cached_key_while_the_feed_is_down() {
    let (service, faulty, issued) = two_nodes(CacheOptions::default().strict()).await;
    let other = &service.nodes[1];
    faulty.set_feed_fault(Fault::Unavailable);
    faulty.set_find_fault(Fault::Unavailable);
    wait_for_feed_state(other, FeedState::Down).await;
    assert_eq!(outcome(other, &issued).await, "unavailable");
    faulty.set_find_fault(Fault::None);
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    assert_eq!(outcome(other, &issued).await, "revoked", "the store is queried");
}

#[tokio::test]
async fn an_account_is_refreshed_after_the_bound_without_a_notification() {
    let (service, faulty, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    let finds = faulty.finds();
    service.host.set(&service.owner, |account| account.suspended = true);
    service.clock.advance(BOUND);
    assert_eq!(outcome(other, &issued).await, "ok");
    service.clock.advance(MICRO);
    other.catch_up().await.unwrap();
    assert_eq!(outcome(other, &issued).await, "owner_suspended");
    assert_eq!(faulty.finds(), finds, "the key itself was not read again");
}

#[tokio::test]
async fn health_reports_the_feed_state_and_the_cache_size() {
    let (service, faulty, _issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    wait_for_feed_state(other, FeedState::Pushed).await;
    let health = other.health();
    assert_eq!((health.cached_keys, health.cached_unknown), (1, 0));
    assert!(health.staleness.is_some());
    faulty.set_feed_fault(Fault::Unavailable);
    wait_for_feed_state(other, FeedState::Down).await;
    faulty.set_feed_fault(Fault::None);
    wait_for_feed_state(other, FeedState::Pushed).await;
    other.shutdown().await.unwrap();
    wait_for_feed_state(other, FeedState::Stopped).await;
    assert_eq!(other.health().unwritten_uses, 0);
}

#[tokio::test]
async fn a_key_with_a_refreshed_account_counts_once_in_unwritten_uses() {
    let (service, _, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    other.flush().await.unwrap();
    assert_eq!(outcome(other, &issued).await, "ok");
    service.clock.advance(BOUND + MICRO);
    other.catch_up().await.unwrap();
    assert_eq!(outcome(other, &issued).await, "ok");
    assert_eq!(other.health().unwritten_uses, 1);
}

#[tokio::test]
async fn a_shutdown_writes_uses_and_stops_the_background_tasks() {
    let (service, _, issued) = two_nodes(CacheOptions::default()).await;
    let other = &service.nodes[1];
    other.shutdown().await.unwrap();
    let stored = service.stored(issued.key.id).await;
    assert_eq!(stored.last_used_at, Some(service.now()));
    assert_eq!(outcome(other, &issued).await, "ok");
    service.clock.advance(BOUND + MICRO);
    assert_eq!(outcome(other, &issued).await, "ok", "it queries the store");
    assert_eq!(other.health().feed, FeedState::Stopped);
}

#[tokio::test]
async fn a_node_that_was_shut_down_keeps_the_bound_and_reports_it() {
    for strict in [false, true] {
        let options = CacheOptions::default();
        let options = if strict { options.strict() } else { options };
        let (service, _, issued) = two_nodes(options).await;
        let other = &service.nodes[1];
        other.shutdown().await.unwrap();
        assert_eq!(other.health().feed, FeedState::Stopped);
        service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
        service.clock.advance(BOUND);
        let expected = if strict { "revoked" } else { "ok" };
        assert_eq!(outcome(other, &issued).await, expected, "within the bound");
        service.clock.advance(MICRO);
        assert_eq!(outcome(other, &issued).await, "revoked");
        // A reading on request does not make it a node that follows the feed.
        other.catch_up().await.unwrap();
        assert_eq!(other.health().feed, FeedState::Stopped);
    }
}

#[tokio::test]
async fn without_a_cache_every_verification_queries_the_store() {
    let faulty = FaultyStore::new(stores::memory().remove(0));
    let service = Service::with(vec![Arc::new(faulty.clone())], |builder| builder.no_cache());
    let issued = service.issue().await;
    for _ in 0..5 {
        assert_eq!(outcome(service.keys(), &issued).await, "ok");
    }
    assert_eq!(faulty.finds(), 5);
    assert_eq!(service.keys().health().feed, FeedState::Idle);
}

const BOUND: Duration = Duration::from_secs(5);
