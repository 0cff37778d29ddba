use std::time::Duration;

use keyward::{
    ErrorKind, VerifyError,
    manage::KeyChange,
    model::{KeyLimits, Quota},
    verify::{LimitedReason, RedisOutage, RedisRateLimiter},
};

use super::{burst_only, charge, limited_key, two_nodes, verify};
use crate::support::servers::{
    eventually,
    redis::{Options, Server},
};

type Action = fn(&mut Server);

/// Actions that begin and end an outage of Redis.
const OUTAGES: [(Action, Action); 2] =
    [(Server::kill, Server::restart), (|server| server.freeze(), |server| server.thaw())];

fn limiter(server: &Server, outage: RedisOutage) -> RedisRateLimiter {
    let timeout = Duration::from_secs(2);
    RedisRateLimiter::new([server.url()]).unwrap().timeout(timeout).on_outage(outage)
}

#[tokio::test]
async fn during_an_outage_each_node_counts_for_itself() {
    for (begin, end) in OUTAGES {
        let Some(mut server) = Options::default().durable().start() else { return };
        let service = two_nodes(|| limiter(&server, RedisOutage::PerNode));
        let issued = limited_key(&service, burst_only(5)).await;
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
        eventually("the nodes share the rate again", async || {
            let issued = limited_key(&service, burst_only(2)).await;
            let left = async |node| match charge(&service, node, &issued).await {
                Ok(verified) => verified.rates().key.unwrap().remaining,
                Err(limited) => panic!("{limited}"),
            };
            (left(0).await, left(1).await) == (1, 0)
        })
        .await;
        // Calls to a frozen server are counted when it thaws, although they timed out.
        let mut granted = 0;
        while charge(&service, granted % 2, &issued).await.is_ok() {
            granted += 1;
        }
        assert!(granted <= 2, "3 were used before the outage");
    }
}

#[tokio::test]
async fn during_an_outage_verification_is_unavailable_if_configured() {
    for (begin, end) in OUTAGES {
        let Some(mut server) = Options::default().durable().start() else { return };
        let service = two_nodes(|| limiter(&server, RedisOutage::Unavailable));
        let issued = limited_key(&service, burst_only(3)).await;
        assert!(verify(&service, 0, &issued).await.is_ok());
        begin(&mut server);
        for n in 0..6 {
            match verify(&service, n % 2, &issued).await.unwrap_err() {
                VerifyError::Unavailable(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
                other => panic!("{other:?}"),
            }
        }
        let plain = service.issue().await;
        assert!(
            verify(&service, 0, &plain).await.is_ok(),
            "a key without a rate does not need Redis"
        );
        end(&mut server);
        eventually("Redis is used again", async || verify(&service, 1, &issued).await.is_ok())
            .await;
    }
}

#[tokio::test]
async fn scripts_are_loaded_again_after_a_script_flush() {
    let Some(server) = Options::default().start() else { return };
    let service = two_nodes(|| limiter(&server, RedisOutage::Unavailable));
    let issued = limited_key(&service, burst_only(3)).await;
    for _ in 0..3 {
        assert!(verify(&service, 0, &issued).await.is_ok());
        server.call(&["SCRIPT", "FLUSH"]);
    }
    assert!(charge(&service, 0, &issued).await.is_err());
}

#[tokio::test]
async fn uses_rejected_during_an_outage_are_neither_charged_nor_refunded() {
    let Some(mut server) = Options::default().durable().start() else { return };
    let service = two_nodes(|| limiter(&server, RedisOutage::PerNode).lease(50));
    let quota = |uses| KeyLimits { rate: Some(burst_only(100)), quota: Some(Quota::total(uses)) };
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
    eventually("the nodes share the rate again", async || {
        let issued = limited_key(&service, burst_only(2)).await;
        let _ = charge(&service, 0, &issued).await;
        charge(&service, 1, &issued).await.unwrap().rates().key.unwrap().remaining == 0
    })
    .await;
    let mut granted = 0;
    for node in [0, 1] {
        service.nodes[node].catch_up().await.unwrap();
        while charge(&service, node, &issued).await.is_ok() {
            granted += 1;
        }
    }
    assert_eq!(granted, 90);
}
