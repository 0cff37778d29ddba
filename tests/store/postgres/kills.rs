//! Two hundred `SIGKILL`s under load lose no acknowledged change.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use keyward::{
    AuditQuery, Error, ErrorKind, Owner, Status, VerifyError, VerifyRequest,
    audit::EventKind,
    manage::{Issued, KeyChange, Page, Rotation},
};
use tokio::task::JoinSet;

use super::{Stage, connect, patient, until};
use crate::support::{
    Service, owner,
    servers::postgres::{Options, Server},
};

/// One key, with the acknowledged changes of it.
struct KeyHistory {
    owner: Owner,
    issued: Issued,
    /// The secret since the rotation, if there was one.
    rotated: Option<Issued>,
    acknowledged: Vec<EventKind>,
    /// The change whose outcome is unknown. It is the last one that was tried.
    unknown: Option<EventKind>,
}

#[derive(Default)]
struct Load {
    histories: Mutex<Vec<Arc<KeyHistory>>>,
    acknowledged: AtomicUsize,
    /// How many keys were issued with an unknown outcome.
    lost: AtomicUsize,
    over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_kills_lose_no_acknowledged_change() {
    let start = || Options::default().durable().setting("shared_buffers", "4MB").start();
    let (Some(one), Some(other)) = (start(), start()) else { return };
    // While one server restarts, the other one is under load.
    tokio::join!(survive(one), survive(other));
}

async fn survive(server: Server) {
    let Stage { mut server, database, service } = Stage::new(server).await;
    let node = service.nodes[0].clone();
    let soon = patient().timeout(Duration::from_secs(1));
    let service = Service::uncached(vec![connect(soon, database.url()).await]);
    let (load, service) = (Arc::new(Load::default()), Arc::new(service));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(change_keys(load.clone(), service.clone(), task));
    }
    tasks.spawn(verify_keys(load.clone(), service.clone()));

    for kill in 0..KILLS {
        // Each kill comes after a different number of changes.
        let before = load.acknowledged.load(Ordering::Relaxed);
        let enough = before + 1 + kill % 7;
        until("changes are acknowledged", async || {
            (load.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    load.over.store(true, Ordering::Relaxed);
    tasks.join_all().await;

    let histories = std::mem::take(&mut *load.histories.lock().unwrap());
    assert!(histories.len() > KILLS / 4, "{} keys", histories.len());
    for history in &histories {
        check(history, &node).await;
    }
    let lost = load.lost.load(Ordering::Relaxed);
    let keys: usize = database.sql("SELECT count(*) FROM keyward_keys").unwrap().parse().unwrap();
    assert!(
        (histories.len()..=histories.len() + lost).contains(&keys),
        "{} + {lost}: {keys}",
        histories.len()
    );
    let changes = STEPS.map(|kind| format!("'{kind}'")).join(", ");
    // A reader numbers what the killed servers left without a number.
    let store = connect(patient(), database.url()).await;
    store.change_feed().unwrap().changes(None).await.unwrap();
    let feed = format!(
        "SELECT (SELECT count(*) FROM keyward_audit WHERE kind IN ('{}', {changes})), \
         (SELECT max(number) FROM keyward_changes), (SELECT count(*) FROM keyward_changes)",
        EventKind::Created
    );
    let feed = database.sql(&feed).unwrap();
    let numbers: HashSet<&str> = feed.split('|').collect();
    assert_eq!(numbers.len(), 1, "log and feed differ: {feed}");
}

/// Issues a key, changes it in each way, and repeats this with new keys.
async fn change_keys(load: Arc<Load>, service: Arc<Service>, task: usize) {
    let (keys, by) = (&service.nodes[0], &service.actor);
    for n in 0.. {
        if load.over.load(Ordering::Relaxed) {
            return;
        }
        let owner = owner("acme", &format!("task-{task}-{n}"));
        let new = keyward::manage::NewKey::new(&owner, "before").unwrap();
        let issued = match keys.issue(new, by).await {
            Ok(issued) => issued,
            Err(error) => {
                if is_unknown(&error) {
                    load.lost.fetch_add(1, Ordering::Relaxed);
                }
                // Leaves the processor to the server, which is restarting.
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        load.acknowledged.fetch_add(1, Ordering::Relaxed);
        let id = issued.key.id;
        let acknowledged = vec![EventKind::Created];
        let mut history = KeyHistory { owner, issued, rotated: None, acknowledged, unknown: None };
        // One key in four is not changed.
        for step in STEPS.into_iter().take(n % 4) {
            let owner = &history.owner;
            let answer = match step {
                EventKind::Updated => {
                    let change = KeyChange::default().name("after").unwrap();
                    keys.update(owner, id, &change, by).await.map(|_| None)
                }
                EventKind::Rotated => {
                    keys.rotate(owner, id, Rotation::immediate(), by).await.map(Some)
                }
                _ => keys.revoke(owner, id, "lost", by).await.map(|()| None),
            };
            match answer {
                Ok(rotated) => {
                    load.acknowledged.fetch_add(1, Ordering::Relaxed);
                    history.acknowledged.push(step);
                    history.rotated = rotated.or(history.rotated);
                }
                Err(error) => {
                    history.unknown = is_unknown(&error).then_some(step);
                    if history.unknown.is_some() {
                        break;
                    }
                }
            }
        }
        load.histories.lock().unwrap().push(Arc::new(history));
    }
}

fn is_unknown(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::OutcomeUnknown => true,
        ErrorKind::Unavailable => false,
        _ => panic!("{error:?}"),
    }
}

/// Verifies keys during the kills: revoked keys never pass, and others are never denied.
async fn verify_keys(load: Arc<Load>, service: Arc<Service>) {
    for n in 0_usize.. {
        if load.over.load(Ordering::Relaxed) {
            return;
        }
        let history = {
            let histories = load.histories.lock().unwrap();
            histories.get(histories.len().saturating_sub(1 + n % 20)).cloned()
        };
        match history {
            Some(history) if history.unknown.is_none() => {
                verify(&history, &service.nodes[0], true).await
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn verify(history: &KeyHistory, node: &keyward::ApiKeys, may_be_unavailable: bool) {
    let current = history.rotated.as_ref().unwrap_or(&history.issued);
    let has = |kind| history.acknowledged.contains(&kind);
    let is_revoked = has(EventKind::Revoked);
    match node.verify(current.secret.expose(), &VerifyRequest::new()).await {
        Ok(_) => assert!(!is_revoked, "a revoked key passes"),
        Err(VerifyError::Denied(denied)) => assert!(is_revoked, "{:?}", denied.reason()),
        Err(other) => assert!(may_be_unavailable, "{other:?}"),
    }
    if has(EventKind::Rotated) {
        let old = node.verify(history.issued.secret.expose(), &VerifyRequest::new()).await;
        assert!(old.is_err(), "a secret passes after its rotation");
    }
}

/// The audit log has the acknowledged changes, and possibly the one with an unknown outcome. The key
/// agrees with the log.
async fn check(history: &KeyHistory, node: &keyward::ApiKeys) {
    let KeyHistory { owner, issued, acknowledged, unknown, .. } = history;
    let mut events: Vec<_> = node.events(AuditQuery::new(owner)).await.unwrap();
    events.retain(|event| event.kind == EventKind::Created || STEPS.contains(&event.kind));
    let mut kinds: Vec<_> = events.iter().rev().map(|event| event.kind).collect();
    let key = node.get(owner, issued.key.id).await.unwrap();
    assert_eq!(key.revision + 1, kinds.len() as u64, "{kinds:?}");
    assert_eq!(key.name.as_str() == "after", kinds.contains(&EventKind::Updated));
    assert_eq!(key.rotated_at.is_some(), kinds.contains(&EventKind::Rotated));
    let is_revoked = key.status(key.created_at) == Status::Revoked;
    assert_eq!(is_revoked, kinds.contains(&EventKind::Revoked));
    assert_eq!(node.list(owner, Page::first()).await.unwrap().keys.len(), 1);
    if kinds.len() > acknowledged.len() {
        assert_eq!(kinds.pop(), *unknown, "{acknowledged:?}: it was reported as unavailable");
    }
    assert_eq!(kinds, *acknowledged);
    if unknown.is_none() {
        verify(history, node, false).await;
    }
}

const STEPS: [EventKind; 3] = [EventKind::Updated, EventKind::Rotated, EventKind::Revoked];
/// For each of the two servers.
const KILLS: usize = 100;
const TASKS: usize = 3;
