use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use keyward::{
    KeyStore, MemoryStore, SqliteStore,
    store::conformance::{Suite, checks},
};

use crate::support::{
    servers::redis,
    stores::{self, SqliteFile},
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
    let files = RefCell::new(Vec::new());
    let open = async || {
        let file = SqliteFile::new();
        let handles = file.open_twice().await;
        files.borrow_mut().push(file);
        handles
    };
    Suite::new().rounds(ROUNDS).run(open).await;
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
    let databases = RefCell::new(Vec::new());
    let open = async || {
        let database = stores::postgres().await.expect("PostgreSQL was available before");
        let handles = stores::connect_twice(&database).await;
        databases.borrow_mut().push(database);
        handles
    };
    // Most checks are sequences of round trips, each of which waits for a processor on a busy machine. At a load of
    // 10, four checks at a time took 4 minutes; one at a time, more than 9.
    let all: Vec<_> = checks().collect();
    let lane = async |first| {
        let checks = all.iter().skip(first).step_by(4);
        Suite::new().rounds(ROUNDS).only(checks).report(&open).await
    };
    for report in <[_; 4]>::from(tokio::join!(lane(0), lane(1), lane(2), lane(3))) {
        assert!(report.failed.is_empty(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_conforms() {
    let Some(shared) = redis::shared() else { return };
    let spaces = RefCell::new(Vec::new());
    let open = async || {
        let space = shared.space();
        let handles = stores::redis_twice(&space).await;
        spaces.borrow_mut().push(space);
        handles
    };
    Suite::new().rounds(ROUNDS).run(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_redis_cluster_conforms() {
    let Some(cluster) = redis::shared_cluster() else { return };
    let count = Cell::new(0);
    let open = async || {
        count.set(count.get() + 1);
        // The prefix selects the node, so different prefixes cover all three nodes.
        let options = stores::redis_options(&format!("cluster-{}", count.get()));
        stores::cluster_twice(cluster, &options).await
    };
    Suite::new().rounds(ROUNDS / 4).run(open).await;
}
