//! The change feed while its subscription is lost or forbidden.

use std::{collections::BTreeSet, time::Duration};

use keyward::{
    KeyId, KeyStore,
    store::{ChangeFeed, FeedMode, StoreError},
};
use tokio::time::timeout;

use super::{connect, service};
use crate::support::servers::{eventually, redis::Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_missed_when_subscriptions_are_killed() {
    let Some(server) = Options::default().durable().start() else { return };
    let (reader, writer) = (connect(server.address()).await, connect(server.address()).await);
    let service = service(writer);
    let mut cursor = reader.changes(None).await.unwrap().cursor;
    let kill = || server.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);

    let mut received = BTreeSet::new();
    for n in 0..30 {
        let waiting = tokio::spawn({
            let reader = reader.clone();
            async move { reader.wait_for_changes(cursor, Duration::from_secs(3_600)).await }
        });
        // The subscription is killed before the change, right after it, or not at all.
        if n % 3 == 0 {
            kill();
        }
        let issued = service.issue().await;
        if n % 3 == 1 {
            kill();
        }
        let _feed = soon(waiting).await.unwrap().unwrap();
        received.extend(follow(&reader, &mut cursor).await.unwrap());
        assert!(received.contains(&issued.key.id), "change {n} was missed");
    }
}

#[tokio::test]
async fn a_feed_is_pushed_only_while_its_subscription_lives() {
    let Some(server) = Options::default().durable().start() else { return };
    let store = connect(server.address()).await;
    let end = store.changes(None).await.unwrap().cursor;
    let feed = async || store.wait_for_changes(end, Duration::from_millis(1)).await.unwrap();
    eventually("it is subscribed", async || feed().await == FeedMode::Pushed).await;
    // Forbids subscriptions and kills the existing one.
    server.call(&["ACL", "SETUSER", "default", "-subscribe"]);
    server.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("its end is noticed", async || feed().await == FeedMode::Polled).await;
    let service = service(store.clone());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for_changes(end, Duration::from_secs(3_600)).await }
    });
    let issued = service.issue().await;
    assert_eq!(soon(waiting).await.unwrap().unwrap(), FeedMode::Polled);
    let received = follow(&store, &mut end.clone()).await.unwrap();
    assert_eq!(received, BTreeSet::from([issued.key.id]));
    server.call(&["ACL", "SETUSER", "default", "+subscribe"]);
    let end = store.changes(None).await.unwrap().cursor;
    let feed = async || store.wait_for_changes(end, Duration::from_millis(1)).await.unwrap();
    eventually("it is subscribed again", async || feed().await == FeedMode::Pushed).await;
}

/// A user of Redis 7 may only publish to allowed channels.
#[tokio::test]
async fn without_permission_to_publish_changes_succeed_and_the_feed_is_polled() {
    let Some(server) = Options::default().durable().start() else { return };
    server.call(&["ACL", "SETUSER", "default", "resetchannels"]);
    let store = connect(server.address()).await;
    let mut cursor = store.changes(None).await.unwrap().cursor;
    let service = service(store.clone());
    let issued = service.issue().await;
    super::revoke(&service, &issued, "over").await.unwrap();
    assert_eq!(
        store.wait_for_changes(cursor, Duration::from_secs(3_600)).await.unwrap(),
        FeedMode::Polled
    );
    let received = follow(&store, &mut cursor).await.unwrap();
    assert_eq!(received, BTreeSet::from([issued.key.id]));
    assert_eq!(
        store.wait_for_changes(cursor, Duration::from_millis(1)).await.unwrap(),
        FeedMode::Polled
    );
}

/// A waiting node is woken by a change of another node, without polling.
#[tokio::test]
async fn a_change_of_another_node_is_pushed() {
    let Some(server) = Options::default().durable().start() else { return };
    let (reader, writer) = (connect(server.address()).await, connect(server.address()).await);
    let end = reader.changes(None).await.unwrap().cursor;
    eventually("it is subscribed", async || {
        reader.wait_for_changes(end, Duration::from_millis(1)).await.unwrap() == FeedMode::Pushed
    })
    .await;
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait_for_changes(end, Duration::from_secs(3_600)).await }
    });
    let _ = service(writer).issue().await;
    assert_eq!(soon(waiting).await.unwrap().unwrap(), FeedMode::Pushed);
}

/// Publishing makes the feed fast; without it, a waiting node would only notice at its next poll.
#[tokio::test]
async fn each_change_is_published_once() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service(connect(server.address()).await);
    let published = || {
        let stats = server.call(&["INFO", "commandstats"]);
        let calls = stats.text().split("cmdstat_publish:calls=").nth(1);
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse::<u32>().unwrap())
    };
    assert_eq!(published(), 0);
    let issued = service.issue().await;
    assert_eq!(published(), 1, "an issue");
    let _ = service.issue().await;
    super::revoke(&service, &issued, "over").await.unwrap();
    assert_eq!(published(), 3, "a revocation");
    service.keys().revoke_all(&service.owner, "all", &service.actor).await.unwrap();
    assert_eq!(published(), 4, "a revocation of all keys");
    super::revoke(&service, &issued, "over").await.unwrap();
    assert_eq!(published(), 4, "a repeated revocation changes nothing");
}

/// Awaits a call that would otherwise wait for an hour.
async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), waiting).await.expect("the waiting call was not woken")
}

async fn follow(
    store: &(impl KeyStore + ?Sized),
    cursor: &mut u64,
) -> Result<BTreeSet<KeyId>, StoreError> {
    let mut received = BTreeSet::new();
    loop {
        let page = store.change_feed().unwrap().changes(Some(*cursor)).await?;
        assert!(!page.missed, "the server has lost nothing");
        *cursor = page.cursor;
        received.extend(page.keys);
        if !page.more {
            return Ok(received);
        }
    }
}
