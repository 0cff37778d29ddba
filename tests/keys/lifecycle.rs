use keyward::{
    Access, AuditQuery, Error, ErrorKind, Expiry, KeyId, NewKey, Owner, OwnerScope, Status,
    audit::EventKind,
    manage::{KeyChange, Page, Retention, Rotation},
    model::{Metadata, Networks},
};

use crate::support::{DAY, HOUR, MICRO, Service, on_each_store, owner};

#[tokio::test]
async fn an_update_is_stored_and_an_update_without_changes_writes_nothing() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let change = KeyChange::default()
            .name("deploys \"of\"\nthe week")
            .unwrap()
            .access(Access::only(["deploy"]).unwrap())
            .networks(Networks::only(["2001:db8::/32"]).unwrap())
            .metadata(Metadata::new([("team", "ops")]).unwrap());
        let changed = keys.update(ada, issued.key.id, &change, by).await.unwrap();
        assert_eq!(changed.name.as_str(), "deploys \"of\"\nthe week");
        assert_eq!(*changed, service.stored(issued.key.id).await);

        let again = keys.update(ada, issued.key.id, &change, by).await.unwrap();
        assert_eq!(again, changed);
        let updates = keys.events(AuditQuery::new(ada).kind(EventKind::Updated)).await.unwrap();
        assert_eq!(updates.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_disabled_key_is_denied_until_it_is_enabled() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let off = keys.disable(ada, issued.key.id, by).await.unwrap();
        assert_eq!(off.status(service.now()), Status::Disabled);
        assert_eq!(service.verify(&issued).await.unwrap_err().as_str(), "disabled");
        service.clock.advance(HOUR);
        let still_off = keys.disable(ada, issued.key.id, by).await.unwrap();
        assert_eq!(still_off.disabled_at, off.disabled_at);
        keys.enable(ada, issued.key.id, by).await.unwrap();
        assert!(service.verify(&issued).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn no_operation_restores_a_revoked_key() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let id = issued.key.id;
        keys.disable(ada, id, by).await.unwrap();
        keys.revoke(ada, id, "laptop lost", by).await.unwrap();
        let change = KeyChange::default().access(Access::Inherited).name("again").unwrap();
        let attempts: [Result<_, Error>; 4] = [
            keys.enable(ada, id, by).await.map(drop),
            keys.disable(ada, id, by).await.map(drop),
            keys.update(ada, id, &change, by).await.map(drop),
            keys.rotate(ada, id, Rotation::immediate(), by).await.map(drop),
        ];
        for attempt in attempts {
            assert_eq!(attempt.unwrap_err().kind(), ErrorKind::NotLive);
        }
        assert_eq!(service.verify(&issued).await.unwrap_err().as_str(), "revoked");
        let first = service.stored(id).await.revoked.unwrap();
        service.clock.advance(HOUR);
        keys.revoke(ada, id, "again", by).await.unwrap();
        assert_eq!(service.stored(id).await.revoked.unwrap(), first);
        assert_eq!(first.reason, "laptop lost");
    })
    .await;
}

#[tokio::test]
async fn no_reason_text_prevents_a_revocation() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let long = "ä\u{1f511}".repeat(1_000_000);
        let reasons = [
            ("", ""),
            ("\0leaked\0", "\u{fffd}leaked\u{fffd}"),
            ("'; DROP TABLE keyward_keys; --", "'; DROP TABLE keyward_keys; --"),
            (&long, &"ä\u{1f511}".repeat(500)),
        ];
        for (reason, stored) in reasons {
            let issued = service.issue().await;
            keys.revoke(ada, issued.key.id, reason, by).await.unwrap();
            assert_eq!(service.verify(&issued).await.unwrap_err().as_str(), "revoked");
            assert_eq!(service.stored(issued.key.id).await.revoked.unwrap().reason, *stored);
        }
    })
    .await;
}

#[tokio::test]
async fn revoke_all_revokes_exactly_the_keys_of_the_owner() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let mut mine = Vec::new();
        for _ in 0..12 {
            mine.push(service.issue().await);
        }
        keys.revoke(ada, mine[0].key.id, "first", by).await.unwrap();
        let strangers = [owner("acme", "bob"), owner("other", "ada"), owner("acm", "eada")];
        let mut others = Vec::new();
        for stranger in &strangers {
            others.push(keys.issue(NewKey::new(stranger, "x").unwrap(), by).await.unwrap());
        }
        let revoked = keys.revoke_all(ada, "left the company", by).await.unwrap();
        assert_eq!(revoked.len(), 11);
        for issued in &mine {
            assert_eq!(service.verify(issued).await.unwrap_err().as_str(), "revoked");
        }
        for issued in &others {
            assert!(service.verify(issued).await.is_ok());
        }
        let query = AuditQuery::new(ada).kind(EventKind::Revoked);
        assert_eq!(keys.events(query).await.unwrap().len(), 12);
        let received = service.events.kinds().iter().filter(|k| **k == EventKind::Revoked).count();
        assert_eq!(received, 12);
        assert!(keys.revoke_all(ada, "again", by).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_id_of_another_owner_or_tenant_is_not_found_by_any_operation() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, by) = (service.keys(), &service.actor);
        let issued = service.issue().await;
        let id = issued.key.id;
        let unknown: KeyId = "0190a5b2-0000-7000-8000-000000000000".parse().unwrap();
        let bob = owner("acme", "bob");
        let elsewhere = owner("other", "ada");
        let attempts_by: [(OwnerScope, KeyId); 5] = [
            ((&bob).into(), id),
            ((&elsewhere).into(), id),
            (OwnerScope::Tenant("other"), id),
            (OwnerScope::Tenant("ACME"), id),
            ((&service.owner).into(), unknown),
        ];
        let change = KeyChange::default().name("mine now").unwrap();
        for (within, id) in attempts_by {
            let attempts = [
                keys.get(within, id).await.map(drop),
                keys.update(within, id, &change, by).await.map(drop),
                keys.disable(within, id, by).await.map(drop),
                keys.enable(within, id, by).await.map(drop),
                keys.rotate(within, id, Rotation::immediate(), by).await.map(drop),
                keys.revoke(within, id, "", by).await,
                keys.delete(within, id, by).await,
            ];
            for attempt in attempts {
                let error = attempt.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert_eq!(
                    error.to_string(),
                    "no such key in this tenant or of this owner: check its id"
                );
            }
        }
        assert!(service.verify(&issued).await.is_ok());
        assert!(keys.list(&bob, Page::first()).await.unwrap().keys.is_empty());
        assert!(keys.events(AuditQuery::new(&elsewhere)).await.unwrap().is_empty());
        assert_eq!(keys.get(OwnerScope::Tenant("acme"), id).await.unwrap().id, id);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_keys_secret_is_unknown_and_its_audit_trail_remains() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        keys.delete(ada, issued.key.id, by).await.unwrap();
        assert_eq!(service.verify(&issued).await.unwrap_err().as_str(), "unknown");
        assert!(keys.list(ada, Page::first()).await.unwrap().keys.is_empty());
        let trail = keys.events(AuditQuery::new(ada).key(issued.key.id)).await.unwrap();
        let kinds: Vec<EventKind> = trail.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Deleted, EventKind::Created]);
    })
    .await;
}

#[tokio::test]
async fn pages_cover_every_key_once_while_keys_are_issued() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let ada = &service.owner;
        let mut expected = Vec::new();
        for _ in 0..25 {
            expected.push(service.issue().await.key.id);
        }
        expected.reverse();
        let mut page = Page::first().limit(4);
        let mut seen = Vec::new();
        loop {
            let listed = service.keys().list(ada, page).await.unwrap();
            seen.extend(listed.keys.iter().map(|key| key.id));
            let _ = service.issue().await;
            match listed.next {
                Some(next) => page = Page::first().limit(4).after(next),
                None => break,
            }
        }
        assert_eq!(seen, expected);
        let exact = service.keys().list(ada, Page::first().limit(32)).await.unwrap();
        assert_eq!((exact.keys.len(), exact.next), (32, None), "25 before, 7 meanwhile");
    })
    .await;
}

#[tokio::test]
async fn a_list_can_be_filtered_by_status_and_cover_a_tenant() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let active = service.issue().await.key.id;
        let disabled = service.issue().await.key.id;
        let revoked = service.issue().await.key.id;
        let short = service.new_key().expiry(Expiry::After(HOUR));
        let expired = keys.issue(short, by).await.unwrap().key.id;
        keys.disable(ada, disabled, by).await.unwrap();
        keys.revoke(ada, revoked, "", by).await.unwrap();
        let bobs = NewKey::new(&owner("acme", "bob"), "bob's").unwrap();
        let bobs = keys.issue(bobs, by).await.unwrap().key.id;
        service.clock.advance(HOUR);
        let list = async |within: OwnerScope<'_>, page: Page| {
            let listed = keys.list(within, page).await.unwrap();
            listed.keys.iter().map(|key| key.id).collect::<Vec<_>>()
        };
        let of = |status| Page::first().status(status);
        let expectations = [
            (Status::Active, active),
            (Status::Disabled, disabled),
            (Status::Revoked, revoked),
            (Status::Expired, expired),
        ];
        for (status, id) in expectations {
            assert_eq!(list(ada.into(), of(status)).await, [id]);
        }
        let tenant = list(OwnerScope::Tenant("acme"), Page::first()).await;
        assert_eq!(tenant, [bobs, expired, revoked, disabled, active]);
        assert!(list(OwnerScope::Tenant("acm"), Page::first()).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn purge_removes_long_dead_keys_in_batches_and_no_live_key() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let eternal = service.issue().await.key.id;
        let disabled = service.issue().await.key.id;
        keys.disable(ada, disabled, by).await.unwrap();
        let long = keys.issue(service.new_key().expiry(Expiry::YEAR), by).await.unwrap().key.id;
        for n in 0..7 {
            let new = service.new_key().expiry(Expiry::After(HOUR));
            let issued = keys.issue(new, by).await.unwrap();
            if n % 2 == 0 {
                keys.revoke(ada, issued.key.id, "", by).await.unwrap();
            }
        }
        let fresh = service.new_key().expiry(Expiry::After(HOUR * 2));
        let fresh = keys.issue(fresh, by).await.unwrap().key.id;
        // The last of the seven expires one hour after it was issued. Now it has been dead for 90 days.
        service.clock.advance(HOUR + DAY * 90 + MICRO);

        let mut progress = Vec::new();
        let purge = Retention::default().batch(3);
        let purged = keys.purge(purge, |so_far| progress.push(so_far.keys)).await.unwrap();
        assert_eq!(purged.keys, 7);
        assert_eq!(
            progress,
            [3, 6, 7, 7, 7, 7, 7, 7],
            "three batches of keys, then one step for each other kind of data"
        );
        let left = keys.list(ada, Page::first()).await.unwrap();
        let left: Vec<KeyId> = left.keys.iter().map(|key| key.id).collect();
        assert_eq!(left, [fresh, long, disabled, eternal]);
        let query = AuditQuery::new(ada).kind(EventKind::Purged);
        assert_eq!(keys.events(query).await.unwrap().len(), 7);
    })
    .await;
}

#[tokio::test]
async fn audit_events_are_kept_for_a_year() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada) = (service.keys(), &service.owner);
        let _ = service.issue().await;
        service.clock.advance(DAY * 365);
        let _ = service.issue().await;
        assert_eq!(keys.purge(Retention::default(), |_| ()).await.unwrap().events, 0);
        service.clock.advance(MICRO);
        assert_eq!(keys.purge(Retention::default(), |_| ()).await.unwrap().events, 1);
        assert_eq!(keys.events(AuditQuery::new(ada)).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_owner_without_a_tenant_can_have_keys() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let ada = Owner::account_only("ada").unwrap();
        let new = NewKey::new(&ada, "ci").unwrap();
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        assert_eq!(service.verify(&issued).await.unwrap().owner(), &ada);
        assert!(service.keys().get(&ada, issued.key.id).await.is_ok());
        let stranger = service.keys().get(&service.owner, issued.key.id).await;
        assert_eq!(stranger.unwrap_err().kind(), ErrorKind::NotFound);
    })
    .await;
}
