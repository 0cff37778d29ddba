use std::sync::Arc;

use keyward::{
    model::{KeyLimits, Quota, Rate},
    verify::LimitedReason,
};

use super::{burst_only, charge, charge_all, limited_key, limiter, two_nodes};
use crate::support::servers::redis::{Options, Server};

/// Returns the number of scripts that were run.
fn script_calls(server: &Server) -> usize {
    let stats = server.call(&["INFO", "commandstats"]).text().to_owned();
    let calls = |line: &str| {
        let (_, counts) = line.strip_prefix("cmdstat_eval")?.split_once("calls=")?;
        counts.split(',').next()?.parse::<usize>().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_with_leases_never_exceed_the_rate_and_rarely_call_redis() {
    let Some(server) = Options::default().start() else { return };
    let service = Arc::new(two_nodes(|| limiter(&server.url()).lease(50)));
    let issued = Arc::new(limited_key(&service, burst_only(1_000)).await);
    // Each task continues until both its node's lease and Redis are exhausted.
    assert_eq!(charge_all(&service, &issued).await, 1_000);
    let calls = script_calls(&server);
    assert!(calls < 150, "20 leases, and some rejected or concurrent calls: {calls}");
}

#[tokio::test]
async fn a_small_burst_is_not_leased_in_advance() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let issued = limited_key(&service, burst_only(10)).await;
    for n in 0..10 {
        let verified = charge(&service, n % 2, &issued).await.unwrap();
        assert_eq!(verified.rates().key.unwrap().remaining, 9 - n as u32);
    }
    assert!(charge(&service, 0, &issued).await.is_err());
}

#[tokio::test]
async fn remaining_includes_the_node_s_own_lease() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let issued = limited_key(&service, burst_only(100)).await;
    for n in 0..15 {
        let verified = charge(&service, 0, &issued).await.unwrap();
        assert_eq!(verified.rates().key.unwrap().remaining, 99 - n);
    }
    let other = charge(&service, 1, &issued).await.unwrap();
    assert_eq!(other.rates().key.unwrap().remaining, 79, "without the leases of other nodes");
}

#[tokio::test]
async fn a_refunded_use_returns_to_the_lease() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let limits = KeyLimits { rate: Some(burst_only(100)), quota: Some(Quota::total(15)) };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    for _ in 0..15 {
        assert!(charge(&service, 0, &issued).await.is_ok());
    }
    for _ in 0..200 {
        let limited = charge(&service, 0, &issued).await.unwrap_err();
        assert_eq!(limited.reason, LimitedReason::Quota);
    }
    assert_eq!(script_calls(&server), 3, "two leases; the first call also sends the script");
}

#[tokio::test]
async fn a_new_rate_does_not_use_the_lease_of_the_old_one() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let issued = limited_key(&service, burst_only(1_000)).await;
    assert!(charge(&service, 0, &issued).await.is_ok());
    let lower = KeyLimits { rate: Some(burst_only(5)), ..KeyLimits::default() };
    let change = keyward::manage::KeyChange::default().limits(lower);
    service.keys().update(&service.owner, issued.key.id, &change, &service.actor).await.unwrap();
    assert!(charge(&service, 0, &issued).await.is_err(), "the lease of 50 is more than 5");
    let higher = KeyLimits { rate: Some(Rate::per_second(1_000_000)), ..KeyLimits::default() };
    let change = keyward::manage::KeyChange::default().limits(higher);
    service.keys().update(&service.owner, issued.key.id, &change, &service.actor).await.unwrap();
    assert!(charge(&service, 0, &issued).await.is_ok());
}
