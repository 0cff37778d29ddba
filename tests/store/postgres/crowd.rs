//! A crowd of concurrent changes on one node: verification goes on, and each call ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use keyward::{
    ApiKeys, ErrorKind, KeyStore, NewKey, VerifyRequest,
    manage::Issued,
    store::PostgresOptions,
    system::SystemClock,
    verify::{CacheOptions, FeedState},
};
use sqlx::postgres::PgPoolOptions;
use tokio::{task::JoinSet, time::Instant};

use super::{DEADLINE, connect, ended, patient};
use crate::support::{
    Service, owner,
    servers::{
        eventually,
        postgres::{Options, Server},
    },
};

/// A node with the default timeout, and a cache with a short bound.
fn service(store: Arc<dyn KeyStore>) -> Service {
    let options = CacheOptions::default().max_staleness(BOUND);
    Service::with(vec![store], |builder| builder.clock(SystemClock).cache(options.clone()))
}

/// Issues keys of different owners, one after the other, until the test is over.
async fn change(keys: ApiKeys, task: usize, over: Arc<AtomicBool>, made: Arc<AtomicUsize>) {
    let by = keyward::Actor::system("crowd");
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let new = NewKey::new(&owner("acme", &format!("{task}-{n}")), "key").unwrap();
        match keys.issue(new, &by).await {
            Ok(_) => _ = made.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.is_unavailable() => {
                // As a client that obeys Retry-After, but sooner.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // A commit that took longer than the timeout.
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}"),
        }
    }
}

/// Verifies cached keys while 256 tasks change others, for several times the bound.
async fn verifies_in_a_crowd(store: Arc<dyn KeyStore>) {
    let service = service(store);
    let mut issued: Vec<Issued> = Vec::new();
    for _ in 0..8 {
        issued.push(service.issue().await);
    }
    let (over, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut crowd = JoinSet::new();
    for task in 0..256 {
        crowd.spawn(change(service.keys().clone(), task, over.clone(), made.clone()));
    }
    let (begun, mut verified) = (Instant::now(), 0);
    while begun.elapsed() < 4 * BOUND || made.load(Ordering::Relaxed) < 256 {
        assert!(begun.elapsed() < DEADLINE, "{made:?} changes");
        for issued in &issued {
            let answer = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
            assert!(answer.is_ok(), "after {verified} and {made:?} changes: {answer:?}");
            verified += 1;
        }
        assert_ne!(service.keys().health().feed, FeedState::Down, "after {made:?} changes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::Relaxed);
    ended(crowd.join_all()).await;
}

async fn start() -> Option<(Server, String)> {
    let server = Options::default().start()?;
    let url = server.cluster().database().url().to_owned();
    Some((server, url))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_verify_while_256_tasks_make_changes() {
    let Some((_server, url)) = start().await else { return };
    verifies_in_a_crowd(connect(PostgresOptions::new(), &url).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_verify_while_256_tasks_make_changes_on_the_pool_of_the_service() {
    let Some((_server, url)) = start().await else { return };
    let pool = PgPoolOptions::new().max_connections(10).test_before_acquire(false);
    let pool = pool.connect(&url).await.unwrap();
    verifies_in_a_crowd(Arc::new(PostgresOptions::new().with_pool(pool).await.unwrap())).await;
}

/// 10 calls have a connection, 1,024 wait, and the others fail although all of them have much time.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_a_full_queue_is_unavailable_immediately() {
    let Some((server, url)) = start().await else { return };
    let service = service(connect(patient(), &url).await);
    // Compares the clocks, which would otherwise be the first thing to wait for the server.
    let _ = service.issue().await;
    server.freeze();
    let failed = Arc::<AtomicUsize>::default();
    let mut calls = JoinSet::new();
    for n in 0..1_100 {
        let (keys, by, failed) = (service.keys().clone(), service.actor.clone(), failed.clone());
        let new = NewKey::new(&owner("acme", &format!("{n}")), "key").unwrap();
        calls.spawn(async move {
            let answer = keys.issue(new, &by).await.map(drop);
            failed.fetch_add(answer.is_err().into(), Ordering::SeqCst);
            answer
        });
    }
    eventually("the others have failed", async || failed.load(Ordering::SeqCst) >= 66).await;
    server.thaw();
    let answers = ended(calls.join_all()).await;
    let errors: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 66);
    for error in errors {
        assert!(error.is_unavailable());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert!(error.to_string().contains("try again in a second"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_retry_without_a_pause_all_end() {
    let Some((_server, url)) = start().await else { return };
    let service = service(connect(PostgresOptions::new(), &url).await);
    let mut clients = JoinSet::new();
    for n in 0..1_000 {
        let (keys, by) = (service.keys().clone(), service.actor.clone());
        let new = NewKey::new(&owner("acme", &format!("{n}")), "key").unwrap();
        clients.spawn(async move {
            while let Err(error) = keys.issue(new.clone(), &by).await {
                let may_retry = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
                assert!(may_retry.contains(&error.kind()), "{error:?}");
            }
        });
    }
    ended(clients.join_all()).await;
}

const BOUND: Duration = Duration::from_secs(2);
