use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use keyward::{
    Access, ErrorKind, KeyId, Limits, Timestamp, Verified, VerifyError, VerifyRequest,
    manage::{Issued, KeyChange, Rotation},
    model::{KeyLimits, Networks, Period, Quota, Rate},
    store::{ChargeOutcome, Counter, CounterCharge, CounterKey},
    verify::{Limited, LimitedReason, Settlement},
};
use proptest::prelude::*;
use tokio::task::JoinSet;

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{DAY, HOUR, Service, on_each_store, servers::eventually, stores},
};

async fn try_cost(service: &Service, issued: &Issued, uses: u32) -> Result<Verified, VerifyError> {
    let node = service.nodes.last().unwrap();
    node.verify(issued.secret.expose(), &VerifyRequest::new().cost(uses)).await
}

async fn cost(service: &Service, issued: &Issued, uses: u32) -> Result<Verified, Limited> {
    try_cost(service, issued, uses).await.map_err(limited)
}

async fn charge(service: &Service, issued: &Issued) -> Result<Verified, Limited> {
    cost(service, issued, 1).await
}

fn limited(error: VerifyError) -> Limited {
    match error {
        VerifyError::Limited(limited) => *limited,
        other => panic!("{other:?}"),
    }
}

async fn issue(service: &Service, limits: KeyLimits) -> Issued {
    service.keys().issue(service.new_key().limits(limits), &service.actor).await.unwrap()
}

fn quota(quota: Quota) -> KeyLimits {
    KeyLimits { quota: Some(quota), ..KeyLimits::default() }
}

/// Returns how much of a key's total quota the store has counted.
async fn used(service: &Service, store: &dyn keyward::KeyStore, issued: &Issued) -> u64 {
    let period = Period::Ever;
    let window = period.begins_at(service.now());
    let counter_key = CounterKey::Key(issued.key.id);
    let (latest_window, limit, uses) = (Timestamp::MAX, u64::MAX >> 11, 0);
    let nothing = CounterCharge { counter_key, period, window, latest_window, limit, uses };
    match store.counters().unwrap().charge(&[nothing]).await.unwrap() {
        ChargeOutcome::Granted(used) | ChargeOutcome::Exhausted(used) => used[0],
    }
}

#[tokio::test]
async fn each_answer_reports_the_remaining_quota_until_it_is_exhausted() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = issue(&service, quota(Quota::total(3))).await;
        for left in [2, 1, 0] {
            let state = charge(&service, &issued).await.unwrap().quotas().key.unwrap();
            assert_eq!((state.quota, state.remaining), (Quota::total(3), left));
            assert_eq!(state.reset, None);
        }
        for _ in 0..3 {
            let limited = charge(&service, &issued).await.unwrap_err();
            assert_eq!(limited.reason, LimitedReason::Quota);
            assert_eq!((limited.retry_after, limited.quotas.key.unwrap().remaining), (None, 0));
            assert_eq!(limited.to_string(), "the quota is used up: waiting does not help");
        }
        service.keys().flush().await.unwrap();
        service.nodes.last().unwrap().flush().await.unwrap();
        let refused = service.events.all().pop().unwrap();
        assert_eq!((refused.reason.as_deref(), refused.count), (Some("quota_exhausted"), 3));
    })
    .await;
}

#[tokio::test]
async fn a_daily_quota_resets_the_next_day() {
    let service = Service::new(stores::memory());
    service.clock.advance(HOUR * 20);
    let issued = issue(&service, quota(Quota::per_day(2))).await;
    let state = charge(&service, &issued).await.unwrap().quotas().key.unwrap();
    assert_eq!((state.remaining, state.reset), (1, Some(HOUR * 4)));
    assert_eq!(cost(&service, &issued, 2).await.unwrap_err().retry_after, Some(HOUR * 4));
    assert_eq!(
        cost(&service, &issued, 3).await.unwrap_err().retry_after,
        None,
        "the cost exceeds the quota"
    );
    assert!(charge(&service, &issued).await.is_ok());
    service.clock.advance(HOUR * 4);
    assert!(cost(&service, &issued, 2).await.is_ok());
    assert!(charge(&service, &issued).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_at_a_quota_of_a_hundred_get_exactly_a_hundred() {
    on_each_store(async |handles| {
        let service = Arc::new(Service::new(handles));
        let plan = Limits::default().quota(Quota::per_month(150));
        service.host.limit(&service.owner, plan);
        let issued = Arc::new(issue(&service, quota(Quota::total(100))).await);
        let mut tasks = JoinSet::new();
        for n in 0..64 {
            let (service, issued) = (service.clone(), issued.clone());
            tasks.spawn(async move {
                let node = &service.nodes[n % service.nodes.len()];
                let mut passed = 0;
                for _ in 0..4 {
                    let verified = node.verify(issued.secret.expose(), &VerifyRequest::new()).await;
                    passed += usize::from(verified.map_err(limited).is_ok());
                }
                passed
            });
        }
        assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 100);
        let other = service.issue().await;
        let owner = charge(&service, &other).await.unwrap().quotas().owner.unwrap();
        assert_eq!(
            owner.remaining, 49,
            "uses rejected by the key's quota are not charged to its owner"
        );
    })
    .await;
}

#[tokio::test]
async fn all_keys_of_an_owner_share_the_quota_of_the_plan() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        service.host.limit(&service.owner, Limits::default().quota(Quota::per_month(4)));
        let keys = [service.issue().await, service.issue().await];
        for n in 0..4 {
            assert!(charge(&service, &keys[n % 2]).await.is_ok());
        }
        for issued in &keys {
            assert!(charge(&service, issued).await.is_err());
        }
        let better = Limits::default().quota(Quota::per_month(6));
        service.host.limit(&service.owner, better);
        let node = service.nodes.last().unwrap();
        node.account_changed(&service.owner).await.unwrap();
        assert!(
            cost(&service, &keys[0], 2).await.is_ok(),
            "a larger plan takes effect immediately"
        );
        assert!(charge(&service, &keys[0]).await.is_err());
        service.host.limit(&service.owner, Limits::default());
        node.account_changed(&service.owner).await.unwrap();
        assert!(charge(&service, &keys[0]).await.is_ok(), "as does a plan without a quota");
    })
    .await;
}

#[tokio::test]
async fn a_use_rejected_by_one_limit_is_charged_to_none() {
    let service = Service::new(stores::memory());
    let plan = Limits::default().quota(Quota::total(10)).rate(Rate::per_hour(10));
    service.host.limit(&service.owner, plan);
    let narrow = issue(&service, quota(Quota::total(1))).await;
    assert!(charge(&service, &narrow).await.is_ok());
    for _ in 0..50 {
        let limited = charge(&service, &narrow).await.unwrap_err();
        assert_eq!(limited.reason, LimitedReason::Quota);
        assert_eq!(limited.rates.owner.unwrap().remaining, 9);
        assert_eq!(limited.quotas.owner.unwrap().remaining, 9);
    }
    let plain = service.issue().await;
    assert!(cost(&service, &plain, 9).await.is_ok());
    for _ in 0..50 {
        let limited = charge(&service, &plain).await.unwrap_err();
        assert_eq!(limited.reason, LimitedReason::Rate);
    }
    service.clock.advance(HOUR);
    let refused = charge(&service, &plain).await.unwrap_err();
    assert_eq!(refused.quotas.owner.unwrap().remaining, 0);
}

#[tokio::test]
async fn a_denied_request_charges_no_quota() {
    on_each_store(async |handles| {
        let store = handles[0].clone();
        let service = Service::new(handles);
        let new = service
            .new_key()
            .limits(KeyLimits { rate: Some(Rate::per_hour(1)), ..quota(Quota::total(9)) })
            .access(Access::only(["read"]).unwrap())
            .networks(Networks::only(["192.0.2.0/24"]).unwrap());
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        let good = VerifyRequest::new().ip("192.0.2.7".parse().unwrap());
        let denied = [
            good.require(&["write"]),
            good.ip("198.51.100.7".parse().unwrap()),
            good.tenant("other"),
        ];
        for request in &denied {
            assert!(service.verify_for(&issued, request).await.is_err());
        }
        assert_eq!(used(&service, &*store, &issued).await, 0);
        service.verify_for(&issued, &good).await.unwrap();
        assert_eq!(used(&service, &*store, &issued).await, 1);
        let node = service.nodes.last().unwrap();
        let refused = limited(node.verify(issued.secret.expose(), &good).await.unwrap_err());
        assert_eq!(refused.reason, LimitedReason::Rate);
        assert_eq!(used(&service, &*store, &issued).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_and_an_update_keep_the_used_quota() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = issue(&service, quota(Quota::total(2))).await;
        assert!(charge(&service, &issued).await.is_ok());
        let (node, id) = (service.nodes.last().unwrap(), issued.key.id);
        let rotated = node.rotate(&service.owner, id, Rotation::immediate(), &service.actor);
        let rotated = rotated.await.unwrap();
        assert!(charge(&service, &rotated).await.is_ok());
        assert!(charge(&service, &rotated).await.is_err());
        let more = KeyChange::default().limits(quota(Quota::total(3)));
        node.update(&service.owner, id, &more, &service.actor).await.unwrap();
        assert!(charge(&service, &rotated).await.is_ok(), "a change takes effect immediately");
        assert!(charge(&service, &rotated).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_request_with_cost_zero_passes_and_charges_nothing() {
    let handles = stores::memory();
    let store = handles[0].clone();
    for service in [Service::new(handles.clone()), Service::uncached(handles)] {
        let issued = issue(&service, quota(Quota::total(1))).await;
        for _ in 0..3 {
            assert!(cost(&service, &issued, 0).await.is_ok());
        }
        assert!(charge(&service, &issued).await.is_ok());
        assert!(cost(&service, &issued, 0).await.is_ok());
        assert_eq!(used(&service, &*store, &issued).await, 1);
        service.keys().flush().await.unwrap();
        let key = service.stored(issued.key.id).await;
        assert_eq!(key.last_used_at, Some(service.now()), "it still counts as a use");
    }
}

/// A service on a `FaultyStore`, and a key with a rate and a quota of ten. One use is charged.
async fn faulty_service() -> (Service, FaultyStore, Arc<dyn keyward::KeyStore>, Issued) {
    let store = stores::memory().remove(0);
    let faulty = FaultyStore::new(store.clone());
    let service = Service::new(vec![Arc::new(faulty.clone())]);
    let rate = Some(Rate::per_hour(10));
    let issued = issue(&service, KeyLimits { rate, ..quota(Quota::total(10)) }).await;
    assert!(charge(&service, &issued).await.is_ok());
    (service, faulty, store, issued)
}

fn unavailable_kind(answer: Result<Verified, VerifyError>) -> ErrorKind {
    match answer.unwrap_err() {
        VerifyError::Unavailable(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_failed_charge_is_unavailable_and_charges_nothing() {
    let (service, faulty, store, issued) = faulty_service().await;
    faulty.set_charge_fault(Fault::Unavailable);
    for _ in 0..50 {
        let answer = try_cost(&service, &issued, 1).await;
        assert_eq!(unavailable_kind(answer), ErrorKind::Unavailable);
    }
    faulty.set_charge_fault(Fault::None);
    service.keys().flush().await.unwrap();
    assert_eq!(used(&service, &*store, &issued).await, 1);
    let verified = cost(&service, &issued, 9).await.unwrap();
    assert_eq!(verified.rates().key.unwrap().remaining, 0, "no rate was charged either");
}

#[tokio::test]
async fn a_use_with_an_unconfirmed_charge_is_rejected() {
    let (service, faulty, store, issued) = faulty_service().await;
    faulty.set_charge_fault(Fault::AnswerLost);
    assert_eq!(unavailable_kind(try_cost(&service, &issued, 1).await), ErrorKind::OutcomeUnknown);
    faulty.set_charge_fault(Fault::None);
    assert_eq!(used(&service, &*store, &issued).await, 2, "charged without a use");
}

#[tokio::test]
async fn a_dropped_verification_charges_at_most_one_use() {
    let (service, faulty, store, issued) = faulty_service().await;
    faulty.set_charge_fault(Fault::Hangs);
    {
        let mut asking = pin!(try_cost(&service, &issued, 1));
        let polled = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }
    faulty.set_charge_fault(Fault::None);
    assert_eq!(used(&service, &*store, &issued).await, 1);
    let verified = charge(&service, &issued).await.unwrap();
    assert_eq!(verified.rates().key.unwrap().remaining, 7, "one charge of the rate was lost");
}

#[tokio::test]
async fn a_refund_after_the_rate_recovered_is_not_added_twice() {
    let (service, faulty, _, issued) = faulty_service().await;
    service.host.limit(&service.owner, Limits::default().rate(Rate::per_hour(10)));
    service.keys().account_changed(&service.owner).await.unwrap();
    let plain = service.issue().await;
    faulty.set_charge_fault(Fault::Hangs);
    let (keys, secret) = (service.keys().clone(), issued.secret.expose().to_owned());
    let waiting =
        tokio::spawn(async move { keys.verify(&secret, &VerifyRequest::new().cost(9)).await });
    eventually("its rates are charged", async || faulty.charges() == 2).await;
    // The rate has recovered completely before the failed charge is refunded.
    service.clock.advance(HOUR);
    assert_eq!(charge(&service, &plain).await.unwrap().rates().owner.unwrap().remaining, 9);
    faulty.set_charge_fault(Fault::Unavailable);
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(charge(&service, &plain).await.unwrap().rates().owner.unwrap().remaining, 8);
}

#[tokio::test]
async fn a_reservation_charges_only_the_committed_uses() {
    on_each_store(async |handles| {
        let store = handles[0].clone();
        let service = Service::new(handles);
        service.host.limit(&service.owner, Limits::default().quota(Quota::per_day(1_000)));
        let issued = issue(&service, quota(Quota::total(100))).await;
        let verified = cost(&service, &issued, 0).await.unwrap();
        let keys = service.keys();

        let held = keys.reserve(&verified, 60).await.unwrap();
        assert_eq!((held.uses(), held.quotas().key.unwrap().remaining), (60, 40));
        let refused = limited(keys.reserve(&verified, 41).await.unwrap_err());
        assert_eq!(refused.quotas.key.unwrap().remaining, 40);
        assert_eq!(held.commit(25).await.unwrap(), Settlement::Full);
        assert_eq!(used(&service, &*store, &issued).await, 25);

        keys.reserve(&verified, 75).await.unwrap().release().await.unwrap();
        assert_eq!(used(&service, &*store, &issued).await, 25);
        let held = keys.reserve(&verified, 50).await.unwrap();
        assert_eq!(
            held.commit(75).await.unwrap(),
            Settlement::Full,
            "the quota covered more than the reservation"
        );
        let none = keys.reserve(&verified, 0).await.unwrap();
        assert_eq!(none.commit(1).await.unwrap(), Settlement::Partial(1), "the quota is exhausted");
        assert_eq!(used(&service, &*store, &issued).await, 100);
        let plain = service.issue().await;
        let owner = charge(&service, &plain).await.unwrap().quotas().owner.unwrap();
        assert_eq!(owner.remaining, 899);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_reservation_stays_charged() {
    let (service, faulty, store, issued) = faulty_service().await;
    let verified = cost(&service, &issued, 0).await.unwrap();
    drop(service.keys().reserve(&verified, 5).await.unwrap());
    assert_eq!(used(&service, &*store, &issued).await, 6);
    faulty.set_charge_fault(Fault::Unavailable);
    let error = service.keys().reserve(&verified, 1).await.unwrap_err();
    assert!(matches!(error, VerifyError::Unavailable(_)), "{error}");
    assert_eq!(used(&service, &*store, &issued).await, 6);
}

#[tokio::test]
async fn a_commit_completes_if_its_future_is_dropped() {
    let (service, _, store, issued) = faulty_service().await;
    let verified = cost(&service, &issued, 0).await.unwrap();
    let held = service.keys().reserve(&verified, 9).await.unwrap();
    {
        let mut committing = pin!(held.commit(2));
        let _ = poll_fn(|context| Poll::Ready(committing.as_mut().poll(context))).await;
    }
    eventually("the rest is refunded", async || used(&service, &*store, &issued).await == 3).await;
}

#[tokio::test]
async fn a_reservation_of_a_past_period_is_not_refunded_to_the_current_one() {
    let service = Service::new(stores::memory());
    let issued = issue(&service, quota(Quota::per_day(10))).await;
    let verified = cost(&service, &issued, 0).await.unwrap();
    let held = service.keys().reserve(&verified, 8).await.unwrap();
    service.clock.advance(DAY);
    assert!(cost(&service, &issued, 9).await.is_ok());
    held.release().await.unwrap();
    assert!(cost(&service, &issued, 2).await.is_err());
    assert!(cost(&service, &issued, 1).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_reservations_never_exceed_the_quota() {
    on_each_store(async |handles| {
        let store = handles[0].clone();
        let service = Arc::new(Service::new(handles));
        let issued = issue(&service, quota(Quota::total(50))).await;
        let verified = cost(&service, &issued, 0).await.unwrap();
        let committed = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for n in 0..16_usize {
            let (service, verified, committed) =
                (service.clone(), verified.clone(), committed.clone());
            tasks.spawn(async move {
                let node = &service.nodes[n % service.nodes.len()];
                for actual in [1, 3, 7] {
                    let Ok(held) = node.reserve(&verified, 7).await else { continue };
                    assert_eq!(held.commit(actual).await.unwrap(), Settlement::Full);
                    committed.fetch_add(actual, Ordering::Relaxed);
                }
            });
        }
        tasks.join_all().await;
        let committed = committed.load(Ordering::Relaxed);
        assert!(committed <= 50);
        assert_eq!(used(&service, &*store, &issued).await, committed);
    })
    .await;
}

#[tokio::test]
async fn a_quota_does_not_delay_other_keys() {
    let (service, faulty, ..) = faulty_service().await;
    let plain = service.issue().await;
    assert!(charge(&service, &plain).await.is_ok());
    faulty.set_charge_fault(Fault::Panics);
    assert!(charge(&service, &plain).await.is_ok(), "it does not query the store");
}

/// A counter as the stores must compute it.
fn charged(charge: &CounterCharge<'_>, stored: Counter) -> (ChargeOutcome, Counter) {
    let (outcome, after) = CounterCharge::charge_all(&[*charge], &[stored]);
    (outcome, after.map_or(stored, |after| after[0]))
}

/// The charge of a node whose clock shows `now`.
fn daily(now: Timestamp, uses: u64) -> CounterCharge<'static> {
    let (period, counter_key) = (Period::Day, CounterKey::Key(KeyId::from_bytes([7; 16])));
    let latest_window = period.ends_at(now).unwrap();
    let window = period.begins_at(now);
    CounterCharge { counter_key, period, window, latest_window, limit: 10, uses }
}

proptest! {
    #[test]
    fn a_quota_recovers_from_any_stored_period(
        window in (-400_000i64..400_000).prop_map(|hours| MOMENT.after(HOUR * 400_000).before(HOUR * (400_000 - hours) as u32)),
        used in 0..=20u64,
        uses in prop::collection::vec(0..12u64, 1..20),
    ) {
        let mut stored = Counter { window, used };
        let current = Period::Day.begins_at(MOMENT);
        let is_kept = window == current || window == Period::Day.ends_at(MOMENT).unwrap();
        let mut total = if is_kept { used } else { 0 };
        for uses in uses {
            let fits = total + uses <= 10;
            let (outcome, after) = charged(&daily(MOMENT, uses), stored);
            total += if fits { uses } else { 0 };
            prop_assert_eq!(outcome, match fits {
                true => ChargeOutcome::Granted(vec![total]),
                false => ChargeOutcome::Exhausted(vec![total]),
            });
            stored = after;
        }
    }

    /// Nodes whose clocks differ by less than a day never grant more than the limit in a day.
    #[test]
    fn nodes_with_different_clocks_share_each_day(
        charges in prop::collection::vec((0..3_600u32, 0..23u32, 1..5u64), 1..100),
    ) {
        let mut stored = Counter::default();
        let mut granted = std::collections::HashMap::<Timestamp, u64>::new();
        let mut now = MOMENT;
        for (minutes, ahead, uses) in charges {
            now = now.after(MINUTE * minutes);
            let charge = daily(now.after(HOUR * ahead), uses);
            let (outcome, after) = charged(&charge, stored);
            prop_assert!(after.window >= stored.window, "an old period reopened");
            if matches!(outcome, ChargeOutcome::Granted(_)) {
                *granted.entry(after.window).or_default() += uses;
            }
            stored = after;
        }
        prop_assert!(granted.values().all(|granted| *granted <= 10), "{:?}", granted);
    }
}

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
/// 2026-01-01T12:00:00Z
const MOMENT: Timestamp = Timestamp::from_unix_micros(1_767_268_800_000_000);

/// In SQL and Lua as in Rust: charges of clocks that are right, a little wrong, and wrong by years.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_store_computes_the_same_counter_from_any_clock() {
    on_each_store(async |handles| {
        let (mut stored, mut random) = (Counter::default(), 7u64);
        for n in 0..300 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n);
            let pick = (random >> 33) as u32;
            let now = match pick % 5 {
                0 => MOMENT.after(DAY * (pick % 4_000)),
                1 => MOMENT.before(DAY * (pick % 4_000)),
                _ => MOMENT.after(HOUR * (pick % 40)),
            };
            let charge = daily(now, u64::from(pick / 7 % 5));
            let (expected, after) = charged(&charge, stored);
            let store = handles[n as usize % handles.len()].counters().unwrap();
            assert_eq!(store.charge(&[charge]).await.unwrap(), expected, "charge {n}: {charge:?}");
            stored = after;
        }
    })
    .await;
}
