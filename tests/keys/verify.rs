use std::{
    future::Future as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use keyward::{
    ApiKeys, Hasher, HmacSha256Hasher, Pepper, SecretDigest, Sha256Hasher, VerifyError,
    VerifyRequest, secret::HasherTag,
};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{Service, format, on_each_store, stores},
};

/// Counts the digests that are computed.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Hasher for Counting {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.0.fetch_add(1, Ordering::Relaxed);
        Sha256Hasher.digest(presented)
    }

    fn tag(&self) -> HasherTag {
        HasherTag::SHA256
    }
}

fn peppered(id: u16) -> HmacSha256Hasher {
    HmacSha256Hasher::new(Pepper::new(id, vec![id as u8; 32]).unwrap())
}

#[tokio::test]
async fn malformed_text_is_rejected_before_hashing() {
    let hasher = Counting::default();
    let service = Service::with(stores::memory(), |builder| builder.hasher(hasher.clone()));
    let issued = service.issue().await;
    let hashed = hasher.0.load(Ordering::Relaxed);
    let good = issued.secret.expose();
    let mut typo = good.to_string().into_bytes();
    typo[12] ^= 1;
    let test = good.replace("_live_", "_test_");
    let long = good.repeat(10_000);
    let attempts: [&[u8]; 10] = [
        b"",
        b"lc_live_",
        b"\xff\xfe\0",
        "lc_live_ünï".as_bytes(),
        &typo,
        test.as_bytes(),
        long.as_bytes(),
        &good.as_bytes()[..good.len() - 1],
        &[good.as_bytes(), b"\n"].concat(),
        &[b" ", good.as_bytes()].concat(),
    ];
    for attempt in attempts {
        let error = service.keys().verify(attempt, &VerifyRequest::new()).await.unwrap_err();
        let VerifyError::Denied(denied) = error else { panic!("{error}") };
        assert_eq!(denied.reason().as_str(), "malformed", "{attempt:?}");
    }
    assert_eq!(hasher.0.load(Ordering::Relaxed), hashed);
    assert!(service.verify(&issued).await.is_ok());
    assert_eq!(hasher.0.load(Ordering::Relaxed), hashed + 1, "a well-formed key is hashed once");
}

#[tokio::test]
async fn an_unknown_key_costs_the_same_work_as_a_known_one() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let (current, retired) = (Counting::default(), Counting::default());
    let service = Service::with(vec![Arc::new(store.clone())], |builder| {
        builder.no_cache().hasher(current.clone()).also_accept(retired.clone())
    });
    let (known, unknown) = (service.issue().await.secret, format().generate().unwrap());
    let work = async |secret: &str| {
        let done = || {
            let hashed = [&current, &retired].map(|hasher| hasher.0.load(Ordering::Relaxed));
            (hashed, store.finds())
        };
        let (hashed, finds) = done();
        let _ = service.keys().verify(secret, &VerifyRequest::new()).await;
        let after = done();
        ([after.0[0] - hashed[0], after.0[1] - hashed[1]], after.1 - finds)
    };
    assert_eq!(work(known.expose()).await, ([1, 1], 1));
    assert_eq!(work(unknown.expose()).await, ([1, 1], 1));
}

#[tokio::test]
async fn a_use_that_cannot_be_written_is_written_later_and_fails_no_request() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::with(vec![Arc::new(store.clone())], |builder| builder);
    let issued = service.issue().await;
    store.set_use_fault(Fault::Unavailable);
    for _ in 0..3 {
        service.clock.advance(crate::support::SECOND);
        assert!(service.verify(&issued).await.is_ok());
        assert!(service.keys().flush().await.is_err());
    }
    assert_eq!(service.stored(issued.key.id).await.last_used_at, None);
    store.set_use_fault(Fault::None);
    service.keys().flush().await.unwrap();
    let key = service.stored(issued.key.id).await;
    assert_eq!(key.last_used_at, Some(service.now()));
    assert!(key.first_used_at < key.last_used_at);
}

#[tokio::test]
async fn every_denial_has_the_same_message() {
    let service = Service::new(stores::memory());
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    let issued = service.issue().await;
    let unknown = format().generate().unwrap();
    keys.revoke(ada, issued.key.id, "secret reason", by).await.unwrap();
    let mut texts = std::collections::BTreeSet::new();
    for presented in ["", "lc_live_x", unknown.expose(), issued.secret.expose()] {
        let error = keys.verify(presented, &VerifyRequest::new()).await.unwrap_err();
        texts.insert(error.to_string());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn an_accounts_failure_is_unavailable_and_never_denied() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    service.host.fail(true);
    let error =
        service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap_err();
    assert!(matches!(error, VerifyError::Unavailable(_)));
    let error = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert!(error.is_unavailable());
    assert!(std::error::Error::source(&error).is_some());
    service.host.fail(false);
    assert!(service.verify(&issued).await.is_ok());
}

#[tokio::test]
async fn a_key_of_a_retired_pepper_verifies_and_moves_to_the_current_one() {
    on_each_store(async |handles| {
        for cached in [true, false] {
            moves_to_the_current_pepper(handles.clone(), cached).await;
        }
    })
    .await;
}

async fn moves_to_the_current_pepper(handles: stores::Handles, cached: bool) {
    let store = handles[0].clone();
    let (old, current) = (peppered(1), peppered(2));
    let before = Service::with(handles.clone(), |builder| builder.hasher(peppered(1)));
    let issued = before.issue().await;
    let text = issued.secret.expose().as_bytes();

    let service = Service::with(handles.clone(), |builder| {
        builder.hasher(peppered(2)).also_accept(peppered(1)).also_accept(Sha256Hasher)
    });
    let uncached = Service::with(handles, |builder| {
        builder.hasher(peppered(2)).also_accept(peppered(1)).no_cache()
    });
    let mover = if cached { &service } else { &uncached };
    assert!(mover.verify(&issued).await.is_ok());
    for node in &mover.nodes {
        node.flush().await.unwrap();
    }
    assert!(store.find(&[old.digest(text)]).await.unwrap().is_none(), "rewritten on use");
    assert!(store.find(&[current.digest(text)]).await.unwrap().is_some());
    assert!(service.verify(&issued).await.is_ok());
    let err = before.verify(&issued).await.unwrap_err();
    assert_eq!(err.as_str(), "unknown", "the old pepper alone no longer finds the key");
}

#[tokio::test]
async fn a_retiring_secret_moves_to_the_current_pepper_too() {
    on_each_store(async |handles| {
        let before = Service::with(handles.clone(), |builder| builder.hasher(peppered(1)));
        let old = before.issue().await;
        let overlap = keyward::manage::Rotation::overlap(crate::support::HOUR);
        let new = before.keys().rotate(&before.owner, old.key.id, overlap, &before.actor).await;
        let new = new.unwrap();
        let moving = Service::with(handles.clone(), |builder| {
            builder.hasher(peppered(2)).also_accept(peppered(1))
        });
        for issued in [&old, &new] {
            assert!(moving.verify(issued).await.is_ok());
        }
        for node in &moving.nodes {
            node.flush().await.unwrap();
        }
        let after = Service::with(handles, |builder| builder.hasher(peppered(2)));
        for issued in [&old, &new] {
            assert!(after.verify(issued).await.is_ok());
        }
        after.clock.advance(crate::support::HOUR);
        assert_eq!(after.verify(&old).await.unwrap_err().as_str(), "secret_retired");
    })
    .await;
}

#[tokio::test]
async fn a_first_use_is_written_without_a_flush() {
    on_each_store(async |handles| {
        writes_a_first_use(&Service::new(handles.clone())).await;
        writes_a_first_use(&Service::uncached(handles)).await;
    })
    .await;
}

async fn writes_a_first_use(service: &Service) {
    let issued = service.issue().await;
    let request = VerifyRequest::new().ip("198.51.100.9".parse().unwrap()).user_agent("curl/8");
    service.verify_for(&issued, &request).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let key = loop {
        let key = service.stored(issued.key.id).await;
        if key.first_used_at.is_some() {
            break key;
        }
        assert!(std::time::Instant::now() < deadline, "the first use was not written");
        tokio::task::yield_now().await;
    };
    assert_eq!(key.first_used_at, Some(service.now()));
    assert_eq!(key.last_used_ip, request_ip());
}

fn request_ip() -> Option<std::net::IpAddr> {
    "198.51.100.9".parse().ok()
}

#[tokio::test]
async fn uses_are_coalesced_and_only_move_forward() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = service.issue().await;
        let first = service.now();
        for _ in 0..50 {
            service.clock.advance(crate::support::SECOND);
            service.verify(&issued).await.unwrap();
        }
        let last = service.now();
        service.clock.set(first);
        service.verify(&issued).await.unwrap();
        for node in &service.nodes {
            node.flush().await.unwrap();
        }
        let key = service.stored(issued.key.id).await;
        assert_eq!(key.last_used_at, Some(last));
        assert_eq!(key.revision, 0, "a use does not change the revision");
    })
    .await;
}

#[test]
fn a_verification_works_outside_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let test = keyward::testing::TestKeys::new();
    let issued = runtime.block_on(test.issue(["a"]));
    drop(runtime);
    let (keys, request): (ApiKeys, _) = (test.keys.clone(), VerifyRequest::new());
    let mut verify = Box::pin(keys.verify(issued.secret.expose(), &request));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(verify.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(_))));
}

/// Makes many changes within one tick of the coarse clock, which lags behind the exact one.
#[tokio::test]
async fn no_event_is_dated_before_an_earlier_one() {
    let keys = ApiKeys::builder(keyward::MemoryStore::new(), format()).build();
    let by = keyward::model::Actor::system("test");
    for n in 0..200 {
        let owner = keyward::model::Owner::new("acme", &format!("u{n}")).unwrap();
        let new = || keyward::manage::NewKey::new(&owner, "ci").unwrap();
        let (first, second) = (keys.issue(new(), &by).await.unwrap(), keys.issue(new(), &by).await);
        let second = second.unwrap();
        keys.verify(second.secret.expose(), &VerifyRequest::new()).await.unwrap();
        keys.revoke(&owner, first.key.id, "", &by).await.unwrap();
        keys.verify(first.secret.expose(), &VerifyRequest::new()).await.unwrap_err();
        keys.flush().await.unwrap();
        let used = keys.get(&owner, second.key.id).await.unwrap();
        assert!(used.first_used_at.unwrap() >= used.created_at);
        let revoked = keys.get(&owner, first.key.id).await.unwrap().revoked.clone().unwrap();
        let denied = keyward::AuditQuery::new(&owner).kind(keyward::audit::EventKind::Denied);
        let denied = keys.events(denied).await.unwrap().remove(0);
        assert!(denied.at >= revoked.at);
    }
}
