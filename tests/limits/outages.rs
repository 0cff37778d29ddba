use std::time::Duration;

use keyward::{
    ErrorKind, VerifyError,
    limits::{RedisLimiter, WithoutRedis},
};

use super::{ask, in_all, limited_key, spend, two_nodes};
use crate::support::servers::{
    eventually,
    redis::{Options, Server},
};

type Deed = fn(&mut Server);

/// What happens to Redis, and what ends it.
const OUTAGES: [(Deed, Deed); 2] =
    [(Server::kill, Server::restart), (|server| server.freeze(), |server| server.thaw())];

fn limiter(server: &Server, without: WithoutRedis) -> RedisLimiter {
    let timeout = Duration::from_secs(2);
    RedisLimiter::new([server.url()]).unwrap().timeout(timeout).without(without)
}

#[tokio::test]
async fn without_redis_each_node_counts_for_itself_until_it_is_back() {
    for (begin, end) in OUTAGES {
        let Some(mut server) = Options::default().durable().start() else { return };
        let service = two_nodes(|| limiter(&server, WithoutRedis::PerNode));
        let issued = limited_key(&service, in_all(5)).await;
        for n in 0..3 {
            assert!(spend(&service, n % 2, &issued).await.is_ok());
        }
        begin(&mut server);
        for node in [0, 1] {
            for left in (0..5).rev() {
                let verified = spend(&service, node, &issued).await.unwrap();
                assert_eq!(verified.rates().key.unwrap().remaining, left);
            }
            assert!(spend(&service, node, &issued).await.unwrap_err().retry_after.is_some());
        }
        end(&mut server);
        eventually("the nodes count together again", async || {
            let issued = limited_key(&service, in_all(2)).await;
            let left = async |node| match spend(&service, node, &issued).await {
                Ok(verified) => verified.rates().key.unwrap().remaining,
                Err(limited) => panic!("{limited}"),
            };
            (left(0).await, left(1).await) == (1, 0)
        })
        .await;
        // What was sent to a frozen server is counted when it thaws, though nobody waits any more.
        let mut after = 0;
        while spend(&service, after % 2, &issued).await.is_ok() {
            after += 1;
        }
        assert!(after <= 2, "3 were used before");
    }
}

#[tokio::test]
async fn without_redis_uses_are_unavailable_if_that_is_the_choice() {
    for (begin, end) in OUTAGES {
        let Some(mut server) = Options::default().durable().start() else { return };
        let service = two_nodes(|| limiter(&server, WithoutRedis::Unavailable));
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
    let service = two_nodes(|| limiter(&server, WithoutRedis::Unavailable));
    let issued = limited_key(&service, in_all(3)).await;
    for _ in 0..3 {
        assert!(ask(&service, 0, &issued).await.is_ok());
        server.call(&["SCRIPT", "FLUSH"]);
    }
    assert!(spend(&service, 0, &issued).await.is_err());
}
