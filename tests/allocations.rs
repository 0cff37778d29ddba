//! Heap allocations of a verification. A binary of its own, because the counter replaces the global allocator.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use allocation_counter::measure;
use keyward::{
    Access, Actor, ApiKeys, Expiry, KeyFormat, Limits, MemoryStore, NewKey, Owner, VerifyError,
    VerifyRequest,
    accounts::NoAccounts,
    model::{KeyLimits, Networks, Rate},
    verify::CacheOptions,
};

/// Polls a future once, and panics if it has to wait.
fn poll_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the future is not ready at the first poll"),
    }
}

fn keys() -> ApiKeys {
    let limits = Limits::default().rate(Rate::per_second(1_000_000));
    // Long enough that no entry becomes stale during the test, however slow the machine is.
    let cache = CacheOptions::default()
        .failed_attempts_per_network(Rate::per_second(1_000_000))
        .max_staleness(Duration::from_secs(3_600));
    ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build().unwrap())
        .accounts(NoAccounts::with_limits(limits))
        .cache(cache)
        .build()
}

async fn issue(keys: &ApiKeys, account: &str) -> keyward::manage::Issued {
    let owner = Owner::new("acme", account).unwrap();
    let new = NewKey::new(&owner, "ci")
        .unwrap()
        .access(Access::only(["builds:read"]).unwrap())
        .expiry(Expiry::YEAR)
        .networks(Networks::only(["192.0.2.0/24"]).unwrap())
        .limits(KeyLimits { rate: Some(Rate::per_second(1_000_000)), ..KeyLimits::default() });
    keys.issue(new, &Actor::system("test")).await.unwrap()
}

fn request<'a>() -> VerifyRequest<'a> {
    VerifyRequest::new()
        .tenant("acme")
        .ip("192.0.2.7".parse().unwrap())
        .user_agent("curl/8")
        .require(&["builds:read"])
}

#[tokio::test]
async fn a_cache_hit_with_all_checks_allocates_nothing() {
    let keys = keys();
    let issued = issue(&keys, "ada").await;
    keys.verify(issued.secret.expose(), &request()).await.unwrap();
    let counted = measure(|| {
        for _ in 0..1_000 {
            poll_once(keys.verify(issued.secret.expose(), &request())).unwrap();
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[tokio::test]
async fn the_first_cache_hit_after_a_flush_allocates_nothing() {
    let keys = keys();
    let mut all = Vec::new();
    for n in 0..1_000 {
        all.push(issue(&keys, &format!("ada-{n}")).await);
    }
    // A key that is read before the change feed is followed is read a second time.
    for _ in 0..2 {
        for issued in &all {
            keys.verify(issued.secret.expose(), &request()).await.unwrap();
        }
        keys.flush().await.unwrap();
    }
    assert_eq!(keys.health().unwritten_uses, 0);
    let counted = measure(|| {
        for issued in &all {
            poll_once(keys.verify(issued.secret.expose(), &request())).unwrap();
        }
    });
    assert_eq!(keys.health().unwritten_uses, all.len());
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[tokio::test]
async fn a_malformed_key_is_denied_without_an_allocation() {
    let keys = keys();
    let deny = || {
        let result = poll_once(keys.verify("lc_nonsense", &request()));
        assert!(matches!(result, Err(VerifyError::Denied(_))));
    };
    // The first denial allocates the entry for the audit log.
    deny();
    let counted = measure(|| (0..1_000).for_each(|_| deny()));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[tokio::test]
async fn the_counter_counts_the_allocations_of_a_cache_miss() {
    let keys = keys();
    let issued = issue(&keys, "ada").await;
    let counted = measure(|| drop(poll_once(keys.verify(issued.secret.expose(), &request()))));
    assert!(counted.count_total > 0, "otherwise the other tests check nothing");
}

/// With its share of the maps, and with everything that a verification left behind and that is not written yet freed.
/// The records are owned by many owners of one tenant; each has scopes and an expiry. A rate of its own adds a bucket.
#[test]
fn an_ordinary_cached_key_takes_less_than_400_bytes() {
    const KEYS: usize = 20_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (rate, max_bytes) in [(None, 400), (Some(Rate::per_second(1_000_000)), 560)] {
        let store: Arc<dyn keyward::KeyStore> = Arc::new(MemoryStore::new());
        let node = || {
            let options = CacheOptions::default().max_keys(KEYS);
            let format = KeyFormat::builder("lc").build().unwrap();
            ApiKeys::builder_on(store.clone(), format).cache(options).build()
        };
        let issuer = node();
        let secrets: Vec<_> = runtime.block_on(async {
            let mut secrets = Vec::new();
            for n in 0..KEYS {
                let new = NewKey::new(&Owner::new("acme", &format!("account-{n}")).unwrap(), "ci")
                    .unwrap()
                    .access(Access::only(["builds:read", "builds:write"]).unwrap())
                    .expiry(Expiry::YEAR)
                    .limits(KeyLimits { rate, ..KeyLimits::default() });
                let issued = issuer.issue(new, &Actor::system("test")).await.unwrap();
                secrets.push(issued.secret);
            }
            secrets
        });
        let verify_all = |keys: &ApiKeys| {
            runtime.block_on(async {
                for secret in &secrets {
                    keys.verify(secret.expose(), &VerifyRequest::new()).await.unwrap();
                }
                keys.flush().await.unwrap();
            });
        };
        // The first uses are recorded in the store before anything is counted.
        verify_all(&issuer);
        let mut keys = None;
        let counted = measure(|| {
            let node = keys.insert(node());
            verify_all(node);
        });
        assert_eq!(keys.unwrap().health().cached_keys, KEYS);
        let bytes = counted.bytes_current / KEYS as i64;
        println!("{bytes} bytes per cached key, rate: {}", rate.is_some());
        assert!((1..max_bytes).contains(&bytes), "{bytes} bytes per key");
    }
}
