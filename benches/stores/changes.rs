//! Measures changes of keys per second, each on disk before it is acknowledged.
//!
//! Concurrent tasks issue keys for owners of their own and revoke them. `TASKS` is the number of tasks, 90 by default,
//! `CONNECTIONS` that of PostgreSQL's pool, and `TMPDIR` chooses the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keyward::{KeyStore, RedisStore, SqliteStore, store::PostgresOptions};
use tokio::task::JoinSet;

use crate::{
    number,
    sample::{insert, revoke},
    servers::{postgres, redis},
};

pub async fn measure() {
    let tasks = number("TASKS", 90);
    if let Some(server) = postgres::Options::default().durable().start() {
        let database = server.cluster().database();
        let connections = number("CONNECTIONS", 10) as u32;
        let options = PostgresOptions::new().connections(connections).timeout(PATIENCE);
        let store = options.connect(database.url()).await.expect("a new database");
        let flushes = || -> u64 {
            let flushes =
                database.sql("SELECT wal_sync FROM pg_stat_wal").expect("version 14 to 17");
            flushes.parse().expect("a number")
        };
        let before = flushes();
        let made = changes("PostgreSQL", Arc::new(store), tasks).await;
        println!(
            "    {:.1} changes in each flush of the log",
            made as f64 / (flushes() - before) as f64
        );
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = SqliteStore::open(folder.path().join("keys.db")).await.expect("a new file");
    changes("SQLite", Arc::new(store), tasks).await;
    if let Some(server) = redis::Options::default().durable().start() {
        let store = RedisStore::connect(&server.url()).await.expect("an empty server");
        changes("Redis", Arc::new(store), tasks).await;
    }
}

/// Prints how many changes the tasks make in a second. Returns the number of changes.
async fn changes(name: &str, store: Arc<dyn KeyStore>, tasks: u64) -> u64 {
    let next = Arc::new(AtomicU64::new(1));
    let mut rates = Vec::new();
    for _ in 0..=ROUNDS {
        let (begun, mut calls) = (Instant::now(), JoinSet::new());
        for _ in 0..tasks {
            let (store, next) = (store.clone(), next.clone());
            calls.spawn(async move {
                let mut made = 0;
                while begun.elapsed() < ROUND {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    insert(&*store, n).await;
                    revoke(&*store, n).await;
                    made += 2;
                }
                made
            });
        }
        let made: u64 = calls.join_all().await.iter().sum();
        rates.push(made as f64 / begun.elapsed().as_secs_f64());
    }
    // The first round warms up connections and query plans.
    let mut rates = rates.split_off(1);
    rates.sort_by(f64::total_cmp);
    let (low, median, high) = (rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]);
    println!(
        "  {name}: {median:.0} changes/s by {tasks} tasks, {low:.0} to {high:.0} in {ROUNDS} rounds"
    );
    2 * (next.load(Ordering::Relaxed) - 1)
}

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(60);
