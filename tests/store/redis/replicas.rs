//! Changes that wait for replicas.

use std::sync::Arc;

use keyward::{AuditQuery, ErrorKind, KeyStore, Limits, RedisStore, store::ChangeFeed};
use tokio::task::JoinSet;

use super::{REVOKED, impatient, options, revoke, service, verify};
use crate::cache::faulty_store::{Fault, FaultyStore};
use crate::support::{
    Service,
    servers::{
        eventually,
        redis::{Options, Server},
    },
};

fn a_pair() -> Option<(Server, Server)> {
    let primary = Options::default().durable().tcp().start()?;
    let replica = Options::default().durable().tcp().replica_of(&primary).start()?;
    Some((primary, replica))
}

#[tokio::test]
async fn a_revocation_without_replicas_is_unconfirmed_and_takes_effect_immediately() {
    let Some((primary, replica)) = a_pair() else { return };
    let issuing = service(options().connect(&primary.url()).await.unwrap());
    let (issued, late) = (issuing.issue().await, issuing.issue().await);
    let waiting = service(impatient().replicas(1).connect(&primary.url()).await.unwrap());

    replica.freeze();
    let error = revoke(&waiting, &issued, "leaked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    assert_eq!(
        verify(&waiting, &issued).await.unwrap_err(),
        REVOKED,
        "it is revoked on the primary"
    );
    // Repeated, it finds the key revoked, and no replica has confirmed that.
    let error = revoke(&waiting, &issued, "leaked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    // WAIT only waits for writes of its own connection, so the script must write something. Redis 7.0
    // waits for more than documented, so this test reads the value that is written.
    let barriers = || primary.call(&["HGET", "{keyward}meta", "barrier"]).text().to_owned();
    assert_eq!(barriers(), "1");
    let all = waiting.keys().revoke_all(&waiting.owner, "all", &waiting.actor).await;
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Unconfirmed);
    let all = waiting.keys().revoke_all(&waiting.owner, "all", &waiting.actor).await;
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Unconfirmed, "with nothing left to revoke");
    assert_eq!(barriers(), "2");
    assert_eq!(verify(&waiting, &late).await.unwrap_err(), REVOKED);

    replica.thaw();
    eventually("a repetition is confirmed", async || {
        revoke(&waiting, &issued, "leaked").await.is_ok()
    })
    .await;
    let log = waiting.keys().events(AuditQuery::new(&waiting.owner)).await.unwrap();
    let revoked = log.iter().filter(|event| event.reason.as_deref() == Some("leaked"));
    assert_eq!(revoked.count(), 1, "repeated, it is still one revocation");
}

#[tokio::test]
async fn an_unconfirmed_revocation_is_removed_from_the_cache_immediately() {
    let Some((primary, replica)) = a_pair() else { return };
    let store = impatient().replicas(1).connect(&primary.url()).await.unwrap();
    // The change feed would invalidate the key during the wait for the replica.
    let store = FaultyStore::new(Arc::new(store));
    let caching = Service::new(vec![Arc::new(store.clone()) as Arc<dyn KeyStore>]);
    let issued = caching.issue().await;
    eventually("it is answered from the cache", async || {
        let finds = store.finds();
        assert!(verify(&caching, &issued).await.is_ok());
        store.finds() == finds
    })
    .await;
    store.set_feed_fault(Fault::Hangs);
    replica.freeze();
    let error = revoke(&caching, &issued, "leaked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    assert_eq!(verify(&caching, &issued).await.unwrap_err(), REVOKED);
}

#[tokio::test]
async fn changes_wait_for_replicas_and_reads_do_not() {
    let Some((primary, replica)) = a_pair() else { return };
    let store = Arc::new(options().replicas(1).connect(&primary.url()).await.unwrap());
    let waiting = service(RedisStore::clone(&store));
    let issued = waiting.issue().await;

    replica.freeze();
    let (id, owner) = (issued.key.id, waiting.owner.clone());
    let revoking = tokio::spawn({
        let (keys, by) = (waiting.keys().clone(), waiting.actor.clone());
        async move { keys.revoke(&owner, id, "leaked", &by).await }
    });
    // While it waits, it has taken effect, and other calls can read.
    eventually("the key is revoked on the primary", async || {
        verify(&waiting, &issued).await.is_err_and(|verdict| verdict == REVOKED)
    })
    .await;
    assert!(store.changes(None).await.is_ok());
    assert!(!revoking.is_finished(), "no replica has confirmed it");
    replica.thaw();
    revoking.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_connections_queue_and_end_in_time() {
    let Some((primary, replica)) = a_pair() else { return };
    let waiting = Arc::new(service(impatient().replicas(1).connect(&primary.url()).await.unwrap()));
    waiting.host.limit(&waiting.owner, Limits::default().max_active_keys(MANY as u32));
    let mut issued = Vec::new();
    for _ in 0..MANY {
        issued.push(waiting.issue().await);
    }
    replica.freeze();
    let mut tasks = JoinSet::new();
    for issued in issued {
        let waiting = waiting.clone();
        tasks.spawn(async move {
            let error = revoke(&waiting, &issued, "leaked").await.unwrap_err();
            (issued, error)
        });
    }
    for (issued, error) in tasks.join_all().await {
        let there = verify(&waiting, &issued).await;
        match error.kind() {
            ErrorKind::Unconfirmed => assert_eq!(there.unwrap_err(), REVOKED),
            // It got a connection so late that the answer did not arrive in time.
            ErrorKind::OutcomeUnknown => {}
            // It got no connection in time, and nothing was sent.
            ErrorKind::Unavailable => assert!(there.is_ok(), "{error}"),
            other => panic!("{other:?}: {error}"),
        }
    }
    replica.thaw();
    eventually("changes are confirmed again", async || {
        waiting.keys().revoke_all(&waiting.owner, "all", &waiting.actor).await.is_ok()
    })
    .await;
}

/// Several times the number of exclusive connections of a store.
const MANY: usize = 80;
