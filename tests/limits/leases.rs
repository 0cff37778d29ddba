use std::sync::Arc;

use keyward::{
    model::{KeyLimits, Quota, Rate},
    verify::LimitedReason,
};

use super::{charge, charge_all, in_all, limited_key, limiter, two_nodes};
use crate::support::servers::redis::{Options, Server};

/// How often scripts were run.
fn round_trips(server: &Server) -> usize {
    let stats = server.call(&["INFO", "commandstats"]).text().to_owned();
    let calls = |line: &str| {
        let (_, counts) = line.strip_prefix("cmdstat_eval")?.split_once("calls=")?;
        counts.split(',').next()?.parse::<usize>().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_with_leases_never_exceed_the_total_and_ask_seldom() {
    let Some(server) = Options::default().start() else { return };
    let service = Arc::new(two_nodes(|| limiter(&server.url()).lease(50)));
    let issued = Arc::new(limited_key(&service, in_all(1_000)).await);
    // Each task goes on until its node has nothing left, and neither has Redis.
    assert_eq!(charge_all(&service, &issued).await, 1_000);
    let asked = round_trips(&server);
    assert!(asked < 150, "20 batches, and a few who are refused or ask at the same time: {asked}");
}

#[tokio::test]
async fn of_a_small_burst_nothing_is_taken_in_advance() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let issued = limited_key(&service, in_all(10)).await;
    for n in 0..10 {
        let verified = charge(&service, n % 2, &issued).await.unwrap();
        assert_eq!(verified.rates().key.unwrap().remaining, 9 - n as u32);
    }
    assert!(charge(&service, 0, &issued).await.is_err());
}

#[tokio::test]
async fn what_a_node_holds_is_told_as_left() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let issued = limited_key(&service, in_all(100)).await;
    for n in 0..15 {
        let verified = charge(&service, 0, &issued).await.unwrap();
        assert_eq!(verified.rates().key.unwrap().remaining, 99 - n);
    }
    let other = charge(&service, 1, &issued).await.unwrap();
    assert_eq!(other.rates().key.unwrap().remaining, 79, "but for what other nodes hold");
}

#[tokio::test]
async fn a_use_that_was_none_goes_back_to_the_lease() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let limits = KeyLimits { rate: Some(in_all(100)), quota: Some(Quota::total(15)) };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    for _ in 0..15 {
        assert!(charge(&service, 0, &issued).await.is_ok());
    }
    for _ in 0..200 {
        let limited = charge(&service, 0, &issued).await.unwrap_err();
        assert_eq!(limited.reason, LimitedReason::Quota);
    }
    assert_eq!(round_trips(&server), 3, "two batches; the first call came with its script");
}

#[tokio::test]
async fn another_plan_uses_nothing_of_what_was_taken_under_the_earlier_one() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server.url()).lease(50));
    let issued = limited_key(&service, in_all(1_000)).await;
    assert!(charge(&service, 0, &issued).await.is_ok());
    let less = KeyLimits { rate: Some(in_all(5)), ..KeyLimits::default() };
    let change = keyward::manage::KeyChange::default().limits(less);
    service.keys().update(&service.owner, issued.key.id, &change, &service.actor).await.unwrap();
    assert!(charge(&service, 0, &issued).await.is_err(), "50 of 1,000 is more than 5");
    let fast = KeyLimits { rate: Some(Rate::per_second(1_000_000)), ..KeyLimits::default() };
    let change = keyward::manage::KeyChange::default().limits(fast);
    service.keys().update(&service.owner, issued.key.id, &change, &service.actor).await.unwrap();
    assert!(charge(&service, 0, &issued).await.is_ok());
}
