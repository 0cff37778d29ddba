use std::time::Duration;

use keyward::{
    ErrorKind, VerifyError,
    manage::KeyChange,
    model::{KeyLimits, Quota},
    verify::{LimitedReason, RedisOutage, RedisRateLimiter},
};

use super::{ask, charge, in_all, limited_key, two_nodes};
use crate::support::servers::{
    eventually,
    redis::{Options, Server},
};

type Deed = fn(&mut Server);

/// What happens to Redis, and what ends it.
const OUTAGES: [(Deed, Deed); 2] =
    [(Server::kill, Server::restart), (|server| server.freeze(), |server| server.thaw())];

fn limiter(server: &Server, without: RedisOutage) -> RedisRateLimiter {
    let timeout = Duration::from_secs(2);
    RedisRateLimiter::new([server.url()]).unwrap().timeout(timeout).on_outage(without)
}

#[tokio::test]
async fn without_redis_each_node_counts_for_itself_until_it_is_back() {
    for (begin, end) in OUTAGES {
        let Some(mut server) = Options::default().durable().start() else { return };
        let service = two_nodes(|| limiter(&server, RedisOutage::PerNode));
        let issued = limited_key(&service, in_all(5)).await;
        for n in 0..3 {
            assert!(charge(&service, n % 2, &issued).await.is_ok());
        }
        begin(&mut server);
        for node in [0, 1] {
            for left in (0..5).rev() {
                let verified = charge(&service, node, &issued).await.unwrap();
                assert_eq!(verified.rates().key.unwrap().remaining, left);
            }
            assert!(charge(&service, node, &issued).await.unwrap_err().retry_after.is_some());
        }
        end(&mut server);
        eventually("the nodes count together again", async || {
            let issued = limited_key(&service, in_all(2)).await;
            let left = async |node| match charge(&service, node, &issued).await {
                Ok(verified) => verified.rates().key.unwrap().remaining,
                Err(limited) => panic!("{limited}"),
            };
            (left(0).await, left(1).await) == (1, 0)
        })
        .await;
        // What was sent to a frozen server is counted when it thaws, though nobody waits any more.
        let mut after = 0;
        while charge(&service, after % 2, &issued).await.is_ok() {
            after += 1;
        }
        assert!(after <= 2, "3 were used before");
    }
}

#[tokio::test]
async fn without_redis_uses_are_unavailable_if_that_is_the_choice() {
    for (begin, end) in OUTAGES {
        let Some(mut server) = Options::default().durable().start() else { return };
        let service = two_nodes(|| limiter(&server, RedisOutage::Unavailable));
        let issued = limited_key(&service, in_all(3)).await;
        assert!(ask(&service, 0, &issued).await.is_ok());
        begin(&mut server);
        for n in 0..6 {
            match ask(&service, n % 2, &issued).await.unwrap_err() {
                VerifyError::Unavailable(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
                other => panic!("{other:?}"),
            }
        }
        let plain = service.issue().await;
        assert!(ask(&service, 0, &plain).await.is_ok(), "what has no rate needs no Redis");
        end(&mut server);
        eventually("it is back", async || ask(&service, 1, &issued).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_server_that_forgot_its_scripts_is_told_again() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server, RedisOutage::Unavailable));
    let issued = limited_key(&service, in_all(3)).await;
    for _ in 0..3 {
        assert!(ask(&service, 0, &issued).await.is_ok());
        server.call(&["SCRIPT", "FLUSH"]);
    }
    assert!(charge(&service, 0, &issued).await.is_err());
}

#[tokio::test]
async fn what_was_refused_without_redis_spends_nothing_and_gives_no_permits() {
    let Some(mut server) = Options::default().durable().start() else { return };
    let service = two_nodes(|| limiter(&server, RedisOutage::PerNode).lease(50));
    let quota = |uses| KeyLimits { rate: Some(in_all(100)), quota: Some(Quota::total(uses)) };
    let new = service.new_key().limits(quota(10));
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    for _ in 0..10 {
        assert!(charge(&service, 0, &issued).await.is_ok());
    }
    server.kill();
    for _ in 0..150 {
        let limited = charge(&service, 0, &issued).await.unwrap_err();
        assert_eq!(limited.reason, LimitedReason::Quota);
    }
    server.restart();
    let more = KeyChange::default().limits(quota(1_000));
    let node = &service.nodes[1];
    node.update(&service.owner, issued.key.id, &more, &service.actor).await.unwrap();
    eventually("the nodes count together again", async || {
        let issued = limited_key(&service, in_all(2)).await;
        let _ = charge(&service, 0, &issued).await;
        charge(&service, 1, &issued).await.unwrap().rates().key.unwrap().remaining == 0
    })
    .await;
    let mut passed = 0;
    for node in [0, 1] {
        service.nodes[node].catch_up().await.unwrap();
        while charge(&service, node, &issued).await.is_ok() {
            passed += 1;
        }
    }
    assert_eq!(passed, 90);
}
