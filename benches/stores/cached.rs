//! Measures the memory of cached keys, and shows that a node loads none before it is used.

use keyward::{
    ApiKeys, Hasher, KeyFormat, SecretDigest, Sha256Hasher, SqliteStore, VerifyRequest,
    secret::Secret, verify::CacheOptions,
};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::{
    measure::{per_key, resident},
    sqlite::fill,
};

pub async fn measure(keys: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("keys.db");
    let store = SqliteStore::open(&path).await.expect("a new file");
    let format = KeyFormat::builder("lc").build().expect("a plain word");
    let secret = |_| format.generate().expect("the system has randomness");
    let secrets: Vec<Secret> = (0..keys).map(secret).collect();
    let digest = |n: u64| -> SecretDigest {
        Sha256Hasher.digest(secrets[n as usize - 1].expose().as_bytes())
    };
    let options = SqliteConnectOptions::new().filename(&path).disable_statement_logging();
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("the store made the file");
    fill(&pool, keys, digest).await;

    let before = resident();
    let options = CacheOptions::default().max_keys(2 * keys as usize);
    let node = ApiKeys::builder(store, format).cache(options).build();
    println!("  cached when the node starts: {}", node.health().cached_keys);
    for secret in &secrets {
        node.verify(secret.expose(), &VerifyRequest::new()).await.expect("it was issued");
    }
    // Unwritten uses are not part of the cache.
    node.flush().await.expect("a private file");
    assert_eq!(node.health().cached_keys as u64, keys);
    per_key("cached", resident().saturating_sub(before), keys);
}
