//! Every store that a test can run on.

use std::sync::Arc;

use keyward::{KeyStore, MemoryStore};

/// Handles to one fresh store, as two nodes of a service would have them.
pub type Handles = Vec<Arc<dyn KeyStore>>;

/// Runs a test on a fresh one of each store; the name tells which one failed.
pub async fn on_each_store(test: impl AsyncFn(Handles)) {
    println!("on memory");
    test(memory()).await;
}

pub fn memory() -> Handles {
    vec![Arc::new(MemoryStore::new())]
}
