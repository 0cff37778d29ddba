//! What a verification asks of the allocator. A binary of its own, because it counts all of it.

use std::{pin::pin, task::Poll, time::Duration};

use allocation_counter::measure;
use keyward::{
    Access, Actor, ApiKeys, Expiry, KeyFormat, Limits, MemoryStore, NewKey, Owner, VerifyError,
    VerifyRequest,
    accounts::NoAccounts,
    model::{KeyLimits, Networks, Rate},
    verify::CacheOptions,
};

/// Polls once: whatever has to wait is no hit.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waited for something"),
    }
}

fn keys() -> ApiKeys {
    let limits = Limits::default().rate(Rate::per_second(1_000_000));
    // However long the machine pauses, nothing has to be asked for again meanwhile.
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
async fn a_hit_with_everything_to_check_allocates_nothing() {
    let keys = keys();
    let issued = issue(&keys, "ada").await;
    keys.verify(issued.secret.expose(), &request()).await.unwrap();
    let counted = measure(|| {
        for _ in 0..1_000 {
            at_once(keys.verify(issued.secret.expose(), &request())).unwrap();
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[tokio::test]
async fn the_first_hit_after_the_uses_were_written_allocates_nothing_either() {
    let keys = keys();
    let mut all = Vec::new();
    for n in 0..1_000 {
        all.push(issue(&keys, &format!("ada-{n}")).await);
    }
    // What is read before the feed is followed is read again.
    for _ in 0..2 {
        for issued in &all {
            keys.verify(issued.secret.expose(), &request()).await.unwrap();
        }
        keys.flush().await.unwrap();
    }
    assert_eq!(keys.health().unwritten_uses, 0);
    let counted = measure(|| {
        for issued in &all {
            at_once(keys.verify(issued.secret.expose(), &request())).unwrap();
        }
    });
    assert_eq!(keys.health().unwritten_uses, all.len());
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[tokio::test]
async fn what_cannot_be_a_key_is_refused_without_an_allocation() {
    let keys = keys();
    let refuse = || {
        let refused = at_once(keys.verify("lc_nonsense", &request()));
        assert!(matches!(refused, Err(VerifyError::Denied(_))));
    };
    // The first one is described for the log.
    refuse();
    let counted = measure(|| (0..1_000).for_each(|_| refuse()));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[tokio::test]
async fn the_counter_sees_the_allocations_of_a_miss() {
    let keys = keys();
    let issued = issue(&keys, "ada").await;
    let counted = measure(|| drop(at_once(keys.verify(issued.secret.expose(), &request()))));
    assert!(counted.count_total > 0, "a check that cannot fail is a defect");
}
