use keyward::{
    Access, Actor, AuditQuery, ErrorKind, Expiry, Hasher as _, Key, NewKey, Sha256Hasher,
    VerifyRequest,
    manage::{Issued, KeyChange, Page, Rotation},
    model::{KeyLimits, Networks, Permissions, Quota, Rate, Scopes},
    store::UpdateOutcome,
};

use crate::support::{HOUR, Service, on_each_store, owner, stores};

fn only<const N: usize>(scopes: [&str; N]) -> Permissions {
    Permissions::Only(Scopes::new(scopes).unwrap())
}

/// More scopes than a key may have: a union has no bound.
fn three_hundred_scopes() -> Scopes {
    let half = |from: u32| Permissions::only((from..from + 150).map(|n| format!("s{n}"))).unwrap();
    let Permissions::Only(scopes) = half(0).union(&half(150)) else { panic!("no union") };
    assert_eq!(scopes.iter().count(), 300);
    scopes
}

fn access<const N: usize>(scopes: [&str; N]) -> Access {
    Access::only(scopes).unwrap()
}

#[tokio::test]
async fn an_empty_set_of_scopes_allows_nothing() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = service.issue_with(access([])).await;
        let verified = service.verify(&issued).await.unwrap();
        assert!(!verified.allows("builds:read"));
        assert_eq!(verified.permissions(), only([]));
        let request = VerifyRequest::new().require(&["builds:read"]);
        let refused = service.verify_for(&issued, &request).await.unwrap_err();
        assert_eq!(refused.as_str(), "access_missing");
    })
    .await;
}

#[tokio::test]
async fn a_request_needs_all_of_its_scopes() {
    let service = Service::new(stores::memory());
    let issued = service.issue_with(access(["a", "b"])).await;
    for (needed, fine) in [
        (&["a"][..], true),
        (&["b", "a"], true),
        (&["a", "c"], false),
        (&["A"], false),
        (&[], true),
    ] {
        let answer = service.verify_for(&issued, &VerifyRequest::new().require(needed)).await;
        assert_eq!(answer.is_ok(), fine, "{needed:?}");
    }
}

#[tokio::test]
async fn permissions_are_the_intersection_of_key_access_and_current_owner_permissions() {
    let service = Service::new(stores::memory());
    let narrow = service.issue_with(access(["a", "b"])).await;
    let inherited = service.issue().await;
    service.host.set(&service.owner, |account| account.permissions = only(["b", "c"]));
    assert_eq!(service.verify(&narrow).await.unwrap().permissions(), only(["b"]));
    assert_eq!(service.verify(&inherited).await.unwrap().permissions(), only(["b", "c"]));
    let request = VerifyRequest::new().require(&["a"]);
    for issued in [&narrow, &inherited] {
        let refused = service.verify_for(issued, &request).await.unwrap_err();
        assert_eq!(refused.as_str(), "access_missing");
    }
}

#[tokio::test]
async fn a_key_cannot_be_issued_or_widened_beyond_its_owners_permissions() {
    let service = Service::new(stores::memory());
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    service.host.set(ada, |account| account.permissions = only(["a"]));
    let refused = keys.issue(service.new_key().access(access(["a", "b"])), by).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert!(refused.to_string().contains("`b`"), "{refused}");

    let issued = service.issue_with(access(["a"])).await;
    let wider = KeyChange::default().access(access(["a", "b"]));
    let refused = keys.update(ada, issued.key.id, &wider, by).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert_eq!(service.stored(issued.key.id).await.access, access(["a"]));
}

#[tokio::test]
async fn an_actor_cannot_grant_more_than_its_own_permissions() {
    let service = Service::new(stores::memory());
    let (keys, ada) = (service.keys(), &service.owner);
    let wide = service.issue_with(access(["a", "b"])).await;
    let limited = Actor::account("intern").limited_to(only(["a"]));
    for (new, fine) in [
        (access(["a"]), true),
        (access([]), true),
        (access(["b"]), false),
        (Access::Inherited, false),
    ] {
        let issued = keys.issue(service.new_key().access(new.clone()), &limited).await;
        assert_eq!(
            issued.map(drop).map_err(|e| e.kind()),
            if fine { Ok(()) } else { Err(ErrorKind::Forbidden) }
        );
        if let Ok(issued) = keys.issue(service.new_key().access(access([])), &limited).await {
            let change = KeyChange::default().access(new);
            let changed = keys.update(ada, issued.key.id, &change, &limited).await;
            assert_eq!(changed.is_ok(), fine);
        }
    }
    let rotated = keys.rotate(ada, wide.key.id, Rotation::immediate(), &limited).await;
    assert_eq!(
        rotated.unwrap_err().kind(),
        ErrorKind::Forbidden,
        "the actor would receive the secret"
    );
    assert!(service.verify(&wide).await.is_ok());
    assert!(keys.disable(ada, wide.key.id, &limited).await.is_ok(), "disabling grants nothing");
}

/// Issues a key and returns it as an actor.
async fn key_actor(service: &Service, new: NewKey) -> Actor {
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    let request = VerifyRequest::new().ip("192.0.2.7".parse().unwrap());
    Actor::key(&service.verify_for(&issued, &request).await.unwrap())
}

#[tokio::test]
async fn a_key_issued_by_a_key_is_never_wider_than_the_issuing_key() {
    let service = Service::new(stores::memory());
    let keys = service.keys();
    let office = Networks::only(["192.0.2.0/24"]).unwrap();
    let child = || service.new_key().access(access(["a"]));

    let by = key_actor(&service, service.new_key().access(access(["a"]))).await;
    assert!(keys.issue(child(), &by).await.is_ok());
    assert!(keys.issue(service.new_key(), &by).await.is_err(), "inherited access is wider");

    let by = key_actor(&service, child().expiry(Expiry::After(HOUR))).await;
    assert!(keys.issue(child().expiry(Expiry::After(HOUR)), &by).await.is_ok());
    assert!(keys.issue(child().expiry(Expiry::After(HOUR * 2)), &by).await.is_err());
    assert!(keys.issue(child(), &by).await.is_err(), "no expiry is longer");

    let by = key_actor(&service, child().networks(office.clone())).await;
    assert!(keys.issue(child().networks(office), &by).await.is_ok());
    let inside = Networks::only(["192.0.2.128/25"]).unwrap();
    let around = Networks::only(["192.0.0.0/16"]).unwrap();
    assert!(keys.issue(child().networks(inside), &by).await.is_ok());
    assert!(keys.issue(child().networks(around), &by).await.is_err());
    assert!(keys.issue(child(), &by).await.is_err());
}

#[tokio::test]
async fn an_inheriting_key_issues_inheriting_keys_only_for_its_own_owner() {
    let service = Service::new(stores::memory());
    service.host.set(&service.owner, |account| account.permissions = only(["a"]));
    let by = key_actor(&service, service.new_key()).await;
    assert!(service.keys().issue(service.new_key(), &by).await.is_ok());
    let bobs = NewKey::new(&owner("acme", "bob"), "bob's").unwrap();
    assert!(service.keys().issue(bobs.clone(), &by).await.is_err(), "bob has all permissions");
    assert!(service.keys().issue(bobs.access(access(["a"])), &by).await.is_ok());
    let less = by.limited_to(only(["a"]));
    assert!(service.keys().issue(service.new_key(), &less).await.is_err());
}

#[tokio::test]
async fn a_key_with_limits_cannot_issue_or_become_a_key_with_wider_limits() {
    let service = Service::new(stores::memory());
    let (keys, ada) = (service.keys(), &service.owner);
    let limits = |per_minute, in_all| KeyLimits {
        rate: Some(Rate::per_minute(per_minute)),
        quota: Some(Quota::total(in_all)),
    };
    let issuer = service.new_key().access(access(["a"])).limits(limits(60, 100));
    let issuer = keys.issue(issuer, &service.actor).await.unwrap();
    let by = Actor::key(&service.verify(&issuer).await.unwrap());
    let child = |limits| service.new_key().access(access(["a"])).limits(limits);
    for (wanted, fine) in [
        (limits(60, 100), true),
        (limits(6, 10), true),
        (limits(61, 100), false),
        (limits(60, 101), false),
        (KeyLimits { quota: None, ..limits(60, 100) }, false),
        (KeyLimits { quota: Some(Quota::per_day(1)), ..limits(60, 100) }, false),
        (KeyLimits { rate: Some(Rate::per_second(1)), ..limits(60, 100) }, true),
        (KeyLimits { rate: Some(Rate::per_hour(3_600)), ..limits(60, 100) }, false),
        (KeyLimits::default(), false),
    ] {
        let issued = keys.issue(child(wanted), &by).await;
        assert_eq!(issued.is_ok(), fine, "{wanted:?}");
        let change = KeyChange::default().limits(wanted);
        let changed = keys.update(ada, issuer.key.id, &change, &by).await;
        assert_eq!(changed.is_ok(), fine, "it cannot widen itself: {wanted:?}");
        let back = KeyChange::default().limits(limits(60, 100));
        keys.update(ada, issuer.key.id, &back, &service.actor).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_cannot_issue_keys_of_another_tenant() {
    let service = Service::new(stores::memory());
    let by = key_actor(&service, service.new_key()).await;
    let elsewhere = NewKey::new(&owner("umbrella", "ada"), "not mine").unwrap();
    let refused = service.keys().issue(elsewhere.access(access(["a"])), &by).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn an_actor_cannot_enable_a_key_that_it_could_not_issue() {
    let service = Service::new(stores::memory());
    let (keys, ada) = (service.keys(), &service.owner);
    let wide = service.issue_with(access(["a", "b"])).await;
    let limited = Actor::account("intern").limited_to(only(["a"]));
    keys.disable(ada, wide.key.id, &service.actor).await.unwrap();
    let refused = keys.enable(ada, wide.key.id, &limited).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert_eq!(service.verify(&wide).await.unwrap_err().as_str(), "disabled");
}

#[tokio::test]
async fn a_key_can_be_narrowed_by_a_limited_actor_and_after_its_owner_lost_permissions() {
    let service = Service::new(stores::memory());
    let (keys, ada) = (service.keys(), &service.owner);
    let id = service.issue_with(access(["a", "b", "c"])).await.key.id;
    service.host.set(ada, |account| account.permissions = only(["a"]));
    let office = KeyChange::default().networks(Networks::only(["192.0.2.0/24"]).unwrap());
    keys.update(ada, id, &office, &service.actor).await.unwrap();
    let limited = Actor::account("intern").limited_to(only(["a"]));
    let less = KeyChange::default().access(access(["b"]));
    keys.update(ada, id, &less, &limited).await.unwrap();
    for wider in [
        KeyChange::default().networks(Networks::Any),
        KeyChange::default().access(Access::Inherited),
        KeyChange::default().access(access(["a", "b"])),
    ] {
        let refused = keys.update(ada, id, &wider, &limited).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden, "{wider:?}");
    }
}

#[tokio::test]
async fn keys_of_a_suspended_owner_are_denied_until_the_suspension_ends() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued: Issued = service.issue().await;
        service.host.set(ada, |account| account.suspended = true);
        assert_eq!(service.verify(&issued).await.unwrap_err().as_str(), "owner_suspended");
        let refused = keys.issue(service.new_key(), by).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Suspended);
        let refused = keys.rotate(ada, issued.key.id, Rotation::immediate(), by).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Suspended);
        let id = issued.key.id;
        keys.disable(ada, id, by).await.expect("narrowing is always allowed");
        let refused = keys.enable(ada, id, by).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Suspended);
        service.host.set(ada, |account| account.suspended = false);
        keys.enable(ada, id, by).await.unwrap();
        keys.account_changed(ada).await.unwrap();
        assert!(service.verify(&issued).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_key_works_only_for_its_tenant_and_from_its_networks() {
    let service = Service::new(stores::memory());
    let office = Networks::only(["192.0.2.0/24", "2001:db8::1"]).unwrap();
    let issued = service.keys().issue(service.new_key().networks(office), &service.actor).await;
    let issued = issued.unwrap();
    let from = |ip: &str| VerifyRequest::new().tenant("acme").ip(ip.parse().unwrap());
    for fine in ["192.0.2.255", "2001:db8::1", "::ffff:192.0.2.1"] {
        assert!(service.verify_for(&issued, &from(fine)).await.is_ok(), "{fine}");
    }
    for (request, reason) in [
        (from("192.0.3.0"), "network_not_allowed"),
        (from("::ffff:198.51.100.1"), "network_not_allowed"),
        (from("2001:db8::2"), "network_not_allowed"),
        (VerifyRequest::new(), "network_not_allowed"),
        (VerifyRequest::new().tenant("other"), "wrong_tenant"),
        (VerifyRequest::new().tenant(""), "wrong_tenant"),
    ] {
        assert_eq!(service.verify_for(&issued, &request).await.unwrap_err().as_str(), reason);
    }
    let nowhere = Networks::only::<&str>([]).unwrap();
    let nowhere = service.keys().issue(service.new_key().networks(nowhere), &service.actor).await;
    assert!(service.verify_for(&nowhere.unwrap(), &from("192.0.2.1")).await.is_err());
}

#[test]
fn an_ipv4_mapped_ipv6_network_equals_the_ipv4_network() {
    for (written, wide) in [("::ffff:192.0.2.7", false), ("::ffff:192.0.2.0/120", true)] {
        let office = Networks::only([written]).unwrap();
        for address in ["192.0.2.7", "::ffff:192.0.2.7"] {
            assert!(office.allows(address.parse().ok()), "{written}: {address}");
        }
        assert_eq!(office.allows("192.0.2.8".parse().ok()), wide);
        assert!(!office.allows("192.0.3.7".parse().ok()));
    }
    let all = Networks::only(["::ffff:0.0.0.0/96"]).unwrap();
    assert!(all.allows("203.0.113.1".parse().ok()) && !all.allows("2001:db8::1".parse().ok()));
}

#[tokio::test]
async fn a_key_is_not_written_beyond_the_bounds_also_if_another_constructor_made_the_value() {
    let half = |from: u8| match Networks::only((from..from + 51).map(|n| format!("10.0.{n}.0/24")))
    {
        Ok(Networks::Only(networks)) => networks,
        other => panic!("{other:?}"),
    };
    let networks = Networks::Only([&*half(0), &*half(51)].concat().into());
    let service = Service::new(stores::memory());
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    let issued = service.issue().await;
    for (new, change, what) in [
        (
            service.new_key().access(Access::Only(three_hundred_scopes())),
            KeyChange::default().access(Access::Only(three_hundred_scopes())),
            "scopes",
        ),
        (
            service.new_key().networks(networks.clone()),
            KeyChange::default().networks(networks.clone()),
            "networks",
        ),
    ] {
        let digest = Sha256Hasher.digest(what.as_bytes());
        for error in [
            keys.issue(new.clone(), by).await.unwrap_err(),
            keys.import(new, digest, "lc_live_", by).await.unwrap_err(),
            keys.update(ada, issued.key.id, &change, by).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(what), "{error}");
        }
    }
    let listed = keys.list(ada, Page::first()).await.unwrap().keys;
    assert_eq!(listed, [issued.key]);
}

/// Written by a version that did not check the bound.
#[tokio::test]
async fn a_key_with_too_many_scopes_stays_readable() {
    on_each_store(async |handles| {
        let store = handles[0].clone();
        let service = Service::new(handles);
        let issued = service.issue().await;
        let log = service.keys().events(AuditQuery::new(&service.owner)).await.unwrap();
        let wide = Key { access: Access::Only(three_hundred_scopes()), ..Key::clone(&issued.key) };
        assert_eq!(store.update(&wide, &log[0]).await.unwrap(), UpdateOutcome::Updated);
        let listed = service.keys().list(&service.owner, Page::first()).await.unwrap();
        assert_eq!((listed.keys[0].access.clone(), listed.damaged), (wide.access, vec![]));
        service.keys().catch_up().await.unwrap();
        let verified = service.verify(&issued).await.unwrap();
        assert!(verified.allows("s299") && !verified.allows("s300"));
        let change = KeyChange::default().name("renamed").unwrap();
        let (ada, by) = (&service.owner, &service.actor);
        service.keys().update(ada, issued.key.id, &change, by).await.unwrap();
    })
    .await;
}
