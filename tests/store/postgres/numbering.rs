//! Entries of the change feed get their numbers after the commit: changes do not wait for each other, and no reader misses
//! one.

use std::{
    collections::HashSet,
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keyward::{
    ApiKeys, KeyId, KeyStore, NewKey, Timestamp,
    manage::Issued,
    store::{ChangeBatch, FeedMode, StoreError, StoreErrorKind},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{task::JoinSet, time::timeout};

use super::{DEADLINE, connect, ended, hasty, patient, until};
use crate::support::{
    Service, format, owner,
    servers::postgres::{Database, Options},
    stores,
};

async fn pool(database: &Database) -> PgPool {
    PgPoolOptions::new().connect(database.url()).await.unwrap()
}

async fn end(store: &Arc<dyn KeyStore>) -> u64 {
    store.change_feed().unwrap().changes(None).await.unwrap().cursor
}

async fn read(store: &Arc<dyn KeyStore>, cursor: &mut u64) -> Result<Vec<KeyId>, StoreError> {
    let batch = store.change_feed().unwrap().changes(Some(*cursor)).await?;
    let ChangeBatch { keys, cursor: next, missed, .. } = batch;
    assert!(!missed);
    *cursor = next;
    Ok(keys)
}

async fn issue(service: &Service, account: &str) -> Issued {
    let new = NewKey::new(&owner("acme", account), "key").unwrap();
    service.keys().issue(new, &service.actor).await.unwrap()
}

/// A change of one owner stops at its commit, after all its writes. Before entries were numbered after the commit, it
/// kept the lock on the feed.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_does_not_wait_for_the_commit_of_another_owner_and_neither_is_missed() {
    let Some(database) = stores::postgres().await else { return };
    let store = connect(patient(), database.url()).await;
    let service = Arc::new(Service::uncached(vec![store.clone()]));
    let mut cursor = end(&store).await;
    let at_commit = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql \
        AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'; \
        CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON keyward_audit DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW WHEN (new.account = 'slow') EXECUTE FUNCTION wait()";
    database.sql(at_commit).unwrap();
    let pool = pool(&database).await;
    let mut gate = pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();

    let slow = tokio::spawn({
        let service = service.clone();
        async move { issue(&service, "slow").await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("the change waits", async || (database.sql(waits).unwrap() == "1").then_some(())).await;
    for _ in 0..3 {
        let fast = ended(issue(&service, "fast")).await.key.id;
        assert_eq!(read(&store, &mut cursor).await.unwrap(), [fast]);
    }
    assert!(!slow.is_finished());
    gate.rollback().await.unwrap();
    let slow = ended(slow).await.unwrap().key.id;
    assert_eq!(read(&store, &mut cursor).await.unwrap(), [slow], "it committed last");
}

/// The lock on the feed keeps the node from numbering its entry. Then it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_node_that_was_killed_after_its_commit_reaches_the_others() {
    let Some(database) = stores::postgres().await else { return };
    let store = connect(patient(), database.url()).await;
    let mut cursor = end(&store).await;
    until("changes are pushed", async || {
        let feed = store.change_feed().unwrap().wait_for_changes(cursor, Duration::from_millis(1));
        (feed.await.unwrap() == FeedMode::Pushed).then_some(())
    })
    .await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.change_feed().unwrap().wait_for_changes(cursor, 60 * DEADLINE).await }
    });
    let pool = pool(&database).await;
    let mut gate = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM keyward_feed FOR UPDATE").execute(&mut *gate).await.unwrap();

    let mut node = Command::new(env::current_exe().unwrap())
        .args(["--exact", OTHER_NODE, "--ignored", "--nocapture", "--quiet"])
        .env(DATABASE, database.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    let answer = tokio::task::block_in_place(|| {
        lines.find_map(|line| Some(line.split_once(ANSWER)?.1.to_owned()))
    });
    node.kill().unwrap();
    node.wait().unwrap();
    // The server would complete a statement that it has received already.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_notify%' \
        AND wait_event_type = 'Lock' AND datname = current_database()";
    database.sql(end).unwrap();
    gate.rollback().await.unwrap();

    let woken = timeout(DEADLINE, waiting).await.expect("the entry ends the wait");
    woken.unwrap().unwrap();
    let keys = read(&store, &mut cursor).await.unwrap();
    assert_eq!(keys.iter().map(KeyId::to_string).collect::<Vec<_>>(), [answer.unwrap()]);
}

/// Runs in the process that is killed.
#[tokio::test]
#[ignore = "started and killed by the test above"]
async fn issues_a_key_and_waits() {
    let url = env::var(DATABASE).expect("this test is started by another one");
    let node = ApiKeys::builder_on(connect(patient(), &url).await, format()).no_cache().build();
    let new = NewKey::new(&owner("acme", "ada"), "key").unwrap();
    let issued = node.issue(new, &keyward::Actor::system("test")).await.unwrap();
    println!("{ANSWER}{}", issued.key.id);
    std::future::pending().await
}

/// Each reader and each writer has connections of its own, whose transactions would keep their snapshots by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_reader_reads_every_change_once_while_many_nodes_make_changes() {
    let Some(database) = stores::postgres().await else { return };
    let name = database.name();
    let setting = "SET default_transaction_isolation = 'repeatable read'";
    database.sql(&format!("ALTER DATABASE \"{name}\" {setting}")).unwrap();
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    let over = Arc::<AtomicBool>::default();
    for _ in 0..3 {
        let store = connect(patient(), database.url()).await;
        let (mut cursor, over) = (end(&store).await, over.clone());
        readers.spawn(async move {
            let mut seen = Vec::new();
            loop {
                // Before the read, which then has the changes of all writers.
                let last = over.load(Ordering::Acquire);
                let mut keys = read(&store, &mut cursor).await.unwrap();
                let is_end = keys.is_empty();
                seen.append(&mut keys);
                if last && is_end {
                    return seen;
                }
            }
        });
    }
    for node in 0..4 {
        let store = connect(patient(), database.url()).await;
        let service = Arc::new(Service::uncached(vec![store]));
        for task in 0..8 {
            let service = service.clone();
            writers.spawn(async move {
                let mut made = Vec::new();
                for n in 0..10 {
                    let issued = issue(&service, &format!("{node}-{task}-{n}")).await;
                    made.push(issued.key.id);
                }
                made
            });
        }
    }
    let made: HashSet<KeyId> = ended(writers.join_all()).await.into_iter().flatten().collect();
    over.store(true, Ordering::Release);
    for seen in ended(readers.join_all()).await {
        assert_eq!(seen.len(), made.len());
        assert_eq!(HashSet::from_iter(seen), made);
    }
    let numbers = database.sql("SELECT count(*), min(number), max(number) FROM keyward_changes");
    assert_eq!(numbers.unwrap(), format!("{0}|1|{0}", made.len()));
}

#[tokio::test]
async fn a_long_transaction_elsewhere_does_not_hold_the_feed_back() {
    let Some(database) = stores::postgres().await else { return };
    let store = connect(patient(), database.url()).await;
    let service = Service::uncached(vec![store.clone()]);
    let _ = service.issue().await;
    let mut cursor = end(&store).await;
    let pool = pool(&database).await;
    // It has a snapshot, as a backup, and a transaction id, as an import.
    let mut long = pool.begin().await.unwrap();
    for step in [
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "CREATE TABLE import AS TABLE keyward_changes",
    ] {
        sqlx::query(step).execute(&mut *long).await.unwrap();
    }
    for _ in 0..3 {
        let key = service.issue().await.key.id;
        assert_eq!(read(&store, &mut cursor).await.unwrap(), [key]);
    }
    long.commit().await.unwrap();
    assert_eq!(read(&store, &mut cursor).await.unwrap(), []);
}

#[tokio::test]
async fn while_the_feed_is_locked_changes_are_acknowledged_and_its_reads_fail() {
    let Some(database) = stores::postgres().await else { return };
    let service = Service::uncached(vec![connect(patient(), database.url()).await]);
    let store = connect(hasty(), database.url()).await;
    let mut cursor = end(&connect(patient(), database.url()).await).await;
    let pool = pool(&database).await;
    let mut gate = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM keyward_feed FOR UPDATE").execute(&mut *gate).await.unwrap();
    let key = service.issue().await.key.id;
    let error = ended(read(&store, &mut cursor)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    gate.rollback().await.unwrap();
    let keys = until("the feed is read", async || read(&store, &mut cursor).await.ok()).await;
    assert_eq!(keys, [key]);
}

#[tokio::test]
async fn the_feed_works_in_a_publication_of_all_tables() {
    let Some(server) = Options::default().setting("wal_level", "logical").start() else { return };
    let database = server.cluster().database();
    let store = connect(patient(), database.url()).await;
    database.sql("CREATE PUBLICATION everything FOR ALL TABLES").unwrap();
    let service = Service::uncached(vec![store.clone()]);
    let mut cursor = end(&store).await;
    let key = service.issue().await.key.id;
    assert_eq!(read(&store, &mut cursor).await.unwrap(), [key]);
    let purged = store.change_feed().unwrap().purge_changes(Timestamp::MAX).await.unwrap();
    assert_eq!(purged, 1);
}

const OTHER_NODE: &str = "store::postgres::numbering::issues_a_key_and_waits";
const DATABASE: &str = "KEYWARD_TEST_DATABASE";
const ANSWER: &str = "answer: ";
