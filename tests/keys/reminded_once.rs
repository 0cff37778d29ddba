//! Two nodes that find the same reminder due in two different hours.

use std::sync::Arc;

use keyward::{
    AuditQuery, KeyStore, MemoryStore, api::ApiKeysBuilder, audit::EventKind, manage::Reminders,
};

use crate::{
    cache::faulty_store::FaultyStore,
    support::{DAY, HOUR, Service},
};

#[tokio::test]
async fn a_reminder_that_another_node_sends_meanwhile_is_not_sent_again_in_the_next_hour() {
    let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
    let (first, second) = (FaultyStore::new(store.clone()), FaultyStore::new(store));
    let handles: Vec<Arc<dyn KeyStore>> = vec![Arc::new(first.clone()), Arc::new(second.clone())];
    let service = Arc::new(Service::with(handles, ApiKeysBuilder::no_automatic_purge));
    drop(service.issue().await);
    service.clock.advance(DAY);

    // Both have looked into the log, and are about to write.
    let mut tasks = Vec::new();
    for (n, wrapper) in [&first, &second].into_iter().enumerate() {
        wrapper.hold_events();
        let nodes = service.clone();
        tasks.push(tokio::spawn(async move {
            let old = Reminders::none().rotation_after(DAY);
            nodes.nodes[n].remind(&nodes.owner, &old).await.unwrap()
        }));
        while wrapper.event_writes() == 0 {
            tokio::task::yield_now().await;
        }
        service.clock.advance(HOUR);
    }

    let mut sent = Vec::new();
    for (task, wrapper) in tasks.into_iter().zip([&first, &second]) {
        wrapper.release_events(1);
        sent.push(task.await.unwrap());
    }
    assert_eq!(sent, [1, 0]);
    let query = AuditQuery::new(&service.owner).kind(EventKind::RotationDue);
    assert_eq!(service.keys().events(query).await.unwrap().len(), 1);
    let heard = service.events.kinds().into_iter().filter(|kind| *kind == EventKind::RotationDue);
    assert_eq!(heard.count(), 1);
}
