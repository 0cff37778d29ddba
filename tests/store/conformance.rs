use std::{
    cell::Cell,
    sync::{Arc, Mutex},
};

use keyward::{
    KeyStore, MemoryStore, SqliteStore,
    store::{
        RedisOptions,
        conformance::{Suite, checks},
    },
};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{
        servers::{
            postgres::Database,
            redis::{self, Space},
        },
        stores::{self, Handles, SqliteFile},
    },
};

const ROUNDS: u32 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_conforms() {
    let open = async || {
        let store = MemoryStore::new();
        vec![Arc::new(store.clone()) as Arc<dyn KeyStore>, Arc::new(store)]
    };
    Suite::new().rounds(ROUNDS).run(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_conforms() {
    let create = async || SqliteFile::new();
    let open = async |file: &mut SqliteFile| file.open_twice().await;
    Suite::new().rounds(ROUNDS).run_reopening(create, open).await;
}

/// Opens a copy of the files, and closes nothing before: a process that is killed leaves the same files.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_what_it_acknowledged_when_it_is_not_closed() {
    let reopening = checks().filter(|name| name.ends_with("_a_reopening"));
    let open = async |files: &mut Vec<(SqliteFile, Handles)>| {
        let file = match files.last() {
            Some((open, _)) => open.copy(),
            None => SqliteFile::new(),
        };
        let handles = file.open_twice().await;
        files.push((file, handles.clone()));
        handles
    };
    let report = Suite::new().only(reopening).report_reopening(async || Vec::new(), open).await;
    assert_eq!((report.passed.len(), report.failed.len()), (5, 0), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_in_memory_conforms() {
    let open = async || {
        let store = SqliteStore::in_memory().await.unwrap();
        vec![Arc::new(store.clone()) as Arc<dyn KeyStore>, Arc::new(store)]
    };
    Suite::new().rounds(ROUNDS).run(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_conforms() {
    if stores::postgres().await.is_none() {
        return;
    }
    let create = async || stores::postgres().await.expect("PostgreSQL was available before");
    let open = async |database: &mut Database| stores::connect_twice(database).await;
    // Most checks are sequences of round trips, each of which waits for a processor on a busy machine. At a load of
    // 10, four checks at a time took 4 minutes; one at a time, more than 9.
    let all: Vec<_> = checks().collect();
    let lane = async |first| {
        let checks = all.iter().skip(first).step_by(4);
        Suite::new().rounds(ROUNDS).only(checks).report_reopening(create, open).await
    };
    for report in <[_; 4]>::from(tokio::join!(lane(0), lane(1), lane(2), lane(3))) {
        assert!(report.failed.is_empty(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_conforms() {
    let Some(shared) = redis::shared() else { return };
    let create = async || shared.space();
    let open = async |space: &mut Space| stores::redis_twice(space).await;
    Suite::new().rounds(ROUNDS).run_reopening(create, open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_redis_cluster_conforms() {
    let Some(cluster) = redis::shared_cluster() else { return };
    let count = Cell::new(0);
    // The prefix selects the node, so different prefixes cover all three nodes.
    let create = async || {
        count.set(count.get() + 1);
        stores::redis_options(&format!("cluster-{}", count.get()))
    };
    let open = async |options: &mut RedisOptions| stores::cluster_twice(cluster, options).await;
    Suite::new().rounds(ROUNDS / 4).run_reopening(create, open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_shows_its_progress_and_the_time_of_each_check() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let names = ["insert_is_refused_at_the_limit", "keys_and_events_survive_a_reopening"];
    let suite = Suite::new().only(names).on_progress({
        let lines = lines.clone();
        move |progress| lines.lock().unwrap().push(progress.to_string())
    });
    let open = async || vec![Arc::new(MemoryStore::new()) as Arc<dyn KeyStore>];
    let report = suite.report(open).await;
    assert_eq!((report.passed, report.skipped), (vec![names[0]], vec![names[1]]));
    assert_eq!(report.durations.iter().map(|(check, _)| *check).collect::<Vec<_>>(), [names[0]]);
    let lines = lines.lock().unwrap();
    assert_eq!(lines[0], "[1/1] insert_is_refused_at_the_limit");
    let time = lines[1].strip_prefix("[1/1] insert_is_refused_at_the_limit: passed in ").unwrap();
    assert!(time.strip_suffix(" ms").unwrap().parse::<u128>().is_ok(), "{time}");
    assert_eq!(lines.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failure_names_the_methods_that_were_called() {
    let faulty = |set: fn(&FaultyStore)| {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        set(&store);
        vec![Arc::new(store) as Arc<dyn KeyStore>]
    };
    let suite = Suite::new().only(["find_returns_the_latest_committed_key"]);
    let report = suite.report(async || faulty(|store| store.set_change_fault(Fault::Unavailable)));
    let report = report.await;
    let failure = &report.failed[0];
    assert!(failure.message.starts_with("`insert` failed: "), "{failure}");
    assert_eq!(failure.calls, ["find", "insert"]);

    let panics = async || faulty(|store| store.set_find_fault(Fault::Panics));
    let report = suite.report(panics).await;
    assert!(report.to_string().ends_with("\n    last calls: find"), "{report}");
}
