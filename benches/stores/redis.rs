//! Compares `RedisStore` with GET by the redis crate alone, on a private server.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use keyward::{KeyStore, RedisStore, store::RedisOptions};
use redis::{AsyncCommands, Client, aio::MultiplexedConnection};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    digest,
    measure::{latency, per_key, throughput},
    pick,
    sample::insert,
    servers::{
        redis::{Options, Server},
        until,
    },
};

pub async fn measure(keys: u64) {
    let Some(server) = Options::default().start() else { return };
    // The disk is not measured here; `appendfsync` does not affect look-ups.
    let options = RedisOptions::new().danger_allow_no_persistence();
    let store = Arc::new(options.connect(&server.url()).await.expect("an empty server"));
    let empty = used_memory(&server);
    fill(&store, keys).await;
    per_key("memory, with one audit event each", used_memory(&server) - empty, keys);
    server.call(&["BGSAVE"]);
    let saving = || server.call(&["INFO", "persistence"]).text().contains("in_progress:1");
    until("the snapshot is saved", || !saving());
    let saved = server.folder().join("dump.rdb");
    per_key("disk", fs::metadata(saved).expect("the snapshot").len(), keys);
    let client = Client::open(server.url()).expect("a valid address");
    let connect = async || client.get_multiplexed_async_connection().await.expect("it runs");
    fill_bare(connect().await, keys).await;

    let ours = move |n| {
        let store = store.clone();
        async move {
            let found = store.find(&[digest(pick(n, keys))]).await.expect("the server runs");
            assert!(found.is_some());
        }
    };
    let connection = connect().await;
    let bare = move |n| get(connection.clone(), pick(n, keys));
    latency("find, sequential", 1.3, ours.clone(), bare).await;
    let mut pool = Vec::new();
    for _ in 0..10 {
        pool.push(Mutex::new(connect().await));
    }
    let pool = Arc::new(pool);
    let naive = move |n: u64| {
        let pool = pool.clone();
        async move {
            let connection = pool[n as usize % pool.len()].lock().await;
            get(connection.clone(), pick(n, keys)).await;
        }
    };
    throughput("find by 64 tasks, naive pool of 10", 2.0, ours, naive).await;
}

/// Gets the same digest; the value is as large as a key.
async fn get(mut connection: MultiplexedConnection, n: u64) {
    let wanted = digest(n).to_bytes();
    let value: Vec<u8> = connection.get(&wanted[..]).await.expect("the server runs");
    assert_eq!(value.len(), VALUE_SIZE);
}

async fn fill(store: &Arc<RedisStore>, keys: u64) {
    let next = Arc::new(AtomicU64::new(1));
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (store, next) = (store.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n > keys {
                    return;
                }
                insert(&*store, n).await;
            }
        });
    }
    tasks.join_all().await;
}

async fn fill_bare(mut connection: MultiplexedConnection, keys: u64) {
    let all: Vec<u64> = (1..=keys).collect();
    for chunk in all.chunks(1_000) {
        let mut pipeline = redis::pipe();
        for n in chunk {
            pipeline.set(&digest(*n).to_bytes()[..], &[0u8; VALUE_SIZE][..]).ignore();
        }
        let () = pipeline.query_async(&mut connection).await.expect("there is room");
    }
}

fn used_memory(server: &Server) -> u64 {
    let info = server.call(&["INFO", "memory"]);
    let line = info.text().lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.expect("INFO has used_memory").trim().parse().expect("a number")
}

const VALUE_SIZE: usize = 200;
