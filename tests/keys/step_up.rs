use std::time::Duration;

use keyward::{
    Access, Actor, AuditQuery, Error, ErrorKind, Key, KeyId, SecretDigest, Sha256Hasher,
    accounts::SensitiveChange::{self, Enable, Import, Issue, Rotate, Widen},
    manage::{KeyChange, Retention, Rotation},
    model::{KeyLimits, Networks, Permissions, Rate},
    secret::Hasher,
};

use crate::support::{HOUR, MICRO, SECOND, Service, stores};

/// A service, and a disabled key whose access, networks and rate can be widened.
struct World {
    service: Service,
    key: KeyId,
}

/// Every change that gives a key, or can give it, more permissions.
#[derive(Clone, Copy, Debug)]
enum Sensitive {
    Issue,
    Import,
    Rotate,
    MoreAccess,
    MoreNetworks,
    HigherRate,
    Enable,
}

const ALL: [(Sensitive, SensitiveChange); 7] = [
    (Sensitive::Issue, Issue),
    (Sensitive::Import, Import),
    (Sensitive::Rotate, Rotate),
    (Sensitive::MoreAccess, Widen),
    (Sensitive::MoreNetworks, Widen),
    (Sensitive::HigherRate, Widen),
    (Sensitive::Enable, Enable),
];

impl World {
    async fn new() -> Self {
        let service = Service::new(stores::memory());
        let limits = KeyLimits { rate: Some(Rate::per_minute(1)), ..KeyLimits::default() };
        let new = service.new_key().access(access(["a"])).limits(limits);
        let new = new.networks(Networks::only(["192.0.2.0/24"]).unwrap());
        let key = service.keys().issue(new, &service.actor).await.unwrap().key.id;
        service.keys().disable(&service.owner, key, &service.actor).await.unwrap();
        service.policy.asked();
        Self { service, key }
    }

    async fn apply(&self, change: Sensitive, by: &Actor) -> Result<(), Error> {
        let (keys, ada) = (self.service.keys(), &self.service.owner);
        let update = async |change| keys.update(ada, self.key, &change, by).await.map(drop);
        match change {
            Sensitive::Issue => keys.issue(self.service.new_key(), by).await.map(drop),
            Sensitive::Import => {
                let digest = new_digest();
                keys.import(self.service.new_key(), digest, "lc_a1b2", by).await.map(drop)
            }
            Sensitive::Rotate => {
                keys.rotate(ada, self.key, Rotation::immediate(), by).await.map(drop)
            }
            Sensitive::MoreAccess => update(KeyChange::default().access(access(["a", "b"]))).await,
            Sensitive::MoreNetworks => update(KeyChange::default().networks(Networks::Any)).await,
            Sensitive::HigherRate => {
                update(KeyChange::default().limits(KeyLimits::default())).await
            }
            Sensitive::Enable => keys.enable(ada, self.key, by).await.map(drop),
        }
    }

    /// Returns all keys and the number of events.
    async fn state(&self) -> (Vec<Key>, usize) {
        let (keys, ada) = (self.service.keys(), &self.service.owner);
        let all = keys.list(ada, keyward::manage::Page::first()).await.unwrap().keys;
        let events = keys.events(AuditQuery::new(ada).limit(1_000)).await.unwrap();
        (all.iter().map(|key| Key::clone(key)).collect(), events.len())
    }

    fn confirmed(&self, ago: Duration) -> Actor {
        Actor::account("ada").second_factor_at(self.service.now().before(ago))
    }
}

fn access<const N: usize>(scopes: [&str; N]) -> Access {
    Access::only(scopes).unwrap()
}

fn new_digest() -> SecretDigest {
    let format = crate::support::format();
    Sha256Hasher.digest(format.generate().unwrap().expose().as_bytes())
}

#[tokio::test]
async fn every_widening_change_requires_the_demanded_second_factor() {
    for (change, kind) in ALL {
        let world = World::new().await;
        let (ada, without_factor) = (&world.service.owner, Actor::account("ada"));
        world.service.policy.demand(Some(SECOND * 90));
        let before = world.state().await;
        for by in [&without_factor, &world.confirmed(SECOND * 90 + MICRO)] {
            let refused = world.apply(change, by).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired, "{change:?}");
            assert_eq!(refused.max_age(), Some(SECOND * 90), "{change:?}");
            assert!(refused.to_string().contains("90 seconds"), "{refused}");
        }
        assert_eq!(world.state().await, before, "{change:?}: nothing was changed");
        world.apply(change, &world.confirmed(SECOND * 90)).await.unwrap();
        let asked = (ada.clone(), "ada".to_owned(), kind);
        assert_eq!(world.service.policy.asked(), vec![asked; 3], "{change:?}");
        assert_ne!(world.state().await, before, "{change:?}");

        let world = World::new().await;
        world.apply(change, &without_factor).await.expect("no second factor is demanded");
        assert_eq!(world.service.policy.asked().len(), 1);
    }
}

#[tokio::test]
async fn narrowing_changes_never_ask_the_policy() {
    let world = World::new().await;
    let (keys, ada, by) = (world.service.keys(), &world.service.owner, &Actor::account("ada"));
    keys.enable(ada, world.key, by).await.unwrap();
    world.service.policy.asked();
    world.service.policy.fail(true);
    let narrow = KeyChange::default().name("narrow").unwrap().access(access([]));
    keys.update(ada, world.key, &narrow, by).await.unwrap();
    keys.enable(ada, world.key, by).await.expect("the key is already enabled");
    keys.disable(ada, world.key, by).await.unwrap();
    keys.revoke(ada, world.key, "stolen", by).await.unwrap();
    keys.delete(ada, world.key, by).await.unwrap();
    keys.revoke_all(ada, "gone", by).await.unwrap();
    keys.purge(Retention::default(), |_| ()).await.unwrap();
    assert_eq!(world.service.policy.asked(), []);
}

#[tokio::test]
async fn no_second_factor_is_demanded_for_a_forbidden_change() {
    let world = World::new().await;
    world.service.policy.demand(Some(HOUR));
    let limited = Actor::account("intern").limited_to(Permissions::only::<&str>([]).unwrap());
    for (change, _) in ALL {
        let refused = world.apply(change, &limited).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden, "{change:?}");
    }
    world.service.host.set(&world.service.owner, |account| account.suspended = true);
    for (change, _) in ALL {
        let refused = world.apply(change, &Actor::account("ada")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Suspended, "{change:?}");
    }
    assert_eq!(world.service.policy.asked(), []);
}

#[tokio::test]
async fn a_failing_policy_makes_a_change_unavailable() {
    for (change, _) in ALL {
        let world = World::new().await;
        world.service.policy.fail(true);
        let before = world.state().await;
        let failed = world.apply(change, &world.confirmed(SECOND)).await.unwrap_err();
        assert!(failed.is_unavailable() && failed.max_age().is_none(), "{change:?}: {failed}");
        let source = std::error::Error::source(&failed).unwrap().to_string();
        assert_eq!(source, "the policy's database is down");
        assert_eq!(world.state().await, before, "{change:?}");
    }
}

#[tokio::test]
async fn a_second_factor_from_the_future_is_accepted_only_within_clock_skew() {
    let world = World::new().await;
    world.service.policy.demand(Some(SECOND));
    let at = |ahead| Actor::account("ada").second_factor_at(world.service.now().after(ahead));
    world.apply(Sensitive::Rotate, &at(SECOND * 5)).await.unwrap();
    for ahead in [SECOND * 5 + MICRO, HOUR * 24 * 365 * 9_000] {
        let refused = world.apply(Sensitive::Rotate, &at(ahead)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_renew_a_second_factor() {
    let world = World::new().await;
    world.service.policy.demand(Some(SECOND * 60));
    let (noon, by) = (world.service.now(), world.confirmed(Duration::ZERO));
    world.apply(Sensitive::Rotate, &by).await.unwrap();
    world.service.clock.advance(HOUR);
    assert!(world.apply(Sensitive::Rotate, &by).await.is_err());
    world.service.clock.set(noon);
    let refused = world.apply(Sensitive::Rotate, &by).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
}

#[tokio::test]
async fn a_key_as_actor_has_no_second_factor() {
    let world = World::new().await;
    let issued = world.service.issue().await;
    let by_key = Actor::key(&world.service.verify(&issued).await.unwrap());
    world.apply(Sensitive::Issue, &by_key).await.unwrap();
    world.service.policy.demand(Some(HOUR * 24 * 365));
    let refused = world.apply(Sensitive::Issue, &by_key).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
}
