use std::time::Duration;

use keyward::{
    Actor, AuditQuery, ErrorKind, VerifyRequest,
    audit::EventKind,
    manage::{Issued, Rotation},
    model::{KeyLimits, Rate},
};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{HOUR, Service, on_each_store, stores},
};

async fn identified(service: &Service, issued: &Issued) -> Option<(bool, bool)> {
    let found = service.nodes.last().unwrap().identify(issued.secret.expose()).await.unwrap()?;
    Some((found.key.id == issued.key.id, found.superseded))
}

#[tokio::test]
async fn a_secret_is_identified_until_its_key_is_deleted() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, owner, by) = (service.keys(), &service.owner, &service.actor);
        let first = service.issue().await;
        assert_eq!(identified(&service, &first).await, Some((true, false)));
        let second = keys.rotate(owner, first.key.id, Rotation::overlap(HOUR), by).await.unwrap();
        assert_eq!(identified(&service, &first).await, Some((true, false)), "it still works");
        service.clock.advance(HOUR);
        assert_eq!(identified(&service, &first).await, Some((true, true)));
        assert_eq!(identified(&service, &second).await, Some((true, false)));
        keys.revoke(owner, first.key.id, "", by).await.unwrap();
        assert_eq!(identified(&service, &second).await, Some((true, false)));
        keys.delete(owner, first.key.id, by).await.unwrap();
        assert_eq!(identified(&service, &second).await, None);
        assert!(keys.identify("no key at all").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn identifying_a_secret_counts_no_use() {
    let service = Service::new(stores::memory());
    let limits = KeyLimits { rate: Some(Rate::per_hour(1)), ..KeyLimits::default() };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    for _ in 0..3 {
        assert!(identified(&service, &issued).await.is_some());
    }
    service.keys().flush().await.unwrap();
    let stored = service.stored(issued.key.id).await;
    assert_eq!((stored.first_used_at, stored.last_used_at), (None, None));
    assert!(service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
}

#[tokio::test]
async fn a_leak_is_recorded_once_per_location() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = service.issue().await;
        let scanner = Actor::system("scanner");
        for location in ["a gist", "a gist", "an issue", "a gist"] {
            service.clock.advance(Duration::from_secs(1));
            service.keys().record_leak(&issued.key, location, &scanner).await.unwrap();
        }
        let query = AuditQuery::new(&service.owner).kind(EventKind::Leaked);
        let recorded = service.keys().events(query).await.unwrap();
        let locations: Vec<_> = recorded.iter().map(|event| event.reason.as_deref()).collect();
        assert_eq!(locations, [Some("an issue"), Some("a gist")]);
        let received = service.events.all();
        assert_eq!(received.iter().filter(|event| event.kind == EventKind::Leaked).count(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_leak_that_two_scanners_find_is_recorded_for_each() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    for scanner in ["github", "gitlab", "github"] {
        let by = Actor::system(scanner);
        service.keys().record_leak(&issued.key, "a gist", &by).await.unwrap();
    }
    let query = AuditQuery::new(&service.owner).kind(EventKind::Leaked);
    assert_eq!(service.keys().events(query).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_secret_that_a_retried_immediate_rotation_ended_is_still_identified() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    for _ in 0..2 {
        service.clock.advance(Duration::from_secs(10));
        let rotation = Rotation::immediate().token("deploy-1");
        let (owner, by) = (&service.owner, &service.actor);
        let _ = service.keys().rotate(owner, issued.key.id, rotation, by).await.unwrap();
    }
    assert_eq!(identified(&service, &issued).await, Some((true, true)));
}

#[tokio::test]
async fn identifying_a_secret_is_unavailable_while_the_store_is_down() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![std::sync::Arc::new(store.clone())]);
    let issued = service.issue().await;
    store.set_find_fault(Fault::Unavailable);
    let error = service.keys().identify(issued.secret.expose()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
