//! Changes that wait for replicas.

use std::sync::Arc;

use keyward::{AuditQuery, ErrorKind, KeyStore, Limits, RedisStore};
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
async fn a_revocation_that_no_replica_has_is_unconfirmed_and_works_at_once() {
    let Some((primary, replica)) = a_pair() else { return };
    let issuing = service(options().connect(&primary.url()).await.unwrap());
    let (issued, late) = (issuing.issue().await, issuing.issue().await);
    let waiting = service(impatient().replicas(1).connect(&primary.url()).await.unwrap());

    replica.freeze();
    let error = revoke(&waiting, &issued, "leaked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    assert_eq!(verify(&waiting, &issued).await.unwrap_err(), REVOKED, "here, it is revoked");
    // What is repeated finds it done, and still nobody has confirmed it.
    let error = revoke(&waiting, &issued, "leaked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    // To WAIT counts what was written on its own connection: something has to be, says the manual.
    // Redis 7.0 waits for more than that, so this looks at the mark itself.
    let marks = || primary.call(&["HGET", "{keyward}meta", "barrier"]).text().to_owned();
    assert_eq!(marks(), "1");
    let all = waiting.keys().revoke_all(&waiting.owner, "all", &waiting.actor).await;
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Unconfirmed);
    let all = waiting.keys().revoke_all(&waiting.owner, "all", &waiting.actor).await;
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Unconfirmed, "with nothing left to revoke");
    assert_eq!(marks(), "2");
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
async fn a_revocation_that_no_replica_has_is_forgotten_by_the_cache_at_once() {
    let Some((primary, replica)) = a_pair() else { return };
    let store = impatient().replicas(1).connect(&primary.url()).await.unwrap();
    // The feed would bring it while the replica is waited for.
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
async fn every_change_waits_and_nothing_else_does() {
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
    // It is in effect, and others read, while it waits.
    eventually("the key is revoked here", async || {
        verify(&waiting, &issued).await.is_err_and(|verdict| verdict == REVOKED)
    })
    .await;
    assert!(store.changes(None).await.is_ok());
    assert!(!revoking.is_finished(), "nobody has confirmed it");
    replica.thaw();
    revoking.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_connections_wait_their_turn_and_end_in_time() {
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
            // Its turn came so late that the answer did not.
            ErrorKind::OutcomeUnknown => {}
            // Its turn did not come in time: nothing was sent.
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

/// Some times the connections that a store has for this.
const MANY: usize = 80;
