use std::sync::Arc;

use keyward::{KeyStore, MemoryStore, store::conformance::Suite};

async fn open() -> Vec<Arc<dyn KeyStore>> {
    let store = MemoryStore::new();
    vec![Arc::new(store.clone()), Arc::new(store)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_conforms() {
    Suite::new().rounds(200).run(open).await;
}
