//! Keys that a node has in its cache: what they weigh, and that none is there before it is used.

use keyward::{
    Actor, ApiKeys, KeyFormat, NewKey, Owner, Request, SqliteStore, cache::CacheOptions,
    key::Secret,
};
use tokio::task::JoinSet;

use crate::measure::{per_key, resident};

pub async fn measure(keys: u64) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let store = SqliteStore::open(folder.path().join("keys.db")).await.expect("a new file");
    let format = KeyFormat::builder("lc").build().expect("a plain word");
    let secrets = issue(&ApiKeys::builder(store.clone(), format.clone()).build(), keys).await;

    let before = resident();
    let roomy = CacheOptions::default().max_keys(2 * keys as usize);
    let node = ApiKeys::builder(store, format).cache(roomy).build();
    println!("  cached when the node starts: {}", node.health().cached_keys);
    for secret in &secrets {
        node.verify(secret.expose(), &Request::new()).await.expect("it was issued");
    }
    // What verifications leave to be written is no part of the cache.
    node.flush().await.expect("a file of our own");
    assert_eq!(node.health().cached_keys as u64, keys);
    per_key("cached", resident().saturating_sub(before), keys);
}

async fn issue(keys: &ApiKeys, count: u64) -> Vec<Secret> {
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let keys = keys.clone();
        tasks.spawn(async move {
            let mut secrets = Vec::new();
            for n in (worker..count).step_by(WORKERS as usize) {
                let owner = Owner::new("acme", &format!("account{n}")).expect("plain words");
                let new = NewKey::new(&owner, "ci-pipeline").expect("a plain word");
                let issued = keys.issue(new, &Actor::system("bench")).await;
                secrets.push(issued.expect("a file of our own").secret);
            }
            secrets
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

const WORKERS: u64 = 64;
