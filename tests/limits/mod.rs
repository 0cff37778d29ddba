//! Rate limits that all nodes share through Redis.

mod in_process;
mod leases;
mod outages;
mod shared;
mod specification;

use std::{sync::Arc, time::Duration};

use keyward::{
    KeyStore, MemoryStore, Verified, VerifyError, VerifyRequest,
    manage::Issued,
    model::{KeyLimits, Rate},
    verify::{Limited, RedisRateLimiter},
};

use crate::support::{Service, servers::redis::Space};

/// A service with two nodes on one store, each with its own rate limiter.
fn two_nodes(limiter: impl Fn() -> RedisRateLimiter) -> Service {
    let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
    Service::with(vec![store.clone(), store], |builder| builder.rate_limiter(limiter()))
}

/// A limiter with a long timeout, for busy machines.
fn limiter(url: &str) -> RedisRateLimiter {
    RedisRateLimiter::new([url]).unwrap().timeout(Duration::from_secs(60))
}

/// A limiter in a part of a server that other tests do not use.
fn limiter_of(space: &Space) -> RedisRateLimiter {
    let limiter = RedisRateLimiter::with_prefix(space.prefix(), [space.url()]).unwrap();
    limiter.timeout(Duration::from_secs(60))
}

/// A burst of this many uses, of which none is restored while a test runs.
fn burst_only(uses: u32) -> Rate {
    Rate::per_hour(1).burst(uses)
}

async fn limited_key(service: &Service, rate: Rate) -> Issued {
    let new = service.new_key().limits(KeyLimits { rate: Some(rate), ..KeyLimits::default() });
    service.keys().issue(new, &service.actor).await.unwrap()
}

async fn verify(service: &Service, node: usize, issued: &Issued) -> Result<Verified, VerifyError> {
    service.nodes[node].verify(issued.secret.expose(), &VerifyRequest::new()).await
}

async fn charge(service: &Service, node: usize, issued: &Issued) -> Result<Verified, Limited> {
    verify(service, node, issued).await.map_err(|error| match error {
        VerifyError::Limited(limited) => *limited,
        other => panic!("{other:?}"),
    })
}

/// Verifies concurrently on all nodes until each task is limited, and returns the number of granted uses.
async fn charge_all(service: &Arc<Service>, issued: &Arc<Issued>) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (service, issued) = (service.clone(), issued.clone());
        tasks.spawn(async move {
            let mut granted = 0;
            while charge(&service, n % 2, &issued).await.is_ok() {
                granted += 1;
            }
            granted
        });
    }
    tasks.join_all().await.iter().sum()
}
