//! A look-up that takes long: the process was suspended meanwhile, or the store or the host is slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    Account, Accounts, Actor, ApiKeys, Expiry, KeyId, KeyStore, Limits, MemoryStore, NewKey, Owner,
    Timestamp, VerifyError, VerifyRequest,
    accounts::AccountsError,
    audit::EventKind,
    manage::Issued,
    model::{KeyLimits, Period, Permissions, Quota, Rate},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    testing::ManualClock,
};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{MICRO, Service, format, owner, stores};

/// Two nodes on one store. The second never hears of what the first one does: its feed fails.
fn two_nodes() -> (Arc<Service>, FaultyStore) {
    let inner = stores::memory().remove(0);
    let store = FaultyStore::new(inner.clone());
    store.set_feed_fault(Fault::Unavailable);
    let handles: Vec<Arc<dyn KeyStore>> = vec![inner, Arc::new(store.clone())];
    (Arc::new(Service::new(handles)), store)
}

/// Verifies on the second node, in a task of its own.
fn verifies(service: &Arc<Service>, secret: &str) -> JoinHandle<&'static str> {
    let (service, secret) = (service.clone(), secret.to_owned());
    tokio::spawn(async move { says(&service, &secret).await })
}

async fn says(service: &Service, secret: &str) -> &'static str {
    match service.nodes[1].verify(secret, &VerifyRequest::new()).await {
        Ok(_) => "ok",
        Err(VerifyError::Denied(denied)) => denied.reason().as_str(),
        Err(VerifyError::Limited(_)) => "limited",
        Err(VerifyError::Unavailable(_)) => "unavailable",
    }
}

async fn wait_for(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn revoke(service: &Service, issued: &Issued) {
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_joins_a_look_up_from_before_a_suspension_finds_a_new_key() {
    let (service, store) = two_nodes();
    let secret = format().generate().unwrap();
    store.hold_finds();
    let first = verifies(&service, secret.expose());
    wait_for(|| store.finds() == 1).await;
    let digest = keyward::Hasher::digest(&keyward::Sha256Hasher, secret.expose().as_bytes());
    let (keys, by) = (service.keys(), &service.actor);
    let _ = keys.import(service.new_key(), digest, "lc_live_", by).await.unwrap();
    service.clock.advance(BOUND * 10);
    let joined = verifies(&service, secret.expose());
    wait_for(|| store.finds() == 1).await;
    store.release_finds(10);
    assert_eq!(joined.await.unwrap(), "ok");
    let _ = first.await;
}

#[tokio::test]
async fn an_unknown_secret_is_looked_up_again_after_the_bound() {
    let (service, store) = two_nodes();
    let secret = format().generate().unwrap();
    assert_eq!(says(&service, secret.expose()).await, "unknown");
    let digest = keyward::Hasher::digest(&keyward::Sha256Hasher, secret.expose().as_bytes());
    let (keys, by) = (service.keys(), &service.actor);
    let _ = keys.import(service.new_key(), digest, "lc_live_", by).await.unwrap();
    service.clock.advance(BOUND);
    assert_eq!(says(&service, secret.expose()).await, "unknown", "this node cannot know of it yet");
    assert_eq!(store.finds(), 1, "the answer was cached");
    service.clock.advance(MICRO);
    assert_eq!(says(&service, secret.expose()).await, "ok");
}

/// Each first use wakes the writer; a failure is followed by a pause all the same.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_not_hammered() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(store.clone())]);
    store.set_use_fault(Fault::Unavailable);
    for _ in 0..20 {
        let issued = service.issue().await;
        service.verify(&issued).await.unwrap();
        wait_for(|| true).await;
    }
    assert_eq!(store.use_writes(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((10..=14).contains(&store.use_writes()), "every five seconds: {}", store.use_writes());
}

#[tokio::test]
async fn a_look_up_that_is_slow_but_within_the_bound_is_shared_and_answered() {
    let (service, store) = two_nodes();
    let issued = service.issue().await;
    store.hold_finds();
    let first = verifies(&service, issued.secret.expose());
    wait_for(|| store.finds() == 1).await;
    service.clock.advance(BOUND);
    let joined = verifies(&service, issued.secret.expose());
    wait_for(|| store.finds() == 1).await;
    store.release_finds(1);
    assert_eq!((first.await.unwrap(), joined.await.unwrap()), ("ok", "ok"));
    assert_eq!(store.finds(), 1);
}

/// Accounts that read an owner's state, and answer when the test lets them.
#[derive(Clone)]
struct Slow {
    asked: Arc<AtomicUsize>,
    suspended: Arc<AtomicBool>,
    gate: Arc<Semaphore>,
}

#[async_trait]
impl Accounts for Slow {
    async fn account(&self, _: &Owner) -> Result<Arc<Account>, AccountsError> {
        let suspended = self.suspended.load(Ordering::SeqCst);
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await?.forget();
        Ok(Arc::new(Account::new(Permissions::All, Limits::default()).suspended(suspended)))
    }
}

#[tokio::test]
async fn an_account_that_was_read_again_is_cached() {
    let slow = Slow {
        asked: Arc::default(),
        suspended: Arc::default(),
        gate: Arc::new(Semaphore::new(100)),
    };
    let service = Service::with(stores::memory(), |builder| builder.accounts(slow.clone()));
    let issued = service.issue().await;
    service.verify(&issued).await.unwrap();
    for _ in 0..3 {
        service.clock.advance(BOUND + MICRO);
        let asked = slow.asked.load(Ordering::SeqCst);
        for _ in 0..5 {
            service.verify(&issued).await.unwrap();
        }
        assert_eq!(slow.asked.load(Ordering::SeqCst), asked + 1);
    }
}

#[tokio::test]
async fn a_caller_that_arrives_after_an_import_is_not_told_that_the_key_is_unknown() {
    let (service, store) = two_nodes();
    let secret = format().generate().unwrap();
    store.hold_finds();
    let first = verifies(&service, secret.expose());
    wait_for(|| store.finds() == 1).await;
    // On the same node, so that it knows of the import immediately.
    let digest = keyward::Hasher::digest(&keyward::Sha256Hasher, secret.expose().as_bytes());
    let (new, by) = (service.new_key(), &service.actor);
    let _ = service.nodes[1].import(new, digest, "lc_live_", by).await.unwrap();
    let joined = verifies(&service, secret.expose());
    wait_for(|| true).await;
    store.release_finds(10);
    assert_eq!(first.await.unwrap(), "unknown", "it arrived before the import");
    assert_eq!(joined.await.unwrap(), "ok");
}

/// Uses are written in batches of 500.
#[tokio::test]
async fn a_failing_store_loses_no_use_of_many_keys_and_each_first_use_is_reported() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(store.clone())]);
    store.set_use_fault(Fault::Unavailable);
    let mut keys = Vec::new();
    for _ in 0..1_100 {
        let issued = service.issue().await;
        service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap();
        keys.push(issued.key.id);
    }
    assert!(service.keys().flush().await.is_err());
    assert_eq!(service.keys().health().unwritten_uses, keys.len());
    store.set_use_fault(Fault::None);
    service.keys().flush().await.unwrap();
    let first_uses = service.events.all().into_iter().filter(|e| e.kind == EventKind::FirstUsed);
    let mut reported: Vec<_> = first_uses.filter_map(|event| event.key_id).collect();
    reported.sort();
    keys.sort();
    assert_eq!(reported, keys);
}

/// The change feed works: only the account is old.
#[tokio::test]
async fn a_caller_that_joins_a_slow_reload_of_an_account_does_not_get_an_account_older_than_the_bound()
 {
    let gate = Arc::new(Semaphore::new(2));
    let slow = Slow { asked: Arc::default(), suspended: Arc::default(), gate };
    let store: Arc<dyn KeyStore> = stores::memory().remove(0);
    let handles = vec![store.clone(), store];
    let service = Arc::new(Service::with(handles, |builder| builder.accounts(slow.clone())));
    let issued = service.issue().await;
    let other = &service.nodes[1];
    other.catch_up().await.unwrap();
    assert_eq!(says(&service, issued.secret.expose()).await, "ok");
    service.clock.advance(BOUND + Duration::from_secs(1));
    other.catch_up().await.unwrap();
    let first = verifies(&service, issued.secret.expose());
    wait_for(|| slow.asked.load(Ordering::SeqCst) == 3).await;
    slow.suspended.store(true, Ordering::SeqCst);
    service.clock.advance(BOUND * 10);
    other.catch_up().await.unwrap();
    let joined = verifies(&service, issued.secret.expose());
    wait_for(|| true).await;
    assert_eq!(slow.asked.load(Ordering::SeqCst), 3, "the second caller joins the reload");
    slow.gate.add_permits(10);
    first.await.unwrap();
    assert_eq!(joined.await.unwrap(), "owner_suspended");
}

#[tokio::test]
async fn a_revoked_key_is_denied_while_the_host_is_down_however_long_it_is_cached() {
    let service = Service::new(stores::memory());
    let issued = service.issue().await;
    revoke(&service, &issued).await;
    service.host.fail(true);
    assert_eq!(
        service.verify(&issued).await.unwrap_err().as_str(),
        "revoked",
        "read from the store"
    );
    service.clock.advance(BOUND + Duration::from_secs(1));
    // The feed is up, so the key is trusted; only its account would be read again.
    assert_eq!(service.verify(&issued).await.unwrap_err().as_str(), "revoked");
}

#[tokio::test]
async fn a_key_that_expires_while_it_is_looked_up_is_denied() {
    let (service, store) = two_nodes();
    let new = service.new_key().expiry(Expiry::After(Duration::from_secs(3)));
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    store.hold_finds();
    let verified = verifies(&service, issued.secret.expose());
    wait_for(|| store.finds() == 1).await;
    service.clock.advance(Duration::from_secs(3));
    store.release_finds(1);
    assert_eq!(verified.await.unwrap(), "expired");
}

#[tokio::test]
async fn a_store_that_panics_loses_no_use() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Arc::new(Service::new(vec![Arc::new(store.clone())]));
    let issued = service.issue().await;
    service.verify(&issued).await.unwrap();
    store.set_use_fault(Fault::Panics);
    let flushed = tokio::spawn({
        let service = service.clone();
        async move { service.keys().flush().await }
    });
    assert!(flushed.await.unwrap_err().is_panic());
    store.set_use_fault(Fault::None);
    service.keys().flush().await.unwrap();
    assert_eq!(service.stored(issued.key.id).await.last_used_at, Some(service.now()));
}

/// The uses that a runtime was writing when it ended are written by the next one.
#[test]
fn a_runtime_that_ends_during_a_write_loses_no_use() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Arc::new(Service::new(vec![Arc::new(store.clone())]));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let issued = first.block_on(async {
        let issued = service.issue().await;
        service.verify(&issued).await.unwrap();
        store.set_use_fault(Fault::Hangs);
        let service = service.clone();
        tokio::spawn(async move { service.keys().flush().await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        issued
    });
    drop(first);
    store.set_use_fault(Fault::None);
    runtime().block_on(async {
        service.keys().flush().await.unwrap();
        assert_eq!(service.stored(issued.key.id).await.last_used_at, Some(service.now()));
    });
}

/// Two nodes, the second one without a cache if `is_cached` is false.
fn two_nodes_with(is_cached: bool) -> (Arc<Service>, FaultyStore) {
    let inner = stores::memory().remove(0);
    let store = FaultyStore::new(inner.clone());
    let handles: Vec<Arc<dyn KeyStore>> = vec![inner, Arc::new(store.clone())];
    let service = match is_cached {
        true => Service::new(handles),
        false => Service::uncached(handles),
    };
    (Arc::new(service), store)
}

#[tokio::test]
async fn a_look_up_that_was_in_the_air_during_a_suspension_is_repeated() {
    for (is_cached, hears_of_it) in [(true, false), (true, true), (false, false)] {
        let (service, store) = two_nodes_with(is_cached);
        let issued = service.issue().await;
        service.nodes[1].catch_up().await.unwrap();
        store.hold_finds();
        let verified = verifies(&service, issued.secret.expose());
        wait_for(|| store.finds() == 1).await;
        revoke(&service, &issued).await;
        service.clock.advance(BOUND * 4);
        if hears_of_it {
            // The feed is read to its end before the look-up is answered.
            service.nodes[1].catch_up().await.unwrap();
        }
        store.release_finds(10);
        assert_eq!(verified.await.unwrap(), "revoked", "{is_cached} {hears_of_it}");
        assert_eq!(store.finds(), 2);
    }
}

#[tokio::test]
async fn a_charge_that_was_in_the_air_during_a_suspension_is_refunded_if_the_key_has_ended() {
    for is_cached in [true, false] {
        let (service, store) = two_nodes_with(is_cached);
        let limits = KeyLimits { quota: Some(Quota::total(100)), ..KeyLimits::default() };
        let new = service.new_key().limits(limits);
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        assert_eq!(says(&service, issued.secret.expose()).await, "ok");
        for (ends, expected) in [(false, "ok"), (true, "revoked")] {
            let charges = store.charges();
            store.set_charge_fault(Fault::Hangs);
            let verified = verifies(&service, issued.secret.expose());
            wait_for(|| store.charges() == charges + 1).await;
            if ends {
                revoke(&service, &issued).await;
            }
            service.clock.advance(BOUND * 4);
            store.set_charge_fault(Fault::None);
            assert_eq!(verified.await.unwrap(), expected, "{is_cached}");
        }
        let id = issued.key.id;
        assert_eq!(used(&store, id).await, 2, "{is_cached}");
    }
}

/// A first use is confirmed with a second look-up if the key was invalidated during the first one.
#[tokio::test]
async fn a_key_that_ends_while_its_first_use_is_confirmed_is_denied() {
    let (service, store) = two_nodes();
    let issued = service.issue().await;
    store.hold_finds();
    let verified = verifies(&service, issued.secret.expose());
    wait_for(|| store.finds() == 1).await;
    let _ = service.nodes[1].account_changed(&service.owner).await;
    store.release_finds(1);
    wait_for(|| store.finds() == 2).await;
    revoke(&service, &issued).await;
    service.clock.advance(BOUND * 4);
    store.release_finds(10);
    assert_eq!(verified.await.unwrap(), "revoked");
}

/// Returns how much of a key's total quota the store has counted.
async fn used(store: &dyn KeyStore, id: KeyId) -> u64 {
    let (counter_key, period, limit) = (CounterKey::Key(id), Period::Ever, 1_000);
    let window = period.begins_at(Timestamp::MIN);
    let latest_window = Timestamp::MAX;
    let nothing = CounterCharge { counter_key, period, window, latest_window, limit, uses: 0 };
    match store.counters().unwrap().charge(&[nothing]).await.unwrap() {
        ChargeOutcome::Granted(used) | ChargeOutcome::Exhausted(used) => used[0],
    }
}

#[tokio::test]
async fn a_key_that_expires_while_its_quota_is_charged_is_denied() {
    let (service, store) = two_nodes_with(true);
    let limits = KeyLimits { quota: Some(Quota::total(100)), ..KeyLimits::default() };
    let new = service.new_key().limits(limits).expiry(Expiry::After(Duration::from_secs(3)));
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    store.set_charge_fault(Fault::Hangs);
    let verified = verifies(&service, issued.secret.expose());
    wait_for(|| store.charges() == 1).await;
    service.clock.advance(Duration::from_secs(3));
    store.set_charge_fault(Fault::None);
    assert_eq!(verified.await.unwrap(), "expired");
}

/// Accounts that take longer to answer than the bound.
struct Sluggish {
    asked: Arc<AtomicUsize>,
    clock: ManualClock,
}

#[async_trait]
impl Accounts for Sluggish {
    async fn account(&self, _: &Owner) -> Result<Arc<Account>, AccountsError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.clock.advance(BOUND + MICRO);
        Ok(Arc::new(Account::new(Permissions::All, Limits::default())))
    }
}

#[tokio::test]
async fn answers_that_always_take_longer_than_the_bound_are_unavailable() {
    for is_cached in [true, false] {
        let (clock, asked) = (ManualClock::default(), Arc::<AtomicUsize>::default());
        let sluggish = Sluggish { asked: asked.clone(), clock: clock.clone() };
        let builder =
            ApiKeys::builder(MemoryStore::new(), format()).accounts(sluggish).clock(clock);
        let keys = if is_cached { builder.build() } else { builder.no_cache().build() };
        let new = NewKey::new(&owner("acme", "ada"), "ci").unwrap();
        let issued = keys.issue(new, &Actor::system("test")).await.unwrap();
        let asked_before = asked.load(Ordering::SeqCst);
        let error = keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap_err();
        let VerifyError::Unavailable(error) = error else { panic!("{error:?}") };
        assert!(error.is_unavailable());
        assert!(error.to_string().contains("took longer to answer than 5s"), "{error}");
        assert!((2..=3).contains(&(asked.load(Ordering::SeqCst) - asked_before)), "{is_cached}");
    }
}

/// A paused virtual machine: no monotonic clock moves, and the wall clock jumps after the resume.
#[tokio::test]
async fn a_jump_of_the_wall_clock_ends_the_trust_in_all_that_was_read_before() {
    let second = Duration::from_secs(1);
    let (service, store) = two_nodes();
    let issued = service.issue().await;
    let secret = issued.secret.expose();
    assert_eq!(says(&service, secret).await, "ok");
    let now = service.now();
    service.clock.set(now.after(second / 2));
    assert_eq!((says(&service, secret).await, store.finds()), ("ok", 1), "no jump");
    service.clock.set(now.before(second / 2));
    assert_eq!((says(&service, secret).await, store.finds()), ("ok", 1), "no jump");
    service.clock.set(now.after(second));
    assert_eq!((says(&service, secret).await, store.finds()), ("ok", 2), "forward");
    service.clock.set(now);
    assert_eq!((says(&service, secret).await, store.finds()), ("ok", 3), "back");

    // During a look-up, too.
    service.clock.advance(BOUND * 2);
    store.hold_finds();
    let verified = verifies(&service, secret);
    wait_for(|| store.finds() == 4).await;
    revoke(&service, &issued).await;
    service.clock.set(service.now().after(second));
    store.release_finds(10);
    assert_eq!(verified.await.unwrap(), "revoked");
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_refills_no_rate() {
    let (service, _) = two_nodes();
    let limits = KeyLimits { rate: Some(Rate::per_hour(1)), ..KeyLimits::default() };
    let new = service.new_key().limits(limits);
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    assert_eq!(says(&service, issued.secret.expose()).await, "ok");
    service.clock.set(service.now().after(BOUND));
    assert_eq!(says(&service, issued.secret.expose()).await, "limited");
}

const BOUND: Duration = Duration::from_secs(5);
