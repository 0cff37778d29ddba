//! Every reason to refuse a key, on every path that a verification can take.

use std::net::IpAddr;

use keyward::{
    Access, Expiry, Limits, NewKey, Owner, VerifyRequest,
    api::ApiKeysBuilder,
    manage::{Issued, Rotation},
    model::{KeyLimits, Networks, Quota, Rate},
};

use crate::support::{HOUR, Service, owner, reason, stores};

/// What can be wrong with a request or its key, and the reason that is returned.
const CASES: [(&str, &str); 11] = [
    ("revoked", "revoked"),
    ("expired", "expired"),
    ("disabled", "disabled"),
    ("retired secret", "secret_retired"),
    ("suspended owner", "owner_suspended"),
    ("wrong tenant", "wrong_tenant"),
    ("wrong network", "network_not_allowed"),
    ("unknown network", "network_not_allowed"),
    ("missing scope", "access_missing"),
    ("missing scope of two", "access_missing"),
    ("no scope of any_scope", "access_missing"),
];

/// Which limits the key has. Each of them leads through other code.
const LIMITS: [&str; 5] = ["no limit", "rate", "quota", "rate and quota", "quota of the owner"];

#[tokio::test]
async fn every_check_is_made_with_and_without_a_cache_and_with_every_kind_of_limit() {
    for cached in [true, false] {
        for limits in LIMITS {
            let service = Service::with(stores::memory(), |builder| match cached {
                true => builder,
                false => ApiKeysBuilder::no_cache(builder),
            });
            for (n, (case, expected)) in CASES.into_iter().enumerate() {
                for kind in 0..8 {
                    let ada = owner("acme", &format!("ada-{n}-{kind}"));
                    let [anywhere, any, warm] = [1, 2, 4].map(|bit| kind & bit != 0);
                    let key = Kind { ada, limits, anywhere, any, warm };
                    refuses(&service, &key, case, expected, &format!("cached: {cached}")).await;
                }
            }
        }
    }
}

/// A key, its requests, and whether it is used before anything is wrong with it.
#[derive(Debug)]
struct Kind {
    ada: Owner,
    limits: &'static str,
    /// It works from every network, and requests ask for any of several scopes, too. A cache hit is
    /// decided in a shorter way if the first is so and the second is not.
    anywhere: bool,
    any: bool,
    warm: bool,
}

async fn refuses(service: &Service, key: &Kind, case: &str, expected: &str, cached: &str) {
    let impossible = match case {
        "wrong network" | "unknown network" => key.anywhere,
        "no scope of any_scope" => !key.any,
        _ => false,
    };
    if impossible {
        return;
    }
    let path = format!("{case}, {cached}, {key:?}");
    let keys = service.keys();
    let issued = issue(service, key).await;
    let secret = issued.secret.expose();
    let any: &[&str] = if key.any { &["x", "b"] } else { &[] };
    let from_nowhere = VerifyRequest::new().tenant("acme").require(&["a"]).require_any(any);
    let good = from_nowhere.ip(HOME);
    if key.warm {
        for _ in 0..2 {
            keys.verify(secret, &good).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
    change(service, &issued, case).await;
    let bad = match case {
        "wrong tenant" => good.tenant("umbrella"),
        "wrong network" => good.ip(ELSEWHERE),
        "unknown network" => from_nowhere,
        "missing scope" => good.require(&["x"]),
        "missing scope of two" => good.require(&["a", "x"]),
        "no scope of any_scope" => good.require_any(&["x", "y"]),
        _ => good,
    };
    // The first of them reads the key again where the change has invalidated it.
    for _ in 0..2 {
        match keys.verify(secret, &bad).await {
            Ok(_) => panic!("{path}: it is let through"),
            Err(error) => assert_eq!(reason(error).as_str(), expected, "{path}"),
        }
    }
    let is_dead = matches!(case, "revoked" | "expired" | "disabled" | "retired secret");
    if is_dead || case == "suspended owner" {
        return;
    }
    let verified = keys.verify(secret, &good).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    let used = if key.warm { 3 } else { 1 };
    let (rates, quotas) = (verified.rates(), verified.quotas());
    let left = rates.key.map(|state| u64::from(state.remaining));
    let left = [left, quotas.key.map(|q| q.remaining), quotas.owner.map(|q| q.remaining)];
    for left in left.into_iter().flatten() {
        assert_eq!(left, u64::from(USES) - used, "{path}: a refused request costs nothing");
    }
}

async fn issue(service: &Service, key: &Kind) -> Issued {
    let Kind { ada, limits, anywhere, .. } = key;
    let rate = matches!(*limits, "rate" | "rate and quota").then(|| Rate::per_hour(USES));
    let quota = matches!(*limits, "quota" | "rate and quota").then(|| Quota::total(USES.into()));
    if *limits == "quota of the owner" {
        service.host.limit(ada, Limits::default().quota(Quota::total(USES.into())));
    }
    let networks = match anywhere {
        true => Networks::Any,
        false => Networks::only(["192.0.2.0/24"]).unwrap(),
    };
    let new = NewKey::new(ada, "ci")
        .unwrap()
        .access(Access::only(["a", "b"]).unwrap())
        .networks(networks)
        .expiry(Expiry::After(HOUR))
        .limits(KeyLimits { rate, quota });
    service.keys().issue(new, &service.actor).await.unwrap()
}

async fn change(service: &Service, issued: &Issued, case: &str) {
    let (keys, by) = (service.keys(), &service.actor);
    let (ada, id) = (&issued.key.owner, issued.key.id);
    match case {
        "revoked" => keys.revoke(ada, id, "", by).await.unwrap(),
        // The calendar is set, so that no time passes in which a cached key grows old.
        "expired" => service.clock.set(service.now().after(HOUR)),
        "disabled" => drop(keys.disable(ada, id, by).await.unwrap()),
        "retired secret" => drop(keys.rotate(ada, id, Rotation::immediate(), by).await.unwrap()),
        "suspended owner" => {
            service.host.set(ada, |account| account.suspended = true);
            keys.account_changed(ada).await.unwrap();
        }
        _ => {}
    }
}

const USES: u32 = 10;
const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
