use std::{future::Future, sync::Arc, time::Duration};

use keyward::{
    Access, ApiKeys, Expiry, MemoryStore, VerifyError, VerifyRequest,
    audit::EventKind,
    manage::{Issued, KeyChange, Retention, Rotation},
    model::Networks,
};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{DAY, HOUR, Service, format, on_each_store, reason, stores};

/// Returns `ok`, or the reason of a denial.
async fn outcome(node: &ApiKeys, issued: &Issued) -> &'static str {
    let request = VerifyRequest::new().ip("192.0.2.7".parse().unwrap()).require(&["builds:read"]);
    match node.verify(issued.secret.expose(), &request).await {
        Ok(_) => "ok",
        Err(error) => reason(error).as_str(),
    }
}

/// Waits until a node returns the expected outcome.
async fn wait_for_outcome(node: &ApiKeys, issued: &Issued, expected: &str, what: &str) {
    let reached = tokio::time::timeout(Duration::from_secs(30), async {
        while outcome(node, issued).await != expected {
            tokio::task::yield_now().await;
        }
    });
    assert!(reached.await.is_ok(), "{what}: not {expected} within 30 seconds");
}

const CHANGES: [(&str, &str); 11] = [
    ("revoke", "revoked"),
    ("revoke_all", "revoked"),
    ("rotate immediately", "secret_retired"),
    ("rotate twice", "unknown"),
    ("disable", "disabled"),
    ("narrow the access", "access_missing"),
    ("narrow the networks", "network_not_allowed"),
    ("delete", "unknown"),
    ("suspend", "owner_suspended"),
    ("take permissions", "access_missing"),
    ("purge", "unknown"),
];

async fn apply_change(service: &Service, change: &str, issued: &Issued) {
    let (keys, ada, by, id) = (service.keys(), &issued.key.owner, &service.actor, issued.key.id);
    let narrowed = KeyChange::default();
    match change {
        "revoke" => keys.revoke(ada, id, "lost", by).await.unwrap(),
        "revoke_all" => drop(keys.revoke_all(ada, "left", by).await.unwrap()),
        "rotate immediately" => {
            drop(keys.rotate(ada, id, Rotation::immediate(), by).await.unwrap())
        }
        "rotate twice" => {
            for _ in 0..2 {
                drop(keys.rotate(ada, id, Rotation::overlap(HOUR), by).await.unwrap());
            }
        }
        "disable" => drop(keys.disable(ada, id, by).await.unwrap()),
        "narrow the access" => {
            let access = Access::only(["other"]).unwrap();
            drop(keys.update(ada, id, &narrowed.access(access), by).await.unwrap());
        }
        "narrow the networks" => {
            let networks = Networks::only(["10.0.0.0/8"]).unwrap();
            drop(keys.update(ada, id, &narrowed.networks(networks), by).await.unwrap());
        }
        "delete" => keys.delete(ada, id, by).await.unwrap(),
        "suspend" => {
            service.host.set(ada, |account| account.suspended = true);
            keys.account_changed(ada).await.unwrap();
        }
        "take permissions" => {
            let scopes = keyward::model::Scopes::new(["other"]).unwrap();
            service.host.set(ada, |a| a.permissions = keyward::model::Permissions::Only(scopes));
            keys.account_changed(ada).await.unwrap();
        }
        "purge" => {
            service.clock.advance(DAY * 121);
            keys.purge(Retention::default(), |_| ()).await.unwrap();
        }
        other => panic!("unknown change {other}"),
    }
}

async fn issue_for(service: &Service, n: usize, change: &str) -> Issued {
    let owner = crate::support::owner("acme", &format!("ada-{n}"));
    let mut new = keyward::manage::NewKey::new(&owner, "ci").unwrap();
    if change == "purge" {
        new = new.expiry(Expiry::DAYS_30);
    }
    service.keys().issue(new, &service.actor).await.unwrap()
}

#[tokio::test]
async fn every_change_takes_effect_immediately_on_the_node_that_made_it() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        for (n, (change, expected)) in CHANGES.into_iter().enumerate() {
            let issued = issue_for(&service, n, change).await;
            for _ in 0..2 {
                assert_eq!(outcome(service.keys(), &issued).await, "ok", "before {change}");
            }
            apply_change(&service, change, &issued).await;
            assert_eq!(outcome(service.keys(), &issued).await, expected, "{change}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_change_reaches_other_nodes_through_the_feed() {
    on_each_store(async |handles| {
        // The memory store has one handle, which two nodes share.
        let handles = if handles.len() == 1 { vec![handles[0].clone(); 2] } else { handles };
        let service = Service::new(handles);
        let other = &service.nodes[1];
        other.catch_up().await.unwrap();
        for (n, (change, expected)) in CHANGES.into_iter().enumerate() {
            let issued = issue_for(&service, n, change).await;
            wait_for_outcome(other, &issued, "ok", change).await;
            apply_change(&service, change, &issued).await;
            wait_for_outcome(other, &issued, expected, change).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_with_a_lost_answer_is_invalidated() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let service = Service::new(vec![Arc::new(store.clone())]);
    let issued = service.issue().await;
    assert_eq!(outcome(service.keys(), &issued).await, "ok");
    store.set_change_fault(Fault::AnswerLost);
    let (ada, by) = (&service.owner, &service.actor);
    service.keys().revoke(ada, issued.key.id, "", by).await.unwrap_err();
    assert_eq!(outcome(service.keys(), &issued).await, "revoked");
}

#[tokio::test]
async fn a_new_key_is_not_hidden_by_a_negative_entry() {
    on_each_store(async |handles| {
        let handles = if handles.len() == 1 { vec![handles[0].clone(); 2] } else { handles };
        let service = Service::new(handles);
        let (here, other) = (&service.nodes[0], &service.nodes[1]);
        let secret = format().generate().unwrap();
        for node in [here, other] {
            for _ in 0..2 {
                let refused = node.verify(secret.expose(), &VerifyRequest::new()).await;
                assert_eq!(reason(refused.unwrap_err()).as_str(), "unknown");
            }
            node.catch_up().await.unwrap();
        }
        let digest =
            keyward::secret::Hasher::digest(&keyward::Sha256Hasher, secret.expose().as_bytes());
        here.import(service.new_key(), digest, "lc_live_", &service.actor).await.unwrap();
        assert!(here.verify(secret.expose(), &VerifyRequest::new()).await.is_ok());
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            while other.verify(secret.expose(), &VerifyRequest::new()).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_ok(), "the other node never found it");
    })
    .await;
}

#[tokio::test]
async fn a_read_that_began_before_a_revoke_does_not_restore_the_key() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let service = Arc::new(Service::new(vec![Arc::new(store.clone())]));
    let issued = Arc::new(service.issue().await);
    store.hold_finds();
    let early = tokio::spawn({
        let (service, issued) = (service.clone(), issued.clone());
        async move { outcome(service.keys(), &issued).await }
    });
    while store.finds() == 0 {
        tokio::task::yield_now().await;
    }
    let (ada, by) = (&service.owner, &service.actor);
    service.keys().revoke(ada, issued.key.id, "", by).await.unwrap();
    // This look-up starts later and joins the one in flight, which has read the old state.
    let late = tokio::spawn({
        let (service, issued) = (service.clone(), issued.clone());
        async move { outcome(service.keys(), &issued).await }
    });
    tokio::task::yield_now().await;
    store.release_finds(10);
    let _ = early.await.unwrap();
    assert_eq!(late.await.unwrap(), "revoked");
    assert_eq!(outcome(service.keys(), &issued).await, "revoked");
}

#[tokio::test]
async fn a_change_completes_and_notifies_sinks_if_its_future_is_dropped() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(store.clone())]);
    let (ada, by) = (&service.owner, &service.actor);
    let issued = service.issue().await;
    assert_eq!(outcome(service.keys(), &issued).await, "ok");
    store.hold_changes();
    let mut revoke = Box::pin(service.keys().revoke(ada, issued.key.id, "", by));
    assert!(poll_for_a_while(revoke.as_mut()).await.is_pending());
    drop(revoke);
    store.release_changes(1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !service.events.kinds().contains(&EventKind::Revoked) {
        assert!(std::time::Instant::now() < deadline, "no sink was notified");
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(service.keys(), &issued).await, "revoked");
}

async fn poll_for_a_while<F: Future>(
    mut future: std::pin::Pin<&mut F>,
) -> std::task::Poll<F::Output> {
    // The change has started once all ready tasks have run.
    for _ in 0..100 {
        let once =
            std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context)));
        if let ready @ std::task::Poll::Ready(_) = once.await {
            return ready;
        }
        tokio::task::yield_now().await;
    }
    std::task::Poll::Pending
}

#[tokio::test]
async fn expiry_and_the_end_of_an_overlap_are_checked_on_every_hit() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(store.clone())]);
    let new = service.new_key().expiry(Expiry::After(HOUR));
    let short = service.keys().issue(new, &service.actor).await.unwrap();
    let old = service.issue().await;
    let overlap = Rotation::overlap(HOUR);
    let (ada, by) = (&service.owner, &service.actor);
    let _ = service.keys().rotate(ada, old.key.id, overlap, by).await.unwrap();
    for issued in [&short, &old] {
        assert_eq!(outcome(service.keys(), issued).await, "ok");
    }
    let finds = store.finds();
    // The calendar clock is set forward: the machine may have been paused, so both keys are read again.
    service.clock.set(service.now().after(HOUR));
    assert_eq!(outcome(service.keys(), &short).await, "expired");
    assert_eq!(outcome(service.keys(), &old).await, "secret_retired");

    service.clock.set(service.now().before(HOUR));
    assert_eq!(
        outcome(service.keys(), &short).await,
        "expired",
        "setting the clock back restores nothing"
    );
    assert_eq!(outcome(service.keys(), &old).await, "secret_retired");
    assert_eq!(service.keys().health().clock_set_back, HOUR);
    assert_eq!(store.finds(), finds + 4, "each jump is followed by one look-up of each key");
}

#[tokio::test]
async fn networks_access_and_tenant_are_checked_on_every_hit() {
    let service = Service::new(stores::memory());
    let new = service
        .new_key()
        .networks(Networks::only(["192.0.2.0/24"]).unwrap())
        .access(Access::only(["builds:read"]).unwrap());
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    assert_eq!(outcome(service.keys(), &issued).await, "ok");
    let at_home = VerifyRequest::new().ip("192.0.2.7".parse().unwrap());
    for (request, expected) in [
        (VerifyRequest::new().ip("198.51.100.7".parse().unwrap()), "network_not_allowed"),
        (VerifyRequest::new(), "network_not_allowed"),
        (at_home.tenant("other"), "wrong_tenant"),
        (at_home.require(&["builds:write"]), "access_missing"),
    ] {
        let refused = service.keys().verify(issued.secret.expose(), &request).await;
        let Err(VerifyError::Denied(denied)) = refused else { panic!("{expected}") };
        assert_eq!(denied.reason().as_str(), expected);
    }
}
