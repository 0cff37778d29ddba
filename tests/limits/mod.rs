//! Rates that all nodes count together.

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

use crate::support::Service;

/// Two nodes on one store, each with a limiter of its own.
fn two_nodes(limiter: impl Fn() -> RedisRateLimiter) -> Service {
    let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
    Service::with(vec![store.clone(), store], |builder| builder.rate_limiter(limiter()))
}

/// As patient as a busy machine needs.
fn limiter(url: &str) -> RedisRateLimiter {
    RedisRateLimiter::new([url]).unwrap().timeout(Duration::from_secs(60))
}

/// So many at once, and none again while a test runs.
fn in_all(uses: u32) -> Rate {
    Rate::per_hour(1).burst(uses)
}

async fn limited_key(service: &Service, rate: Rate) -> Issued {
    let new = service.new_key().limits(KeyLimits { rate: Some(rate), ..KeyLimits::default() });
    service.keys().issue(new, &service.actor).await.unwrap()
}

async fn ask(service: &Service, node: usize, issued: &Issued) -> Result<Verified, VerifyError> {
    service.nodes[node].verify(issued.secret.expose(), &VerifyRequest::new()).await
}

async fn charge(service: &Service, node: usize, issued: &Issued) -> Result<Verified, Limited> {
    ask(service, node, issued).await.map_err(|error| match error {
        VerifyError::Limited(limited) => *limited,
        other => panic!("{other:?}"),
    })
}

/// How many uses all tasks of all nodes get, if each goes on until it is refused.
async fn charge_all(service: &Arc<Service>, issued: &Arc<Issued>) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (service, issued) = (service.clone(), issued.clone());
        tasks.spawn(async move {
            let mut passed = 0;
            while charge(&service, n % 2, &issued).await.is_ok() {
                passed += 1;
            }
            passed
        });
    }
    tasks.join_all().await.iter().sum()
}
