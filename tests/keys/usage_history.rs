use std::sync::Arc;

use keyward::{
    AuditQuery, ErrorKind, Owner, VerifyRequest,
    audit::EventKind,
    model::{KeyLimits, Rate},
};
use tokio::task::JoinSet;

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{HOUR, SECOND, Service, on_each_store, stores},
};

/// Returns accepted, denied and limited uses of the last hours. The current hour is last.
async fn counted(service: &Service, id: keyward::KeyId, hours: u32) -> Vec<(u64, u64, u64)> {
    for node in &service.nodes {
        node.flush().await.unwrap();
    }
    let history = service.keys().usage_history(&service.owner, id, hours).await.unwrap();
    history.iter().map(|hour| (hour.accepted, hour.denied, hour.limited)).collect()
}

#[tokio::test]
async fn uses_and_rejections_are_counted_by_the_hour() {
    on_each_store(async |handles| {
        for service in [Service::new(handles.clone()), Service::uncached(handles)] {
            let rate = Some(Rate::per_minute(5));
            let new = service.new_key().limits(KeyLimits { rate, ..KeyLimits::default() });
            let issued = service.keys().issue(new, &service.actor).await.unwrap();
            let (text, node) = (issued.secret.expose(), service.nodes.last().unwrap());
            for _ in 0..7 {
                let _ = node.verify(text, &VerifyRequest::new()).await;
            }
            assert!(node.verify(text, &VerifyRequest::new().tenant("other")).await.is_err());
            // Two hours later, without a write in between.
            service.clock.advance(HOUR * 2);
            node.catch_up().await.unwrap();
            for _ in 0..3 {
                assert!(node.verify(text, &VerifyRequest::new()).await.is_ok());
            }
            let id = issued.key.id;
            assert_eq!(counted(&service, id, 4).await, [NONE, (5, 1, 2), NONE, (3, 0, 0)]);
            assert_eq!(
                counted(&service, id, 2).await,
                [NONE, (3, 0, 0)],
                "nothing is counted twice"
            );
            assert!(node.verify(text, &VerifyRequest::new()).await.is_ok());
            assert_eq!(counted(&service, id, 1).await, [(4, 0, 0)], "also at the same instant");
            let hours = service.keys().usage_history(&service.owner, id, 3).await.unwrap();
            assert_eq!(hours[1].hour, hours[0].hour.after(HOUR));
        }
    })
    .await;
}

#[tokio::test]
async fn a_cached_key_counts_each_hour_separately() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    service.clock.advance(HOUR - SECOND);
    for _ in 0..3 {
        service.verify(&issued).await.unwrap();
    }
    service.clock.advance(SECOND);
    for _ in 0..2 {
        service.verify(&issued).await.unwrap();
    }
    assert_eq!(counted(&service, issued.key.id, 2).await, [(3, 0, 0), (2, 0, 0)]);
}

#[tokio::test]
async fn uses_before_and_after_an_account_refresh_are_all_counted() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    for _ in 0..3 {
        service.verify(&issued).await.unwrap();
    }
    // The account is refreshed, without a query of the store.
    service.clock.advance(SECOND * 6);
    service.keys().catch_up().await.unwrap();
    for _ in 0..2 {
        service.verify(&issued).await.unwrap();
    }
    assert_eq!(counted(&service, issued.key.id, 1).await, [(5, 0, 0)]);
    let stored = service.stored(issued.key.id).await;
    assert_eq!(stored.last_used_at, Some(service.now()));
    let log = service.keys().events(AuditQuery::new(&service.owner)).await.unwrap();
    let first = log.iter().filter(|event| event.kind == EventKind::FirstUsed);
    assert_eq!(first.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_use_is_lost_between_many_threads_and_the_writer() {
    let service = Arc::new(Service::new(stores::memory()));
    let mut issued = Vec::new();
    for _ in 0..4 {
        issued.push(service.issue().await);
        service.verify(&issued[issued.len() - 1]).await.unwrap();
    }
    let issued = Arc::new(issued);
    // Meanwhile seconds pass, and the keys are read again, so that their counters are replaced.
    let renewer = tokio::spawn({
        let service = service.clone();
        async move {
            loop {
                service.clock.advance(SECOND / 100);
                service.keys().account_changed(&service.owner).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let mut tasks = JoinSet::new();
    for n in 0..8_usize {
        let (service, issued) = (service.clone(), issued.clone());
        tasks.spawn(async move {
            for round in 0..8_000 {
                let secret = &issued[round % 4].secret;
                service.keys().verify(secret.expose(), &VerifyRequest::new()).await.unwrap();
                if round % 50 == n {
                    service.keys().flush().await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    renewer.abort();
    for issued in issued.iter() {
        let hours = counted(&service, issued.key.id, 700).await;
        assert_eq!(hours.iter().map(|(accepted, ..)| accepted).sum::<u64>(), 16_001);
    }
}

#[tokio::test]
async fn a_failing_store_loses_no_count_and_delays_no_verification() {
    let wrapper = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(wrapper.clone())]);
    let issued = service.issue().await;
    wrapper.set_usage_fault(Fault::Unavailable);
    for n in 0..3 {
        service.verify(&issued).await.unwrap();
        let refused = service.keys().flush().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{n}");
    }
    wrapper.set_usage_fault(Fault::None);
    assert_eq!(counted(&service, issued.key.id, 1).await, [(3, 0, 0)]);
    // A retry must not add the same uses again.
    wrapper.set_usage_fault(Fault::AnswerLost);
    service.verify(&issued).await.unwrap();
    assert!(service.keys().flush().await.is_err());
    wrapper.set_usage_fault(Fault::None);
    assert_eq!(counted(&service, issued.key.id, 1).await, [(4, 0, 0)]);
}

#[tokio::test]
async fn another_owners_counts_are_not_found() {
    let service = Service::new(stores::memory());
    let id = service.issue().await.key.id;
    let bob = Owner::new("acme", "bob").unwrap();
    let refused = service.keys().usage_history(&bob, id, 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

const NONE: (u64, u64, u64) = (0, 0, 0);
