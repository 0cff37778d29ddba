//! Measures the memory of keys in `MemoryStore`.

use std::hint::black_box;

use keyward::MemoryStore;

use crate::{
    measure::{per_key, resident},
    sample::insert,
};

pub async fn measure(keys: u64) {
    let before = resident();
    let store = black_box(MemoryStore::new());
    for n in 1..=keys {
        insert(&store, n).await;
    }
    per_key("memory, with one audit event each", resident() - before, keys);
    drop(store);
}
