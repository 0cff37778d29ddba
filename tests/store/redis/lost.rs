//! Lost data: the change feed reports missed changes to readers of lost entries.

use std::time::Duration;

use keyward::{store::ChangeFeed, verify::DeniedReason};
use tokio::time::timeout;

use super::{UNAVAILABLE, Verdict, connect, service, until_verified, verify};
use crate::support::servers::{
    eventually,
    redis::{Cluster, Options},
    until,
};

#[tokio::test]
async fn a_flushed_server_is_reported_as_missed_changes() {
    let Some(server) = Options::default().durable().start() else { return };
    let store = connect(server.address()).await;
    let service = service(store.clone());
    for _ in 0..3 {
        let _ = service.issue().await;
    }
    let seen = store.changes(None).await.unwrap().cursor;
    for n in 0..6 {
        // With fewer changes than before the flush, with as many, and with more.
        if n == 0 {
            server.call(&["FLUSHALL"]);
        } else {
            let _ = service.issue().await;
        }
        let page = store.changes(Some(seen)).await.unwrap();
        assert!(page.missed, "{n} changes after the flush");
        let waiting = store.wait_for_changes(seen, Duration::from_secs(3_600));
        let woken = timeout(Duration::from_secs(30), waiting).await;
        assert!(woken.is_ok_and(|fed| fed.is_ok()), "and a waiting reader is woken");
        let page = store.changes(Some(page.cursor)).await.unwrap();
        assert!(!page.missed, "the reader continues from there");
    }
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_unavailable_and_denies_no_key() {
    let Some(mut server) = Options::default().durable().start() else { return };
    let store = connect(server.address()).await;
    let service = service(store.clone());
    let issued = service.issue().await;
    server.kill();
    std::fs::remove_dir_all(server.folder().join("appendonlydir")).unwrap();
    server.restart();
    eventually("it is recognized as empty", async || {
        assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
        store.changes(None).await.unwrap_err().to_string().contains("it has lost the store")
    })
    .await;
    assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
    // A restarted node begins with an empty store.
    drop(connect(server.address()).await);
    let unknown = Verdict::Denied(DeniedReason::Unknown);
    eventually("there is a store again", async || {
        verify(&service, &issued).await.unwrap_err() == unknown
    })
    .await;
}

#[tokio::test]
async fn a_restart_without_the_last_changes_is_reported() {
    let Some(mut server) = Options::default().durable().start() else { return };
    let store = connect(server.address()).await;
    let service = service(store.clone());
    let issued = service.issue().await;
    let kept = store.changes(None).await.unwrap().cursor;
    // Later writes do not reach the disk.
    server.call(&["CONFIG", "SET", "appendonly", "no"]);
    let _ = service.issue().await;
    let _ = service.issue().await;
    let lost = store.changes(None).await.unwrap().cursor;
    server.kill();
    server.restart();
    until_verified(&service, &issued).await;
    assert!(!store.changes(Some(kept)).await.unwrap().missed);
    for _ in 0..3 {
        assert!(store.changes(Some(lost)).await.unwrap().missed);
        assert!(!store.changes(Some(kept)).await.unwrap().missed);
        let _ = service.issue().await;
    }
}

#[tokio::test]
async fn a_failover_that_lost_writes_is_reported() {
    let Some(old) = Options::default().durable().tcp().start() else { return };
    let Some(new) = Options::default().durable().tcp().replica_of(&old).start() else { return };
    let before = service(connect(old.address()).await);
    let issued = before.issue().await;
    eventually("the replica has it", async || {
        new.call(&["HLEN", "{keyward}keys"]) == old.call(&["HLEN", "{keyward}keys"])
    })
    .await;
    new.call(&["REPLICAOF", "NO", "ONE"]);
    // Acknowledged by the old primary, but missing on the new one.
    let lost = before.issue().await;
    let cursor = connect(old.address()).await.changes(None).await.unwrap().cursor;

    let store = connect(new.address()).await;
    let after = service(store.clone());
    assert!(verify(&after, &issued).await.is_ok());
    assert!(verify(&after, &lost).await.is_err());
    for n in 0..3 {
        assert!(store.changes(Some(cursor)).await.unwrap().missed, "{n} changes later");
        let _ = after.issue().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_a_cluster_survives_the_loss_of_its_node() {
    let Some(mut cluster) = Cluster::start() else { return };
    let options = super::impatient().danger_allow_no_persistence().replicas(1);
    let store = options.connect_cluster(cluster.urls()).await.unwrap();
    let service = service(store);
    let issued = service.issue().await;
    // Any node leads to the node that holds the store.
    for node in cluster.urls() {
        let options = super::impatient().danger_allow_no_persistence();
        let other = super::service(options.connect_cluster([node]).await.unwrap());
        assert!(verify(&other, &issued).await.is_ok());
    }
    let holder = cluster.nodes().iter().position(|node| {
        let role = node.call(&["INFO", "replication"]);
        role.text().contains("role:master")
            && node.call(&["HLEN", "{keyward}keys"]) == super::redis::Reply::Integer(1)
    });
    swap_roles_twice(&cluster, holder.unwrap()).await;
    cluster.nodes_mut()[holder.unwrap()].kill();
    until_verified(&service, &issued).await;
    // Its only replica is the primary now, and no replica is left to confirm.
    let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert_eq!(error.kind(), keyward::error::ErrorKind::Unconfirmed, "{error}");
    cluster.nodes_mut()[holder.unwrap()].restart();
    cluster.until_ok();
    eventually("changes are confirmed again", async || {
        service.keys().issue(service.new_key(), &service.actor).await.is_ok()
    })
    .await;
}

/// Primary and replica swap roles twice while connections to both are open. Calls to the wrong one
/// are redirected, and none fails.
async fn swap_roles_twice(cluster: &Cluster, holder: usize) {
    let (one, other) = (&cluster.nodes()[holder], &cluster.nodes()[(holder + 3) % 6]);
    let store = super::options().danger_allow_no_persistence().replicas(1);
    let service = service(store.connect_cluster(cluster.urls()).await.unwrap());
    for (from, to) in [(one, other), (other, one)] {
        let issued = service.issue().await;
        cluster.until_ok();
        assert_eq!(to.call(&["CLUSTER", "FAILOVER", "TAKEOVER"]).text(), "OK");
        let is_replica = || from.call(&["INFO", "replication"]).text().contains("role:slave");
        until("the replica has taken over", is_replica);
        assert!(verify(&service, &issued).await.is_ok());
        let _ = service.issue().await;
    }
    cluster.until_ok();
}
