//! The hourly purge. Time is virtual: it advances when all tasks are idle.

use std::{sync::Arc, time::Duration};

use keyward::{
    Actor, ApiKeys, KeyId, MemoryStore, VerifyRequest,
    api::ApiKeysBuilder,
    manage::Retention,
    store::{ChangeFeed, OneTimeCode, OneTimeCodes},
    system::Clock,
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
    let node = || builder(&store, &clock).build();
    let (one, two) = (node(), node());
    let first = revoked_key(&one).await;
    clock.advance(TEN_MINUTES);
    let second = revoked_key(&one).await;

    clock.advance(DAY * 90 - TEN_MINUTES + Duration::from_secs(1));
    run_jobs(&one).await;
    assert!(!exists(&one, first).await && exists(&one, second).await);
    // Now the second key is old enough too, and another node starts; but the purge of this hour is done.
    clock.advance(TEN_MINUTES);
    run_jobs(&two).await;
    run_jobs(&one).await;
    assert!(exists(&one, second).await);
    clock.advance(HOUR);
    run_jobs(&two).await;
    assert!(!exists(&one, second).await);
}

#[tokio::test(start_paused = true)]
async fn the_host_sets_the_retention_or_disables_the_purge() {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let never = builder(&store, &clock).no_automatic_purge().build();
    let id = revoked_key(&never).await;
    clock.advance(DAY * 1_000);
    run_jobs(&never).await;
    assert!(exists(&never, id).await);
    let weekly = builder(&store, &clock).retention(Retention::default().keys(DAY * 2_000)).build();
    run_jobs(&weekly).await;
    assert!(exists(&never, id).await);
    clock.advance(DAY * 1_000 + Duration::from_secs(1));
    run_jobs(&weekly).await;
    assert!(!exists(&never, id).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_purged_after_a_shutdown() {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let keys = builder(&store, &clock).build();
    let id = revoked_key(&keys).await;
    run_jobs(&keys).await;
    keys.shutdown().await.unwrap();
    clock.advance(DAY * 91);
    run_jobs(&keys).await;
    assert!(exists(&keys, id).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_purge_is_reported_and_retried_an_hour_later() {
    let (store, clock) = (FaultyStore::new(Arc::new(MemoryStore::new())), ManualClock::default());
    let node = ApiKeys::builder_on(Arc::new(store.clone()), format()).clock(clock.clone()).build();
    let id = revoked_key(&node).await;
    clock.advance(DAY * 91);
    store.set_charge_fault(Fault::Unavailable);
    run_jobs(&node).await;
    assert!(exists(&node, id).await);
    assert_eq!(node.health().failed_jobs, 1);
    store.set_charge_fault(Fault::None);
    clock.advance(HOUR);
    run_jobs(&node).await;
    assert!(!exists(&node, id).await);
    assert_eq!(node.health().failed_jobs, 1);
}

#[tokio::test]
async fn a_purge_removes_usage_history_codes_and_feed_entries_as_well() {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let node = builder(&store, &clock).no_automatic_purge().build();
    let (ada, by) = (owner("acme", "ada"), Actor::system("test"));
    let new = keyward::NewKey::new(&ada, "ci").unwrap();
    let issued = node.issue(new, &by).await.unwrap();
    node.verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap();
    node.flush().await.unwrap();
    let digest = keyward::Hasher::digest(&keyward::Sha256Hasher, b"ada@example.com");
    let code = OneTimeCode { digest, ends_at: clock.now(), tries: 1 };
    store.put_code(&digest, &code).await.unwrap();
    let uses = async || {
        let history = node.usage_history(&ada, issued.key.id, 31 * 24).await.unwrap();
        history.iter().map(|hour| hour.accepted).sum::<u64>()
    };

    clock.advance(DAY * 30 + HOUR);
    assert_eq!(uses().await, 1);
    node.purge(Retention::default(), |_| {}).await.unwrap();
    assert_eq!(uses().await, 0);
    let now = clock.now();
    assert_eq!(store.purge_codes(now, 10).await.unwrap(), 0, "the purge has removed the code");
    assert_eq!(store.purge_changes(now).await.unwrap(), 0, "the purge has removed the entries");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_uses_cannot_be_written_still_purges() {
    let (store, clock) = (FaultyStore::new(Arc::new(MemoryStore::new())), ManualClock::default());
    let node = ApiKeys::builder_on(Arc::new(store.clone()), format()).clock(clock.clone()).build();
    let id = revoked_key(&node).await;
    let (by, new) = (Actor::system("test"), keyward::NewKey::new(&owner("acme", "ada"), "ci"));
    let used = node.issue(new.unwrap(), &by).await.unwrap();
    store.set_use_fault(Fault::Unavailable);
    clock.advance(DAY * 91);
    node.verify(used.secret.expose(), &VerifyRequest::new()).await.unwrap();
    run_jobs(&node).await;
    assert!(!exists(&node, id).await);
}

fn builder(store: &MemoryStore, clock: &ManualClock) -> ApiKeysBuilder {
    ApiKeys::builder(store.clone(), format()).clock(clock.clone())
}

async fn revoked_key(keys: &ApiKeys) -> KeyId {
    let by = Actor::system("test");
    let ada = owner("acme", "ada");
    let issued = keys.issue(keyward::manage::NewKey::new(&ada, "ci").unwrap(), &by).await.unwrap();
    keys.revoke(&ada, issued.key.id, "", &by).await.unwrap();
    issued.key.id
}

async fn exists(keys: &ApiKeys, id: KeyId) -> bool {
    keys.get(&owner("acme", "ada"), id).await.is_ok()
}

/// Runs the background jobs of a node for one virtual minute.
async fn run_jobs(keys: &ApiKeys) {
    let _denied = keys.verify("lc_live_nothing", &VerifyRequest::new()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}
