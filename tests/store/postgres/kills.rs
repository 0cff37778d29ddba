//! Two hundred `SIGKILL`s under load: what was acknowledged is there.

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

/// One key, and what its service was told of it.
struct Life {
    owner: Owner,
    issued: Issued,
    /// The secret since the rotation, if there was one.
    rotated: Option<Issued>,
    acknowledged: Vec<EventKind>,
    /// The change whose outcome is unknown. Nothing was tried after it.
    unknown: Option<EventKind>,
}

#[derive(Default)]
struct Load {
    lives: Mutex<Vec<Arc<Life>>>,
    acknowledged: AtomicUsize,
    /// Keys whose issue has an unknown outcome.
    lost: AtomicUsize,
    over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_kills_lose_nothing_that_was_acknowledged() {
    let start = || Options::default().durable().setting("shared_buffers", "4MB").start();
    let (Some(one), Some(other)) = (start(), start()) else { return };
    // While the one starts again, the other one is under load.
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
        tasks.spawn(live(load.clone(), service.clone(), task));
    }
    tasks.spawn(look(load.clone(), service.clone()));

    for kill in 0..KILLS {
        // Never at the same point of what the tasks do.
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

    let lives = std::mem::take(&mut *load.lives.lock().unwrap());
    assert!(lives.len() > KILLS / 4, "{} keys", lives.len());
    for life in &lives {
        check(life, &node).await;
    }
    let lost = load.lost.load(Ordering::Relaxed);
    let keys: usize = database.sql("SELECT count(*) FROM keyward_keys").unwrap().parse().unwrap();
    assert!((lives.len()..=lives.len() + lost).contains(&keys), "{} + {lost}: {keys}", lives.len());
    let changes = STEPS.map(|kind| format!("'{kind}'")).join(", ");
    let feed = format!(
        "SELECT (SELECT count(*) FROM keyward_audit WHERE kind IN ('{}', {changes})), \
         (SELECT last_number FROM keyward_feed), (SELECT count(*) FROM keyward_changes)",
        EventKind::Created
    );
    let feed = database.sql(&feed).unwrap();
    let numbers: HashSet<&str> = feed.split('|').collect();
    assert_eq!(numbers.len(), 1, "log and feed differ: {feed}");
}

/// Issues a key, changes it in each way, and begins again with another one.
async fn live(load: Arc<Load>, service: Arc<Service>, task: usize) {
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
                // Leaves the processor to the server, which is about to start.
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        load.acknowledged.fetch_add(1, Ordering::Relaxed);
        let id = issued.key.id;
        let acknowledged = vec![EventKind::Created];
        let mut life = Life { owner, issued, rotated: None, acknowledged, unknown: None };
        // One in four stays as it is issued.
        for step in STEPS.into_iter().take(n % 4) {
            let owner = &life.owner;
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
                    life.acknowledged.push(step);
                    life.rotated = rotated.or(life.rotated);
                }
                Err(error) => {
                    life.unknown = is_unknown(&error).then_some(step);
                    if life.unknown.is_some() {
                        break;
                    }
                }
            }
        }
        load.lives.lock().unwrap().push(Arc::new(life));
    }
}

fn is_unknown(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::OutcomeUnknown => true,
        ErrorKind::Unavailable => false,
        _ => panic!("{error:?}"),
    }
}

/// Verifies all the while: what is revoked never passes, and what is not is never refused.
async fn look(load: Arc<Load>, service: Arc<Service>) {
    for n in 0_usize.. {
        if load.over.load(Ordering::Relaxed) {
            return;
        }
        let life = {
            let lives = load.lives.lock().unwrap();
            lives.get(lives.len().saturating_sub(1 + n % 20)).cloned()
        };
        match life {
            Some(life) if life.unknown.is_none() => verify(&life, &service.nodes[0], true).await,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn verify(life: &Life, node: &keyward::ApiKeys, may_be_unavailable: bool) {
    let current = life.rotated.as_ref().unwrap_or(&life.issued);
    let has = |kind| life.acknowledged.contains(&kind);
    let is_revoked = has(EventKind::Revoked);
    match node.verify(current.secret.expose(), &VerifyRequest::new()).await {
        Ok(_) => assert!(!is_revoked, "a revoked key passes"),
        Err(VerifyError::Denied(denied)) => assert!(is_revoked, "{:?}", denied.reason()),
        Err(other) => assert!(may_be_unavailable, "{other:?}"),
    }
    if has(EventKind::Rotated) {
        let old = node.verify(life.issued.secret.expose(), &VerifyRequest::new()).await;
        assert!(old.is_err(), "the secret before the rotation passes");
    }
}

/// The log says exactly what was acknowledged, and perhaps the one change that is unknown; the key
/// is as the log says.
async fn check(life: &Life, node: &keyward::ApiKeys) {
    let Life { owner, issued, acknowledged, unknown, .. } = life;
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
        assert_eq!(kinds.pop(), *unknown, "{acknowledged:?}: it was called unavailable");
    }
    assert_eq!(kinds, *acknowledged);
    if unknown.is_none() {
        verify(life, node, false).await;
    }
}

const STEPS: [EventKind; 3] = [EventKind::Updated, EventKind::Rotated, EventKind::Revoked];
/// Of each of two servers.
const KILLS: usize = 100;
const TASKS: usize = 3;
