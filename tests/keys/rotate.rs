use keyward::{
    Access, ErrorKind, Expiry, Status,
    audit::EventKind,
    manage::{Issued, Rotation},
    model::{KeyLimits, Metadata, Networks, Rate},
};

use crate::support::{DAY, HOUR, MICRO, SECOND, Service, on_each_store};

async fn rotate(service: &Service, issued: &Issued, rotation: Rotation) -> Issued {
    service.keys().rotate(&service.owner, issued.key.id, rotation, &service.actor).await.unwrap()
}

#[tokio::test]
async fn an_immediate_rotation_ends_the_old_secret() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let old = service.issue().await;
        let new = rotate(&service, &old, Rotation::immediate()).await;
        assert_eq!(new.key.id, old.key.id);
        assert_eq!(service.verify(&old).await.unwrap_err().as_str(), "secret_retired");
        assert!(service.verify(&new).await.is_ok());
        assert!(new.secret.expose().starts_with(&new.key.hint));
        assert_ne!(new.key.hint, old.key.hint);
    })
    .await;
}

#[tokio::test]
async fn an_immediate_rotation_ends_the_old_secret_on_a_node_with_a_slow_clock() {
    on_each_store(async |handles| {
        let slow = Service::new(handles.clone());
        let service = Service::new(handles);
        service.clock.advance(SECOND * 3);
        let old = service.issue().await;
        assert!(slow.verify(&old).await.is_ok());
        let new = rotate(&service, &old, Rotation::immediate()).await;
        assert_eq!(slow.verify(&old).await.unwrap_err().as_str(), "secret_retired");
        assert!(slow.verify(&new).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_repeated_immediate_rotation_ends_all_old_secrets() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let first = service.issue().await;
        let second = rotate(&service, &first, Rotation::overlap(DAY)).await;
        let nightly = Rotation::immediate().token("nightly");
        let third = rotate(&service, &first, nightly.clone()).await;
        assert_eq!(*third.key, service.stored(first.key.id).await);
        service.clock.advance(SECOND * 10);
        let fourth = rotate(&service, &first, nightly).await;
        assert_eq!(*fourth.key, service.stored(first.key.id).await);
        for old in [&first, &second, &third] {
            assert!(service.verify(old).await.is_err());
        }
        assert!(service.verify(&fourth).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn both_secrets_work_until_the_exact_end_of_an_overlap() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let old = service.issue().await;
        let new = rotate(&service, &old, Rotation::overlap(HOUR)).await;
        let end = service.now().after(HOUR);
        service.clock.set(end.before(MICRO));
        assert!(service.verify(&old).await.is_ok());
        assert!(service.verify(&new).await.is_ok());
        service.clock.set(end);
        assert_eq!(service.verify(&old).await.unwrap_err().as_str(), "secret_retired");
        assert!(service.verify(&new).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_second_rotation_in_an_overlap_leaves_the_two_newest_secrets() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let first = service.issue().await;
        let second = rotate(&service, &first, Rotation::overlap(DAY)).await;
        service.clock.advance(SECOND);
        let third = rotate(&service, &second, Rotation::overlap(HOUR)).await;
        assert_eq!(service.verify(&first).await.unwrap_err().as_str(), "unknown");
        assert!(service.verify(&second).await.is_ok());
        assert!(service.verify(&third).await.is_ok());
        service.clock.advance(HOUR);
        assert!(service.verify(&second).await.is_err());
        assert!(service.verify(&third).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_rotation_changes_nothing_but_the_secret() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let new = service
            .new_key()
            .expiry(Expiry::DAYS_30)
            .access(Access::only(["builds:read"]).unwrap())
            .networks(Networks::only(["192.0.2.0/24"]).unwrap())
            .limits(KeyLimits { rate: Some(Rate::per_minute(5)), ..KeyLimits::default() })
            .metadata(Metadata::new([("team", "billing")]).unwrap());
        let old = service.keys().issue(new, &service.actor).await.unwrap();
        service.clock.advance(DAY);
        let answer = rotate(&service, &old, Rotation::overlap(DAY * 365)).await.key;
        let stored = service.stored(old.key.id).await;
        assert_eq!(*answer, stored, "the answer is the stored key");
        let mut expected = (*old.key).clone();
        expected.hint = stored.hint.clone();
        expected.retiring = stored.retiring.clone();
        expected.rotated_at = Some(service.now());
        expected.revision += 1;
        assert_eq!(stored, expected);
        assert_eq!(stored.retiring.unwrap().hint, old.key.hint);
    })
    .await;
}

#[tokio::test]
async fn an_overlap_neither_extends_nor_revives_a_key() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let new = service.new_key().expiry(Expiry::After(HOUR));
        let old = service.keys().issue(new, &service.actor).await.unwrap();
        let new = rotate(&service, &old, Rotation::overlap(DAY * 365)).await;
        service.clock.advance(HOUR);
        for issued in [&old, &new] {
            assert_eq!(service.verify(issued).await.unwrap_err().as_str(), "expired");
        }
        let id = old.key.id;
        let again =
            service.keys().rotate(&service.owner, id, Rotation::immediate(), &service.actor);
        assert_eq!(again.await.unwrap_err().kind(), ErrorKind::NotLive);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_not_rotated_and_a_disabled_one_stays_disabled() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, owner, by) = (service.keys(), &service.owner, &service.actor);
        let old = service.issue().await;
        keys.disable(owner, old.key.id, by).await.unwrap();
        let new = rotate(&service, &old, Rotation::overlap(HOUR)).await;
        assert_eq!(new.key.status(service.now()), Status::Disabled);
        assert_eq!(service.verify(&new).await.unwrap_err().as_str(), "disabled");

        keys.revoke(owner, old.key.id, "", by).await.unwrap();
        let again = keys.rotate(owner, old.key.id, Rotation::immediate(), by).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::NotLive);
        for issued in [&old, &new] {
            assert_eq!(service.verify(issued).await.unwrap_err().as_str(), "revoked");
        }
    })
    .await;
}

#[tokio::test]
async fn a_retried_rotation_keeps_the_secret_that_the_client_has() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let old = service.issue().await;
        let rotation = Rotation::overlap(HOUR).token("deploy-1");
        let lost = rotate(&service, &old, rotation.clone()).await;
        let overlap_end = service.stored(old.key.id).await.retiring.unwrap().ends_at;
        service.clock.advance(SECOND * 10);
        let retried = rotate(&service, &old, rotation).await;

        let stored = service.stored(old.key.id).await;
        assert_eq!(*retried.key, stored);
        assert_eq!(stored.retiring.unwrap().ends_at, overlap_end, "the overlap is not extended");
        assert_eq!(service.verify(&lost).await.unwrap_err().as_str(), "unknown");
        assert!(service.verify(&old).await.is_ok(), "the client still has the old secret");
        assert!(service.verify(&retried).await.is_ok());

        // Another token makes another rotation.
        let next = rotate(&service, &old, Rotation::overlap(HOUR).token("deploy-2")).await;
        assert_eq!(service.verify(&old).await.unwrap_err().as_str(), "unknown");
        assert!(service.verify(&retried).await.is_ok());
        assert!(service.verify(&next).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn each_rotation_is_logged_once() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let old = service.issue().await;
        let _ = rotate(&service, &old, Rotation::overlap(HOUR)).await;
        let _ = rotate(&service, &old, Rotation::immediate()).await;
        let query = keyward::AuditQuery::new(&service.owner).kind(EventKind::Rotated);
        let events = service.keys().events(query).await.unwrap();
        assert_eq!(events.len(), 2);
        assert!(events.iter().all(|event| event.key_id == Some(old.key.id)));
    })
    .await;
}
