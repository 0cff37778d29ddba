//! Compares `SqliteStore` with the same SELECT by sqlx alone.

use std::{fs, sync::Arc};

use keyward::{KeyStore, SecretDigest, SqliteStore};
use sqlx::{
    ConnectOptions, Executor, Row,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::{
    digest,
    measure::{latency, per_key},
    pick,
};

pub async fn measure(keys: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("keys.db");
    let store = Arc::new(SqliteStore::open(&path).await.expect("a new file"));
    let options = SqliteConnectOptions::new().filename(&path).disable_statement_logging();
    let pool = SqlitePoolOptions::new().test_before_acquire(false).max_connections(4);
    let pool = pool.connect_with(options).await.expect("the store made the file");
    fill(&pool, keys, digest).await;
    per_key("disk", fs::metadata(&path).expect("the file").len(), keys);

    let ours = move |n| {
        let store = store.clone();
        async move {
            let found = store.find(&[digest(pick(n, keys))]).await.expect("a private file");
            assert!(found.is_some());
        }
    };
    let bare = move |n| {
        let pool = pool.clone();
        async move {
            let wanted = digest(pick(n, keys)).to_bytes().to_vec();
            let row = sqlx::query(FIND).bind(wanted).fetch_optional(&pool).await;
            let row = row.expect("a private file").expect("the key is there");
            assert!(!row.get::<&[u8], _>("digest").is_empty());
        }
    };
    latency("find", 1.3, ours, bare).await;
}

/// Inserts keys by their digests. SQLite has no SHA-256, so the digests of a chunk are passed as one blob.
pub async fn fill(pool: &sqlx::SqlitePool, keys: u64, digest: impl Fn(u64) -> SecretDigest) {
    let numbers = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2) ";
    let insert_keys = numbers.to_owned()
        + "INSERT INTO keyward_keys (id, tenant, account, name, hint, access, metadata, created_at, \
           revision) SELECT unhex(printf('0190a5b2000070008000%012x', i)), 'acme', 'account' || i, \
           'ci-pipeline', 'lc_live_a1b2c3d4', '[\"builds:read\"]', '{}', 0, 0 FROM n";
    let insert_secrets = numbers.to_owned()
        + "INSERT INTO keyward_secrets (digest, key_id) SELECT substr(?3, (i - ?1) * 35 + 1, 35), \
           unhex(printf('0190a5b2000070008000%012x', i)) FROM n";
    let mut transaction = pool.begin().await.expect("no other connection writes");
    let all: Vec<u64> = (1..=keys).collect();
    for chunk in all.chunks(10_000) {
        let (first, last) = (chunk[0] as i64, chunk[chunk.len() - 1] as i64);
        let digests: Vec<u8> = chunk.iter().flat_map(|n| digest(*n).to_bytes()).collect();
        let rows = sqlx::query(sqlx::AssertSqlSafe(insert_keys.clone())).bind(first).bind(last);
        transaction.execute(rows).await.expect("new keys");
        let rows = sqlx::query(sqlx::AssertSqlSafe(insert_secrets.clone())).bind(first).bind(last);
        transaction.execute(rows.bind(digests)).await.expect("new secrets");
    }
    transaction.commit().await.expect("there is room");
    pool.execute("PRAGMA wal_checkpoint(TRUNCATE); ANALYZE")
        .await
        .expect("no other connection writes");
}

const FIND: &str = "SELECT k.*, digest, ends_at FROM keyward_secrets \
    JOIN keyward_keys k ON id = key_id WHERE digest = ?1";
