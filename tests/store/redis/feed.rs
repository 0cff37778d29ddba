//! The change feed while the subscription, the connection or the server goes.

use std::{collections::BTreeSet, time::Duration};

use keyward::{
    KeyId, KeyStore,
    store::{FeedMode, StoreError},
};
use tokio::time::timeout;

use super::{connect, service};
use crate::support::servers::{eventually, redis::Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_when_subscriptions_are_killed() {
    let Some(server) = Options::default().durable().start() else { return };
    let (reader, writer) = (connect(server.address()).await, connect(server.address()).await);
    let service = service(writer);
    let mut cursor = reader.changes(None).await.unwrap().cursor;
    let kill = || server.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);

    let mut told = BTreeSet::new();
    for n in 0..30 {
        let waiting = tokio::spawn({
            let reader = reader.clone();
            async move { reader.wait_for_changes(cursor, Duration::from_secs(3_600)).await }
        });
        // Before, or most likely during the change, or not at all.
        if n % 3 == 0 {
            kill();
        }
        let issued = service.issue().await;
        if n % 3 == 1 {
            kill();
        }
        let _feed = soon(waiting).await.unwrap().unwrap();
        told.extend(follow(&reader, &mut cursor).await.unwrap());
        assert!(told.contains(&issued.key.id), "change {n} was missed");
    }
}

#[tokio::test]
async fn a_feed_is_pushed_only_while_its_subscription_lives() {
    let Some(server) = Options::default().durable().start() else { return };
    let store = connect(server.address()).await;
    let end = store.changes(None).await.unwrap().cursor;
    let feed = async || store.wait_for_changes(end, Duration::from_millis(1)).await.unwrap();
    eventually("it is subscribed", async || feed().await == FeedMode::Pushed).await;
    // Nobody can subscribe any more, and who has is thrown out.
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
    let told = follow(&store, &mut end.clone()).await.unwrap();
    assert_eq!(told, BTreeSet::from([issued.key.id]));
    server.call(&["ACL", "SETUSER", "default", "+subscribe"]);
    let end = store.changes(None).await.unwrap().cursor;
    let feed = async || store.wait_for_changes(end, Duration::from_millis(1)).await.unwrap();
    eventually("it is subscribed again", async || feed().await == FeedMode::Pushed).await;
}

/// A user of Redis 7 may publish nothing that he is not told to.
#[tokio::test]
async fn where_publishing_is_forbidden_changes_are_made_and_the_feed_is_polled() {
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
    let told = follow(&store, &mut cursor).await.unwrap();
    assert_eq!(told, BTreeSet::from([issued.key.id]));
    assert_eq!(
        store.wait_for_changes(cursor, Duration::from_millis(1)).await.unwrap(),
        FeedMode::Polled
    );
}

/// What waits is woken by what another node does, without looking in between.
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

/// A waiting node looks by itself, too, now and then: this is what makes it fast.
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
    assert_eq!(published(), 4, "of all, too");
    super::revoke(&service, &issued, "over").await.unwrap();
    assert_eq!(published(), 4, "nothing has changed");
}

/// What would otherwise wait for an hour.
async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), waiting).await.expect("nobody was woken")
}

async fn follow(
    store: &(impl KeyStore + ?Sized),
    cursor: &mut u64,
) -> Result<BTreeSet<KeyId>, StoreError> {
    let mut told = BTreeSet::new();
    loop {
        let page = store.changes(Some(*cursor)).await?;
        assert!(!page.missed, "the server has lost nothing");
        *cursor = page.cursor;
        told.extend(page.keys);
        if !page.more {
            return Ok(told);
        }
    }
}
