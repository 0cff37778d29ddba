//! Calls that are repeated with an idempotency token, because the answer was lost.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use keyward::{
    Access, AuditQuery, Error, ErrorKind, Expiry, Limits, NewKey, SecretDigest,
    audit::EventKind,
    manage::{Issued, KeyChange, Page, Rotation},
    model::{KeyLimits, Metadata, Networks, Rate},
    verify::{RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome},
};
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    cache::faulty_store::FaultyStore,
    support::{DAY, HOUR, MICRO, SECOND, Service, on_each_store, owner, stores},
};

/// How long the answer to a call counts as on its way.
const IN_PROGRESS: Duration = Duration::from_secs(10);

async fn issue(service: &Service, new: NewKey) -> Result<Issued, Error> {
    service.keys().issue(new, &service.actor).await
}

async fn rotate(
    service: &Service,
    node: usize,
    issued: &Issued,
    rotation: Rotation,
) -> Result<Issued, Error> {
    let node = &service.nodes[node % service.nodes.len()];
    node.rotate(&service.owner, issued.key.id, rotation, &service.actor).await
}

fn is_reused(result: Result<Issued, Error>) -> bool {
    result.unwrap_err().kind() == ErrorKind::TokenReused
}

/// Checks that one of the calls made a secret, and that the others were in progress. Returns the secret.
fn the_only_secret(results: Vec<Result<Issued, Error>>) -> Issued {
    let mut made = Vec::new();
    for result in results {
        match result {
            Ok(issued) => made.push(issued),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InProgress, "{error}");
                assert_eq!(error.retry_after(), Some(IN_PROGRESS));
            }
        }
    }
    assert_eq!(made.len(), 1);
    made.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_issues_with_one_token_make_one_key_with_a_live_secret() {
    on_each_store(async |handles| {
        for round in 0..10 {
            let mut service = Service::new(handles.clone());
            service.owner = owner("acme", &format!("ada-{round}"));
            service.host.limit(&service.owner, Limits::default().max_active_keys(1));
            let (service, start) = (Arc::new(service), Arc::new(Barrier::new(32)));
            let mut tasks = JoinSet::new();
            for n in 0..32 {
                let (service, start) = (service.clone(), start.clone());
                tasks.spawn(async move {
                    let new = service.new_key().token("4711");
                    start.wait().await;
                    service.nodes[n % service.nodes.len()].issue(new, &service.actor).await
                });
            }
            let issued = the_only_secret(tasks.join_all().await);
            assert!(service.verify(&issued).await.is_ok());
            let stored = service.keys().list(&service.owner, Page::first()).await.unwrap().keys;
            assert_eq!(stored.iter().map(|key| key.id).collect::<Vec<_>>(), [issued.key.id]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_rotations_with_one_token_make_one_live_secret() {
    on_each_store(async |handles| {
        let service = Arc::new(Service::new(handles));
        for round in 0..10 {
            let old = Arc::new(service.issue().await);
            // The first answers are lost. Then, all repeat the rotation at once.
            let rotation = Rotation::overlap(HOUR).token(&format!("deploy-{round}"));
            let lost = rotate(&service, 0, &old, rotation.clone()).await.unwrap();
            service.clock.advance(IN_PROGRESS);
            let start = Arc::new(Barrier::new(32));
            let mut tasks = JoinSet::new();
            for n in 0..32 {
                let (service, old) = (service.clone(), old.clone());
                let (start, rotation) = (start.clone(), rotation.clone());
                tasks.spawn(async move {
                    start.wait().await;
                    rotate(&service, n, &old, rotation).await
                });
            }
            let issued = the_only_secret(tasks.join_all().await);
            assert!(service.verify(&issued).await.is_ok());
            assert!(service.verify(&old).await.is_ok());
            assert!(service.verify(&lost).await.is_err());
        }
        let query = AuditQuery::new(&service.owner).kind(EventKind::Rotated);
        assert_eq!(service.keys().events(query).await.unwrap().len(), 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_that_a_node_has_verified_is_never_replaced_by_a_repetition_on_this_node() {
    on_each_store(async |handles| {
        let service = Arc::new(Service::new(handles));
        for round in 0..20 {
            let old = Arc::new(service.issue().await);
            let rotation = Rotation::immediate().token(&format!("deploy-{round}"));
            let made = Arc::new(rotate(&service, 0, &old, rotation.clone()).await.unwrap());
            service.clock.advance(IN_PROGRESS);
            let start = Arc::new(Barrier::new(16));
            let mut tasks = JoinSet::new();
            for n in 0..16 {
                let (service, old, made) = (service.clone(), old.clone(), made.clone());
                let (start, rotation) = (start.clone(), rotation.clone());
                tasks.spawn(async move {
                    start.wait().await;
                    let node = &service.nodes[n % service.nodes.len()];
                    let secret = made.secret.expose();
                    let request = keyward::VerifyRequest::new();
                    // Half of the tasks repeat the rotation without having used the secret.
                    let used = n % 4 < 2 && node.verify(secret, &request).await.is_ok();
                    (used, rotate(&service, n, &old, rotation).await)
                });
            }
            let results = tasks.join_all().await;
            for (used, result) in &results {
                assert!(!(*used && result.is_ok()), "round {round}: a secret in use was replaced");
            }
            let replaced = results.iter().filter(|(_, result)| result.is_ok()).count();
            assert!(replaced <= 1);
            assert_eq!(service.verify(&made).await.is_ok(), replaced == 0, "round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_repetition_does_not_replace_a_secret_that_was_used() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let last = service.nodes.len() - 1;
        let old = service.issue().await;
        assert!(service.verify(&old).await.is_ok());
        let rotation = Rotation::overlap(HOUR).token("deploy-1");
        let lost = rotate(&service, 0, &old, rotation.clone()).await.unwrap();
        service.clock.advance(IN_PROGRESS);
        assert!(service.verify(&old).await.is_ok(), "a use of the old secret is none of the new");
        let kept = rotate(&service, last, &old, rotation.clone()).await.unwrap();
        assert!(service.verify(&lost).await.is_err());

        // Verified on the last node: known there before it is written, and on the others afterwards.
        assert!(service.verify(&kept).await.is_ok());
        assert!(is_reused(rotate(&service, last, &old, rotation.clone()).await));
        for node in 0..=last {
            for wait in [MICRO, IN_PROGRESS, HOUR] {
                service.clock.advance(wait);
                assert!(is_reused(rotate(&service, node, &old, rotation.clone()).await));
            }
        }
        assert!(service.verify(&kept).await.is_ok());
        let stored = service.stored(old.key.id).await;
        assert!(stored.secret_first_used_at > stored.first_used_at);

        let new = service.new_key().token("4711");
        let lost = issue(&service, new.clone()).await.unwrap();
        service.clock.advance(IN_PROGRESS);
        let kept = issue(&service, new.clone()).await.unwrap();
        assert_eq!(kept.key.id, lost.key.id);
        assert_eq!(*kept.key, service.stored(kept.key.id).await);
        assert!(service.verify(&lost).await.is_err());
        assert!(service.verify(&kept).await.is_ok());
        service.nodes[last].flush().await.unwrap();
        assert!(is_reused(issue(&service, new).await));
        assert!(service.verify(&kept).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_repetition_within_ten_seconds_is_in_progress() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let new = service.new_key().token("4711");
        let rotation = Rotation::overlap(HOUR).token("deploy-1");
        let made = issue(&service, new.clone()).await.unwrap();
        let old = service.issue().await;
        let rotated = rotate(&service, 0, &old, rotation.clone()).await.unwrap();
        let start = service.now();
        for elapsed in [Duration::ZERO, SECOND * 7, IN_PROGRESS - MICRO] {
            service.clock.set(start.after(elapsed));
            let again = [
                issue(&service, new.clone()).await,
                rotate(&service, 1, &old, rotation.clone()).await,
            ];
            for error in again.map(Result::unwrap_err) {
                assert_eq!(error.kind(), ErrorKind::InProgress);
                assert_eq!(error.retry_after(), Some(IN_PROGRESS - elapsed));
            }
        }
        service.clock.set(start.after(IN_PROGRESS));
        // Each replacement begins another ten seconds.
        assert!(issue(&service, new.clone()).await.is_ok());
        assert!(rotate(&service, 1, &old, rotation.clone()).await.is_ok());
        let error = issue(&service, new).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(IN_PROGRESS));
        let error = rotate(&service, 0, &old, rotation).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(IN_PROGRESS));
        for lost in [made, rotated] {
            assert!(service.verify(&lost).await.is_err());
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeated_rotation_with_another_overlap_changes_nothing() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let old = service.issue().await;
        let made = rotate(&service, 0, &old, Rotation::overlap(HOUR).token("d")).await.unwrap();
        for wait in [Duration::ZERO, IN_PROGRESS] {
            service.clock.advance(wait);
            let overlaps = [Duration::ZERO, HOUR + Duration::from_nanos(1), DAY];
            for overlap in overlaps {
                let other = Rotation::overlap(overlap).token("d");
                assert!(is_reused(rotate(&service, 1, &old, other).await), "{overlap:?}");
            }
        }
        for live in [&old, &made] {
            assert!(service.verify(live).await.is_ok());
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_is_valid_for_a_day() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (new, nightly) =
            (service.new_key().token("4711"), Rotation::immediate().token("nightly"));
        let (first, old) = (issue(&service, new.clone()).await.unwrap(), service.issue().await);
        let rotated = rotate(&service, 0, &old, nightly.clone()).await.unwrap();
        service.clock.advance(DAY - MICRO);
        let repeated = rotate(&service, 0, &old, nightly.clone()).await.unwrap();
        assert_eq!(repeated.key.retiring, rotated.key.retiring, "the same rotation");
        assert_eq!(issue(&service, new.clone()).await.unwrap().key.id, first.key.id);
        assert!(service.verify(&repeated).await.is_ok());
        service.nodes.last().unwrap().flush().await.unwrap();
        service.clock.advance(MICRO + MICRO);
        let second = issue(&service, new.clone()).await.unwrap();
        assert_ne!(second.key.id, first.key.id, "the token issues another key");
        service.clock.advance(IN_PROGRESS);
        assert_eq!(issue(&service, new).await.unwrap().key.id, second.key.id);

        // The day of a rotation begins with its last repetition.
        assert!(is_reused(rotate(&service, 0, &old, nightly.clone()).await), "it is in use");
        service.clock.advance(DAY);
        let another = rotate(&service, 0, &old, nightly).await.unwrap();
        assert_eq!(another.key.retiring.as_ref().unwrap().hint, repeated.key.hint);
        assert_eq!(service.verify(&repeated).await.unwrap_err().as_str(), "secret_retired");
        assert!(service.verify(&another).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_repeated_issue_compares_everything_that_was_asked_for() {
    let service = Service::new(stores::memory());
    let rate = |n| KeyLimits { rate: Some(Rate::per_minute(n)), ..KeyLimits::default() };
    let networks = |text| Networks::only([text]).unwrap();
    let metadata = |team| Metadata::new([("team", team)]).unwrap();
    let (now, plain) = (service.now(), service.new_key());
    let asked = [
        plain.clone(),
        NewKey::new(&service.owner, "another name").unwrap(),
        plain.clone().access(Access::only(["a"]).unwrap()),
        plain.clone().access(Access::only(["a", "b"]).unwrap()),
        plain.clone().limits(rate(1)),
        plain.clone().limits(rate(2)),
        plain.clone().networks(networks("192.0.2.0/24")),
        plain.clone().networks(networks("192.0.2.0/25")),
        plain.clone().metadata(metadata("a")),
        plain.clone().metadata(metadata("b")),
        plain.clone().expiry(Expiry::days(3)),
        plain.clone().expiry(Expiry::days(4)),
        plain.clone().expiry(Expiry::At(now.after(DAY))),
        plain.clone().expiry(Expiry::At(now.after(DAY + MICRO))),
    ];
    let mut ids = HashSet::new();
    for (n, first) in asked.iter().enumerate() {
        let with_token = |new: &NewKey| new.clone().token(&n.to_string());
        let made = issue(&service, with_token(first)).await.unwrap();
        service.clock.advance(IN_PROGRESS);
        for (other, new) in asked.iter().enumerate().filter(|(other, _)| *other != n) {
            assert!(is_reused(issue(&service, with_token(new)).await), "{n}, then {other}");
        }
        assert_eq!(issue(&service, with_token(first)).await.unwrap().key.id, made.key.id);
        assert!(ids.insert(made.key.id.to_string()));
    }
}

#[tokio::test]
async fn a_key_that_was_changed_since_is_not_issued_again() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, owner, by) = (service.keys(), &service.owner, &service.actor);
        let issue_and = async |token: &str| {
            let new = service.new_key().token(token);
            (new.clone(), issue(&service, new).await.unwrap())
        };
        let (new, made) = issue_and("updated").await;
        let change = KeyChange::default().name("another").unwrap();
        keys.update(owner, made.key.id, &change, by).await.unwrap();
        assert!(is_reused(issue(&service, new).await));

        let (new, made) = issue_and("disabled").await;
        keys.disable(owner, made.key.id, by).await.unwrap();
        assert!(is_reused(issue(&service, new).await));

        let (new, made) = issue_and("rotated").await;
        let rotated = rotate(&service, 0, &made, Rotation::immediate()).await.unwrap();
        service.clock.advance(IN_PROGRESS);
        assert!(is_reused(issue(&service, new).await));
        assert!(service.verify(&rotated).await.is_ok());

        let (new, made) = issue_and("revoked").await;
        keys.revoke(owner, made.key.id, "", by).await.unwrap();
        assert!(is_reused(issue(&service, new).await));

        let (new, made) = issue_and("deleted").await;
        keys.delete(owner, made.key.id, by).await.unwrap();
        let another = issue(&service, new).await.unwrap();
        assert_ne!(another.key.id, made.key.id);

        // An import has no secret to replace.
        let digest = |n| SecretDigest::from_sha256(&[n; 32]).unwrap();
        let new = service.new_key().token("imported");
        keys.import(new.clone(), digest(1), "lc_a1b2", by).await.unwrap();
        let again = keys.import(new, digest(2), "lc_a1b2", by).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        service.clock.advance(IN_PROGRESS);
        assert!(is_reused(issue(&service, service.new_key().token("imported")).await));
    })
    .await;
}

/// Grants everything, but only when it is released.
#[derive(Clone)]
struct SlowLimiter {
    gate: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl RateLimiter for SlowLimiter {
    async fn charge(&self, charge: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let full_at = charge.rates.iter().map(|_| charge.at).collect();
        Ok(RateOutcome::Granted(RateLevels { at: charge.at, full_at }))
    }

    async fn refund(&self, _: &RateCharge<'_>, _: &RateLevels) {}
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + 60 * SECOND;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        sleep_until(Instant::now() + Duration::from_millis(1)).await;
    }
}

/// A repetition looks at the uses of this node, and then writes. A use in between is not accepted and forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_that_is_verified_while_a_repetition_is_written_is_not_accepted_and_then_ended() {
    for cached in [true, false] {
        for n in 0..2 {
            let store = FaultyStore::new(stores::memory().remove(0));
            let service = Service::with(vec![Arc::new(store.clone())], |builder| match cached {
                true => builder,
                false => builder.no_cache(),
            });
            let (new, old) = (service.new_key().token("4711"), service.issue().await);
            let rotation = Rotation::immediate().token("r1");
            let lost = match n {
                0 => issue(&service, new.clone()).await.unwrap(),
                _ => rotate(&service, 0, &old, rotation.clone()).await.unwrap(),
            };
            service.clock.advance(IN_PROGRESS);
            store.hold_changes();
            let (changes, service) = (store.changes(), Arc::new(service));
            let repeating = service.clone();
            let repetition = tokio::spawn(async move {
                match n {
                    0 => issue(&repeating, new.clone()).await,
                    _ => rotate(&repeating, 0, &old, rotation).await,
                }
            });
            if n == 0 {
                // The insertion, which finds the earlier key.
                wait_for("the insertion", || store.changes() == changes + 1).await;
                store.release_changes(1);
            }
            wait_for("the replacement", || store.changes() == changes + 2 - n).await;
            let finds = store.finds();
            let (verifying, secret) = (service.clone(), lost.clone());
            let verified = tokio::spawn(async move { verifying.verify(&secret).await });
            wait_for("the look-up", || store.finds() > finds).await;
            store.release_changes(1);
            let verified = verified.await.unwrap().map(drop);
            assert_eq!(verified.unwrap_err().as_str(), "unknown", "cached: {cached}, {n}");
            let kept = repetition.await.unwrap().unwrap();
            store.release_changes(Semaphore::MAX_PERMITS / 2);
            assert!(service.verify(&kept).await.is_ok());
        }
    }
}

/// The verification has read the key before the repetition begins, and accepts it after the repetition has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_verification_that_lasts_longer_than_a_repetition_is_decided_by_the_store() {
    for verifications in [1, 2] {
        let limiter = SlowLimiter { gate: Arc::new(Semaphore::new(0)), asked: Arc::default() };
        let service =
            Service::with(stores::memory(), |builder| builder.rate_limiter(limiter.clone()));
        let limits = KeyLimits { rate: Some(Rate::per_minute(1_000)), ..KeyLimits::default() };
        let new = service.new_key().limits(limits).token("4711");
        let lost = issue(&service, new.clone()).await.unwrap();
        service.clock.advance(IN_PROGRESS);
        let (service, mut verified) = (Arc::new(service), JoinSet::new());
        for n in 0..verifications {
            let (verifying, secret) = (service.clone(), lost.clone());
            verified.spawn(async move { verifying.verify(&secret).await.map(drop) });
            wait_for("the charge", || limiter.asked.load(Ordering::SeqCst) == n + 1).await;
        }
        let kept = issue(&service, new).await.unwrap();
        limiter.gate.add_permits(100);
        for result in verified.join_all().await {
            assert_eq!(result.unwrap_err().as_str(), "unknown");
        }
        assert!(service.verify(&kept).await.is_ok());
        assert!(service.verify(&kept).await.is_ok(), "a second use");
    }
}
