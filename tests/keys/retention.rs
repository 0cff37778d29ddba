//! Cleaning up by itself. Time is virtual: it moves on when nothing else is to be done.

use std::{sync::Arc, time::Duration};

use keyward::{
    Actor, ApiKeys, KeyId, MemoryStore, VerifyRequest, api::ApiKeysBuilder, manage::Retention,
    testing::ManualClock,
};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{DAY, HOUR, format, owner},
};

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn one_node_of_the_cluster_purges_once_an_hour() {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let node = || begin(&store, &clock).build();
    let (one, two) = (node(), node());
    let first = revoked_key(&one).await;
    clock.advance(TEN_MINUTES);
    let second = revoked_key(&one).await;

    clock.advance(DAY * 90 - TEN_MINUTES + Duration::from_secs(1));
    work(&one).await;
    assert!(!there(&one, first).await && there(&one, second).await);
    // Now the second one is old enough as well, and another node comes to life; but of this hour,
    // the work is done.
    clock.advance(TEN_MINUTES);
    work(&two).await;
    work(&one).await;
    assert!(there(&one, second).await);
    clock.advance(HOUR);
    work(&two).await;
    assert!(!there(&one, second).await);
}

#[tokio::test(start_paused = true)]
async fn the_host_sets_the_retention_or_disables_the_purge() {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let never = begin(&store, &clock).no_automatic_purge().build();
    let id = revoked_key(&never).await;
    clock.advance(DAY * 1_000);
    work(&never).await;
    assert!(there(&never, id).await);
    let weekly = begin(&store, &clock).retention(Retention::default().keys(DAY * 2_000)).build();
    work(&weekly).await;
    assert!(there(&never, id).await);
    clock.advance(DAY * 1_000 + Duration::from_secs(1));
    work(&weekly).await;
    assert!(!there(&never, id).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_purged_after_a_shutdown() {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let keys = begin(&store, &clock).build();
    let id = revoked_key(&keys).await;
    work(&keys).await;
    keys.shutdown().await.unwrap();
    clock.advance(DAY * 91);
    work(&keys).await;
    assert!(there(&keys, id).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_purge_is_reported_and_retried_an_hour_later() {
    let (store, clock) = (FaultyStore::new(Arc::new(MemoryStore::new())), ManualClock::default());
    let node = ApiKeys::builder_on(Arc::new(store.clone()), format()).clock(clock.clone()).build();
    let id = revoked_key(&node).await;
    clock.advance(DAY * 91);
    store.set_charge_fault(Fault::Unavailable);
    work(&node).await;
    assert!(there(&node, id).await);
    assert_eq!(node.health().failed_jobs, 1);
    store.set_charge_fault(Fault::None);
    clock.advance(HOUR);
    work(&node).await;
    assert!(!there(&node, id).await);
    assert_eq!(node.health().failed_jobs, 1);
}

fn begin(store: &MemoryStore, clock: &ManualClock) -> ApiKeysBuilder {
    ApiKeys::builder(store.clone(), format()).clock(clock.clone())
}

async fn revoked_key(keys: &ApiKeys) -> KeyId {
    let by = Actor::system("test");
    let ada = owner("acme", "ada");
    let issued = keys.issue(keyward::manage::NewKey::new(&ada, "ci").unwrap(), &by).await.unwrap();
    keys.revoke(&ada, issued.key.id, "", &by).await.unwrap();
    issued.key.id
}

async fn there(keys: &ApiKeys, id: KeyId) -> bool {
    keys.get(&owner("acme", "ada"), id).await.is_ok()
}

/// Lets a node do what it does by itself, for a virtual minute.
async fn work(keys: &ApiKeys) {
    let _denied = keys.verify("lc_live_nothing", &VerifyRequest::new()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}
