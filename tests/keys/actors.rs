//! What an actor can hand out only ever shrinks.

use keyward::{
    Access, Actor, ErrorKind, Expiry,
    manage::{KeyChange, Rotation},
    model::{KeyLimits, Networks, Permissions, Quota, Rate, Scopes},
};

use crate::support::{HOUR, Service, stores};

fn only<const N: usize>(scopes: [&str; N]) -> Permissions {
    Permissions::Only(Scopes::new(scopes).unwrap())
}

fn access<const N: usize>(scopes: [&str; N]) -> Access {
    Access::only(scopes).unwrap()
}

#[tokio::test]
async fn limiting_an_actor_to_more_than_it_has_does_not_widen_it() {
    let service = Service::new(stores::memory());
    let (keys, ada) = (service.keys(), &service.owner);
    let own = service.issue_with(access(["a"])).await;
    let wide = service.issue_with(access(["a", "b"])).await;
    let of_key = Actor::key(&service.verify(&own).await.unwrap());
    let of_account = Actor::account("intern").limited_to(only(["a", "c"]));
    for actor in [of_key, of_account] {
        for by in [
            actor.clone().limited_to(only(["a", "b"])),
            actor.clone().limited_to(Permissions::All),
            actor.clone().limited_to(only(["a"])).limited_to(Permissions::All),
        ] {
            assert!(keys.issue(service.new_key().access(access(["a"])), &by).await.is_ok());
            for wider in [access(["b"]), access(["a", "b"]), Access::Inherited] {
                let new = service.new_key().access(wider.clone());
                let refused = keys.issue(new, &by).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Forbidden, "{by:?} issues {wider:?}");
                let change = KeyChange::default().access(wider.clone());
                let refused = keys.update(ada, own.key.id, &change, &by).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Forbidden, "{by:?} widens to {wider:?}");
            }
            let rotated = keys.rotate(ada, wide.key.id, Rotation::immediate(), &by).await;
            assert_eq!(rotated.unwrap_err().kind(), ErrorKind::Forbidden, "{by:?}");
        }
        let nothing = actor.limited_to(only(["b"]));
        let refused = keys.issue(service.new_key().access(access(["a"])), &nothing).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forbidden, "they share no scope");
    }
}

#[tokio::test]
async fn limiting_the_permissions_of_a_key_keeps_its_other_bounds() {
    let service = Service::new(stores::memory());
    let keys = service.keys();
    let limits = KeyLimits { rate: Some(Rate::per_minute(6)), quota: Some(Quota::total(100)) };
    let office = Networks::only(["192.0.2.0/24"]).unwrap();
    let fitting = || {
        let new = service.new_key().access(access(["a"])).limits(limits);
        new.networks(office.clone()).expiry(Expiry::After(HOUR))
    };
    let maker = keys.issue(fitting(), &service.actor).await.unwrap();
    let request = keyward::verify::VerifyRequest::new().ip("192.0.2.7".parse().unwrap());
    let by = Actor::key(&service.verify_for(&maker, &request).await.unwrap());
    for by in [by.clone().limited_to(only(["a"])), by.limited_to(Permissions::All)] {
        assert!(keys.issue(fitting(), &by).await.is_ok());
        let elsewhere = keyward::model::Owner::new("umbrella", "ada").unwrap();
        let elsewhere = keyward::manage::NewKey::new(&elsewhere, "ci").unwrap();
        let elsewhere = elsewhere.access(access(["a"])).limits(limits).networks(office.clone());
        for (what, wider) in [
            ("rate", fitting().limits(KeyLimits { rate: None, ..limits })),
            ("quota", fitting().limits(KeyLimits { quota: None, ..limits })),
            ("networks", fitting().networks(Networks::Any)),
            ("expiry", fitting().expiry(Expiry::Never)),
            ("tenant", elsewhere.expiry(Expiry::After(HOUR))),
        ] {
            let refused = keys.issue(wider, &by).await.map(|issued| issued.key.id);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forbidden, "{what}");
        }
    }
}
