use std::sync::Arc;

use keyward::{
    Limits, VerifyError, VerifyRequest,
    model::{KeyLimits, Quota, Rate},
    verify::LimitedReason,
};

use super::{burst_only, charge, charge_all, limited_key, limiter, limiter_of, two_nodes};
use crate::support::{
    HOUR, SECOND, owner,
    servers::redis::{self, Reply, shared_cluster},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_grant_exactly_the_rate_together() {
    let Some(shared) = redis::shared() else { return };
    let space = shared.space();
    let service = two_nodes(|| limiter_of(&space));
    service.host.limit(&service.owner, Limits::default().rate(burst_only(150)));
    let (service, narrow) = (Arc::new(service), burst_only(100));
    let issued = Arc::new(limited_key(&service, narrow).await);
    assert_eq!(charge_all(&service, &issued).await, 100);
    let other = Arc::new(service.issue().await);
    assert_eq!(
        charge_all(&service, &other).await,
        50,
        "a use rejected by the key's rate is not charged to its owner"
    );
}

#[tokio::test]
async fn remaining_and_reset_are_those_of_all_nodes() {
    let Some(shared) = redis::shared() else { return };
    let space = shared.space();
    let service = two_nodes(|| limiter_of(&space));
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_hour(4)));
    let issued = limited_key(&service, Rate::per_hour(3)).await;
    for (n, left) in [2, 1, 0].into_iter().enumerate() {
        let rates = charge(&service, n % 2, &issued).await.unwrap().rates();
        assert_eq!(rates.key.unwrap().remaining, left);
        assert_eq!(rates.owner.unwrap().remaining, left + 1);
    }
    let limited = charge(&service, 1, &issued).await.unwrap_err();
    assert_eq!(limited.reason, LimitedReason::Rate);
    let (wait, reset) = (limited.retry_after.unwrap(), limited.rates.key.unwrap().reset);
    assert!(wait <= HOUR / 3 && wait > HOUR / 3 - 60 * SECOND, "{wait:?}");
    assert!(reset <= HOUR && reset > HOUR - 60 * SECOND, "{reset:?}");
    assert_eq!(limited.rates.owner.unwrap().remaining, 1);
    let too_much = VerifyRequest::new().cost(4);
    let never = service.keys().verify(issued.secret.expose(), &too_much).await.unwrap_err();
    let VerifyError::Limited(never) = never else { panic!("{never:?}") };
    assert_eq!(never.retry_after, None);
}

#[tokio::test]
async fn a_use_rejected_by_a_quota_is_refunded_to_the_rates() {
    let Some(shared) = redis::shared() else { return };
    let space = shared.space();
    let service = two_nodes(|| limiter_of(&space));
    let limits = KeyLimits { rate: Some(burst_only(3)), quota: Some(Quota::total(2)) };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    for left in [2, 1] {
        let verified = charge(&service, 0, &issued).await.unwrap();
        assert_eq!(verified.rates().key.unwrap().remaining, left);
    }
    for n in 0..10 {
        let limited = charge(&service, n % 2, &issued).await.unwrap_err();
        assert_eq!(limited.reason, LimitedReason::Quota);
        assert_eq!(limited.rates.key.unwrap().remaining, 1);
    }
}

#[tokio::test]
async fn redis_keys_reveal_no_owner_and_expire() {
    let Some(shared) = redis::shared() else { return };
    let space = shared.space();
    let mut service = two_nodes(|| limiter_of(&space));
    service.owner = owner("}{ten*ant\n", "{mia}:?");
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_hour(4)));
    let issued = limited_key(&service, Rate::per_hour(3)).await;
    let _ = charge(&service, 0, &issued).await.unwrap();
    let pattern = format!("*{}*", space.prefix());
    let Reply::Array(names) = space.call(&["KEYS", &pattern]) else { panic!("not an array") };
    let names: Vec<_> = names.iter().map(|name| name.text().to_owned()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let tag = |name: &str| name.split_once('}').unwrap().0.to_owned();
    assert_eq!(
        tag(&names[0]),
        tag(&names[1]),
        "a cluster runs a script only if its keys share a hash tag"
    );
    for name in &names {
        assert!(!name.contains("mia") && !name.contains("ant"), "{name}");
        assert_eq!(name.matches(['{', '}']).count(), 2, "{name}");
        let Reply::Integer(left) = space.call(&["PTTL", name]) else { panic!("not an integer") };
        assert!(
            left > 0 && left <= 20 * 60 * 1_000,
            "{left}: the time until the burst is restored"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_counts_every_owner_exactly() {
    let Some(cluster) = shared_cluster() else { return };
    // Configured with a single node, from which the client discovers the others.
    let mut service = two_nodes(|| limiter(&cluster.urls()[0]));
    let mut all = Vec::new();
    for n in 0..12 {
        service.owner = owner("acme", &format!("ada-{n}"));
        service.host.limit(&service.owner, Limits::default().rate(burst_only(30)));
        all.push(Arc::new(limited_key(&service, burst_only(20)).await));
    }
    let service = Arc::new(service);
    for issued in &all {
        assert_eq!(charge_all(&service, issued).await, 20);
    }
    let key_count = |node: &redis::Server| node.call(&["DBSIZE"]);
    let busy =
        cluster.nodes()[..3].iter().filter(|node| !matches!(key_count(node), Reply::Integer(0)));
    assert!(busy.count() > 1, "owners are distributed over the nodes");
}
