//! Faults of servers and connections: no key is denied, no change is made twice, and the store
//! recovers by itself.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{Arc, Mutex},
};

use keyward::{Error, ErrorKind, KeyId, manage::KeyChange, model::Metadata};

use super::{
    REVOKED, UNAVAILABLE, behind_a_proxy, connect, impatient, revoke, service, service_on,
    until_verified, verify,
};
use crate::support::{
    Service,
    servers::{
        eventually,
        proxy::Direction,
        redis::{Connection, Options},
        until,
    },
};

#[tokio::test]
async fn a_change_whose_answer_is_lost_has_an_unknown_outcome() {
    let Some((_server, proxy)) = behind_a_proxy() else { return };
    let service = service_on(proxy.address()).await;
    // The server has the script cached from here on.
    revoke(&service, &service.issue().await, "over").await.unwrap();
    let issued = service.issue().await;

    // The request does not reach the server, but this side cannot know that.
    proxy.cut_request("cut before");
    let error = revoke(&service, &issued, "cut before").await.unwrap_err();
    proxy.sprung().await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(verify(&service, &issued).await.is_ok(), "it was not made, and not retried");

    proxy.swallow_reply_to("cut after");
    let error = revoke(&service, &issued, "cut after").await.unwrap_err();
    proxy.sprung().await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(verify(&service, &issued).await.unwrap_err(), REVOKED, "it was made");
}

#[tokio::test]
async fn a_change_that_cannot_be_sent_is_unavailable_and_not_made() {
    let Some((_server, proxy)) = behind_a_proxy() else { return };
    let service = service_on(proxy.address()).await;
    let issued = service.issue().await;
    proxy.cut();
    assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
    for _ in 0..3 {
        let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    proxy.heal();
    until_verified(&service, &issued).await;
    let listed = service.keys().list(&service.owner, keyward::manage::Page::first()).await.unwrap();
    assert_eq!(listed.keys.len(), 1, "unavailable changes were not made");
}

#[tokio::test]
async fn a_connection_that_ends_while_idle_fails_no_change() {
    let Some((server, proxy)) = behind_a_proxy() else { return };
    let (service, other) = (service_on(proxy.address()).await, service_on(server.address()).await);
    let issued = service.issue().await;
    for _ in 0..5 {
        proxy.cut();
        until("the connection has ended", || proxy.connections() == 0);
        proxy.heal();
        // These give the runtime time to notice the end of the connection.
        for _ in 0..3 {
            other.verify(&issued).await.unwrap();
        }
        let _ = service.issue().await;
    }
}

#[tokio::test]
async fn a_read_whose_answer_is_lost_is_unavailable() {
    let Some((_server, proxy)) = behind_a_proxy() else { return };
    let service = service_on(proxy.address()).await;
    let issued = service.issue().await;
    for arm in [super::Proxy::cut_request, super::Proxy::swallow_reply_to] {
        arm(&proxy, "HMGET");
        assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
        proxy.sprung().await;
        assert!(verify(&service, &issued).await.is_ok(), "the next one connects again");
    }
}

/// Cuts the connection after more and more bytes; every answer agrees with what happened.
#[tokio::test]
async fn a_connection_that_is_cut_gives_no_false_answer() {
    let Some((server, proxy)) = behind_a_proxy() else { return };
    let (service, other) = (service_on(proxy.address()).await, service_on(server.address()).await);
    let mut kinds = BTreeSet::new();
    for direction in [Direction::ToServer, Direction::ToClient] {
        for bytes in (1..2_600).step_by(97) {
            let issued = other.issue().await;
            eventually("it is connected", async || verify(&service, &issued).await.is_ok()).await;
            proxy.cut_after(bytes, direction);
            let answer = service.keys().issue(service.new_key(), &service.actor).await;
            let is_true = match &answer {
                Ok(issued) => other.verify(issued).await.is_ok(),
                Err(error) => {
                    kinds.insert(format!("{:?}", error.kind()));
                    matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable)
                }
            };
            assert!(is_true, "{direction:?} after {bytes} bytes: {answer:?}");
            let answer = revoke(&service, &issued, "cut").await;
            let revoked = verify(&other, &issued).await.is_err();
            match answer.map_err(|error| error.kind()) {
                Ok(()) => assert!(revoked),
                Err(ErrorKind::Unavailable) => assert!(!revoked),
                Err(kind) => assert_eq!(kind, ErrorKind::OutcomeUnknown),
            }
        }
    }
    assert!(kinds.contains("OutcomeUnknown"), "some cuts came in the middle: {kinds:?}");
}

#[tokio::test]
async fn a_frozen_server_is_unavailable_and_recovers() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service(impatient().connect(&server.url()).await.unwrap());
    let issued = service.issue().await;
    server.freeze();
    assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
    for _ in 0..2 {
        let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "no connection, so it was not sent");
        assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
    }
    server.thaw();
    until_verified(&service, &issued).await;

    // The first call on a frozen server has sent its change.
    server.freeze();
    let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    server.thaw();
    until_verified(&service, &issued).await;
}

#[tokio::test]
async fn a_frozen_node_does_not_block_the_search_for_others() {
    let Some(frozen) = Options::default().durable().start() else { return };
    let Some(server) = Options::default().durable().start() else { return };
    frozen.freeze();
    let nodes = [frozen.url(), server.url()];
    let store = impatient().connect_cluster(nodes).await.unwrap();
    let _ = service(store).issue().await;
    frozen.thaw();
}

#[tokio::test]
async fn a_server_that_has_become_a_replica_is_unavailable() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service_on(server.address()).await;
    let issued = service.issue().await;
    // There is no primary at that address, so it keeps its data.
    server.call(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..2 {
        let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE, "replicas may lag");
    server.call(&["REPLICAOF", "NO", "ONE"]);
    until_verified(&service, &issued).await;
    let _ = service.issue().await;
}

#[tokio::test]
async fn a_server_without_memory_issues_nothing_and_still_revokes() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service_on(server.address()).await;
    let issued = service.issue().await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(verify(&service, &issued).await.is_ok());
    let late = service_on(server.address()).await;
    assert!(verify(&late, &issued).await.is_ok(), "a node can start");
    revoke(&service, &issued, "leaked").await.unwrap();
    assert_eq!(verify(&service, &issued).await.unwrap_err(), REVOKED);
    server.call(&["CONFIG", "SET", "maxmemory", "0"]);
    let _ = service.issue().await;
}

#[tokio::test]
async fn a_server_without_free_connections_is_unavailable_and_comes_back() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service_on(server.address()).await;
    let issued = service.issue().await;
    let mut line = Connection::open(server.address()).unwrap();
    let mut config = |command: &[&str]| drop(line.call(command).unwrap());
    config(&["CONFIG", "SET", "maxclients", "1"]);
    config(&["CLIENT", "KILL", "SKIPME", "yes"]);
    assert_eq!(verify(&service, &issued).await.unwrap_err(), UNAVAILABLE);
    let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    config(&["CONFIG", "SET", "maxclients", "1000"]);
    until_verified(&service, &issued).await;
    let _ = service.issue().await;
}

/// With `appendfsync always`, a server that cannot write exits, which is another test.
#[tokio::test]
async fn a_disk_that_is_full_is_unavailable_for_changes_and_comes_back() {
    let options = Options::default().durable().setting("appendfsync", "everysec");
    let Some(server) = options.outliving_full_disks().start() else { return };
    let service = service_on(server.address()).await;
    let issued = service.issue().await;
    // No file may grow beyond this.
    let limit = |bytes: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.arg(format!("--pid={}", server.pid())).arg(format!("--fsize={bytes}:"));
        assert!(prlimit.status().unwrap().success());
    };
    limit("32768");
    let update = async |n: usize| {
        let padding = Metadata::new([("padding", format!("{n:0400}"))]).unwrap();
        let change = KeyChange::default().metadata(padding);
        service.keys().update(&service.owner, issued.key.id, &change, &service.actor).await
    };
    // Changes before the server noticed are acknowledged.
    let mut n = 0;
    let error = loop {
        n += 1;
        if let Err(error) = update(n).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = revoke(&service, &issued, "leaked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(verify(&service, &issued).await.is_ok(), "existing keys can be read");
    limit("unlimited");
    eventually("changes succeed again", async || update(n).await.is_ok()).await;
    revoke(&service, &issued, "leaked").await.unwrap();
    assert_eq!(verify(&service, &issued).await.unwrap_err(), REVOKED);
}

/// With `appendfsync always`, acknowledged changes are on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_change_is_lost_when_the_server_is_killed() {
    let Some(mut server) = Options::default().durable().start() else { return };
    let store = connect(server.address()).await;
    let service = Arc::new(service(store));
    for _ in 0..10 {
        let done: Arc<Mutex<(BTreeSet<KeyId>, BTreeSet<KeyId>)>> = Arc::default();
        let tasks: Vec<_> = (0..4)
            .map(|_| tokio::spawn(work_until_it_fails(service.clone(), done.clone())))
            .collect();
        until("some changes are done", || done.lock().unwrap().1.len() >= 20);
        server.kill();
        for task in tasks {
            let error = task.await.unwrap();
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::OutcomeUnknown | ErrorKind::Unavailable), "{error}");
        }
        server.restart();
        let (issued, revoked) = std::mem::take(&mut *done.lock().unwrap());
        let first = *issued.first().unwrap();
        eventually("the store finds its server again", async || {
            service.keys().get(&service.owner, first).await.is_ok()
        })
        .await;
        for id in issued {
            let key = service.keys().get(&service.owner, id).await.unwrap();
            assert!(key.revoked.is_some() || !revoked.contains(&id), "a revocation was lost");
        }
    }
}

/// Issues and revokes keys, and records the acknowledged changes.
async fn work_until_it_fails(
    service: Arc<Service>,
    done: Arc<Mutex<(BTreeSet<KeyId>, BTreeSet<KeyId>)>>,
) -> Error {
    loop {
        let issued = match service.keys().issue(service.new_key(), &service.actor).await {
            Ok(issued) => issued,
            Err(error) => return error,
        };
        done.lock().unwrap().0.insert(issued.key.id);
        match revoke(&service, &issued, "over").await {
            Ok(()) => done.lock().unwrap().1.insert(issued.key.id),
            Err(error) => return error,
        };
    }
}
