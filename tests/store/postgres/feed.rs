//! The change feed while its listener is lost: the loss is noticed and reported, the feed is polled,
//! and no change is missed.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keyward::{KeyId, KeyStore, store::FeedMode};
use tokio::task::JoinHandle;

use super::{DEADLINE, Stage, connect, connect_store, ended, patient, until};
use crate::support::{Service, servers::postgres::Options, stores};

/// A node that follows the feed as one with a cache does.
pub struct Follower {
    followed: Arc<Followed>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Followed {
    keys: Mutex<HashSet<KeyId>>,
    feed: Mutex<Option<FeedMode>>,
    over: AtomicBool,
}

impl Follower {
    pub async fn new(store: Arc<dyn KeyStore>) -> Self {
        let followed = Arc::new(Followed::default());
        let mut cursor = store.change_feed().unwrap().changes(None).await.unwrap().cursor;
        let shared = followed.clone();
        let task = tokio::spawn(async move {
            while !shared.over.load(Ordering::Relaxed) {
                let feed = ended(
                    store
                        .change_feed()
                        .unwrap()
                        .wait_for_changes(cursor, Duration::from_millis(200)),
                )
                .await
                .unwrap();
                let changes = store.change_feed().unwrap().changes(Some(cursor)).await.unwrap();
                assert!(!changes.missed);
                cursor = changes.cursor;
                shared.keys.lock().unwrap().extend(changes.keys);
                *shared.feed.lock().unwrap() = Some(feed);
            }
        });
        Self { followed, task }
    }

    /// Waits until the store reports this mode, while keys are issued.
    pub async fn reports(&self, feed: FeedMode, stage: &Stage, issued: &mut HashSet<KeyId>) {
        *self.followed.feed.lock().unwrap() = None;
        until("the feed has the expected mode", async || {
            // May fail: a connection may not be back in the pool yet, and a new one may be rejected.
            let new = stage.service.new_key();
            let key = stage.service.keys().issue(new, &stage.service.actor).await.ok()?.key;
            issued.insert(key.id);
            (*self.followed.feed.lock().unwrap() == Some(feed)).then_some(())
        })
        .await;
    }

    /// Waits until the changes of all keys were received.
    pub async fn received(self, issued: &HashSet<KeyId>) {
        until("all changes are received", async || {
            issued.is_subset(&self.followed.keys.lock().unwrap()).then_some(())
        })
        .await;
        self.followed.over.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

const LISTENERS: &str =
    "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_listener_is_replaced_and_no_change_is_missed() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    let follower = Follower::new(connect(patient(), stage.database.url()).await).await;
    let mut issued = HashSet::new();
    for _ in 0..3 {
        follower.reports(FeedMode::Pushed, &stage, &mut issued).await;
        let ended = stage.sql(&format!("SELECT pg_terminate_backend(pid) {LISTENERS}"));
        assert_eq!(ended, "t", "there is one listener");
        follower.reports(FeedMode::Polled, &stage, &mut issued).await;
    }
    follower.reports(FeedMode::Pushed, &stage, &mut issued).await;
    follower.received(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_listener_is_rejected_the_feed_is_polled_and_no_change_is_missed() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    // One connection, which is open before new ones are rejected.
    let store = connect_store(patient().connections(1), stage.database.url()).await;
    let follower = Follower::new(Arc::new(store)).await;
    let mut issued = HashSet::new();
    follower.reports(FeedMode::Pushed, &stage, &mut issued).await;
    let allow = |allowed: bool| {
        let name = stage.database.name();
        let sql = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {allowed}");
        stage.server.cluster().sql(&sql).unwrap();
    };
    allow(false);
    let listeners =
        LISTENERS.replace("current_database()", &format!("'{}'", stage.database.name()));
    let end = format!("SELECT pg_terminate_backend(pid) {listeners}");
    assert_eq!(stage.server.cluster().sql(&end).unwrap(), "t");
    for _ in 0..3 {
        follower.reports(FeedMode::Polled, &stage, &mut issued).await;
    }
    allow(true);
    follower.reports(FeedMode::Pushed, &stage, &mut issued).await;
    follower.received(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_listener_is_noticed_and_no_change_is_missed() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    // A listener that does not answer for this long is frozen: also a slow machine answers sooner.
    let store = connect(patient().timeout(DEADLINE / 10), stage.database.url()).await;
    let mut cursor = store.change_feed().unwrap().changes(None).await.unwrap().cursor;
    let mut wait = async |mode, meanwhile: &mut dyn FnMut()| {
        until("the feed has the expected mode", async || {
            meanwhile();
            match store
                .change_feed()
                .unwrap()
                .wait_for_changes(cursor, Duration::from_millis(100))
                .await
            {
                Ok(found) if found == mode => Some(()),
                _ => None,
            }
        })
        .await;
        let key = stage.service.issue().await.key.id;
        until("the change is received", async || {
            let changes = store.change_feed().unwrap().changes(Some(cursor)).await.ok()?;
            cursor = changes.cursor;
            changes.keys.contains(&key).then_some(())
        })
        .await;
    };
    wait(FeedMode::Pushed, &mut || ()).await;
    // The connection stays open, but nothing arrives on it any more. If the listener is replaced for another reason at
    // this moment, the next one is frozen as well.
    let mut frozen = HashSet::new();
    let mut freeze = || {
        for pid in stage.sql(&format!("SELECT pid {LISTENERS}")).lines() {
            if frozen.insert(pid.to_owned()) {
                super::outages::signal("STOP", pid);
            }
        }
    };
    wait(FeedMode::Polled, &mut freeze).await;
    assert!(!frozen.is_empty(), "a listener was frozen");
    wait(FeedMode::Pushed, &mut || ()).await;
    frozen.iter().for_each(|pid| super::outages::signal("CONT", pid));
}

/// After a failover to a lagging standby, or with a restored backup, new changes get the numbers of
/// lost ones.
#[tokio::test]
async fn lost_changes_are_reported_as_missed() {
    let Some(database) = stores::postgres().await else { return };
    let sql = |statement: &str| drop(database.sql(statement).unwrap());
    let store = connect(patient(), database.url()).await;
    let service = Service::uncached(vec![store.clone()]);
    let _ = service.issue().await;
    let kept = store.change_feed().unwrap().changes(None).await.unwrap().cursor;
    sql("CREATE TABLE changes AS TABLE keyward_changes; CREATE TABLE feed AS TABLE keyward_feed");
    let _ = service.issue().await;
    let _ = service.issue().await;
    let lost = store.change_feed().unwrap().changes(None).await.unwrap().cursor;
    assert!(!store.change_feed().unwrap().changes(Some(kept)).await.unwrap().missed);
    sql("DELETE FROM keyward_changes; INSERT INTO keyward_changes TABLE changes; \
         DELETE FROM keyward_feed; INSERT INTO keyward_feed TABLE feed");
    // With fewer new changes than lost ones, with as many, and with more.
    for n in 0..4 {
        assert!(
            store.change_feed().unwrap().changes(Some(lost)).await.unwrap().missed,
            "{n} changes later"
        );
        assert!(
            !store.change_feed().unwrap().changes(Some(kept)).await.unwrap().missed,
            "{n} changes later"
        );
        let waited =
            store.change_feed().unwrap().wait_for_changes(lost, Duration::from_secs(3_600));
        tokio::time::timeout(super::DEADLINE, waited)
            .await
            .expect("it returns immediately")
            .unwrap();
        let _ = service.issue().await;
    }
}
