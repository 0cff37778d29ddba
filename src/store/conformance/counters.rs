//! Quota counters: charged exactly, together or not at all, and reset only by a new period.

use std::time::{Duration, Instant};

use super::{
    check::{CheckResult, MAX_POLLS, TestStorage, checks, poll_at_most, race},
    fixtures::{at, digest, event, key, owner, owner_of, revocation},
    write_case::{Write, WriteCase},
};
use crate::{
    audit::EventKind,
    model::{KeyId, Period, Timestamp},
    store::{ChargeOutcome, CounterCharge, CounterKey, PreviousSecret, StoreError},
};

checks![;
    Counters:
    charges_are_granted_exactly_up_to_the_limit,
    racing_charges_never_exceed_a_quota,
    counters_are_charged_together_or_not_at_all,
    racing_charges_of_two_counters_do_not_deadlock,
    a_new_period_starts_at_zero_and_an_old_one_never_reopens,
    a_period_that_begins_too_late_restarts_at_zero,
    counters_of_different_owners_and_periods_are_independent,
    a_refund_applies_only_to_its_own_period,
    a_keys_counters_last_as_long_as_the_key,
    a_dropped_charge_is_atomic,
    a_purge_of_counters_removes_old_anonymous_ones_up_to_its_limit,
];

async fn charges_are_granted_exactly_up_to_the_limit(storage: TestStorage) -> CheckResult {
    let (id, limit) = (key(&owner(1), 1).id, 5);
    let of = |uses| CounterCharge { limit, uses, ..one_use(CounterKey::Key(id)) };
    let steps = [
        (of(2), ChargeOutcome::Granted(vec![2])),
        (of(4), ChargeOutcome::Exhausted(vec![2])),
        (of(0), ChargeOutcome::Granted(vec![2])),
        (of(3), ChargeOutcome::Granted(vec![5])),
        (of(1), ChargeOutcome::Exhausted(vec![5])),
        (of(u64::MAX), ChargeOutcome::Exhausted(vec![5])),
        // A higher limit continues from the current count; a lower limit grants nothing.
        (CounterCharge { limit: 6, ..of(1) }, ChargeOutcome::Granted(vec![6])),
        (CounterCharge { limit: 3, ..of(1) }, ChargeOutcome::Exhausted(vec![6])),
        (
            CounterCharge { limit: MAX_LIMIT, ..of(MAX_LIMIT - 6) },
            ChargeOutcome::Granted(vec![MAX_LIMIT]),
        ),
        (CounterCharge { limit: MAX_LIMIT, ..of(1) }, ChargeOutcome::Exhausted(vec![MAX_LIMIT])),
    ];
    for (charge, answer) in steps {
        assert_eq!(storage.handle().quotas().charge(&[charge]).await?, answer, "{charge:?}");
    }
    let none = CounterCharge { limit: 0, ..one_use(CounterKey::Key(key(&owner(1), 2).id)) };
    assert_eq!(
        storage.handle().quotas().charge(&[none]).await?,
        ChargeOutcome::Exhausted(vec![0]),
        "a quota of 0"
    );
    assert_eq!(
        storage.handle().quotas().charge(&[]).await?,
        ChargeOutcome::Granted(vec![]),
        "an empty list of charges"
    );
    Ok(())
}

async fn racing_charges_never_exceed_a_quota(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let id = key(&owner(round), round).id;
        let answers = race(64, |_| {
            let store = storage.handle();
            async move {
                store
                    .quotas()
                    .charge(&[CounterCharge { limit: 20, ..one_use(CounterKey::Key(id)) }])
                    .await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let mut counts: Vec<u64> = answers.iter().filter_map(granted).collect();
        counts.sort_unstable();
        assert_eq!(counts, (1..=20).collect::<Vec<_>>(), "granted to 64 tasks at a limit of 20");
        assert_eq!(used_by(&storage, CounterKey::Key(id)).await?, 20);
    }
    Ok(())
}

async fn counters_are_charged_together_or_not_at_all(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let (ada, id) = (owner(round), key(&owner(round), round).id);
        // Two keys have 15 uses each, and share 20.
        let other = key(&ada, round + 500).id;
        let answers = race(48, |task| {
            let (store, ada) = (storage.handle(), ada.clone());
            let id = if task % 2 == 0 { id } else { other };
            async move {
                let own = CounterCharge { limit: 15, ..one_use(CounterKey::Key(id)) };
                store
                    .quotas()
                    .charge(&[own, CounterCharge { limit: 20, ..one_use(CounterKey::Owner(&ada)) }])
                    .await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        assert_eq!(answers.iter().filter_map(granted).count(), 20, "granted of the shared quota");
        let own = [
            used_by(&storage, CounterKey::Key(id)).await?,
            used_by(&storage, CounterKey::Key(other)).await?,
        ];
        assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 20);
        assert_eq!(
            own[0] + own[1],
            20,
            "a charge refused by one counter was charged to another: {own:?}"
        );
    }
    Ok(())
}

async fn racing_charges_of_two_counters_do_not_deadlock(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let (ada, bob) = (owner_of("a", &round.to_string()), owner_of("b", &round.to_string()));
        let answers = race(16, |task| {
            let (store, ada, bob) = (storage.handle(), ada.clone(), bob.clone());
            async move {
                let mut both = [one_use(CounterKey::Owner(&ada)), one_use(CounterKey::Owner(&bob))];
                if task % 2 == 1 {
                    both.reverse();
                }
                store.quotas().charge(&both).await
            }
        });
        for answer in answers.await {
            assert!(
                matches!(answer?, ChargeOutcome::Granted(_)),
                "both limits are large enough for all"
            );
        }
        for owner in [&ada, &bob] {
            assert_eq!(used_by(&storage, CounterKey::Owner(owner)).await?, 16);
        }
    }
    Ok(())
}

async fn a_new_period_starts_at_zero_and_an_old_one_never_reopens(
    storage: TestStorage,
) -> CheckResult {
    let id = key(&owner(1), 1).id;
    let in_window = |window| CounterCharge { window, limit: 2, ..one_use(CounterKey::Key(id)) };
    let (first, second) = (at(0), at(86_400));
    let steps = [
        (first, ChargeOutcome::Granted(vec![1])),
        (first, ChargeOutcome::Granted(vec![2])),
        (first, ChargeOutcome::Exhausted(vec![2])),
        (second, ChargeOutcome::Granted(vec![1])),
        // A node whose clock is behind charges the current period.
        (first, ChargeOutcome::Granted(vec![2])),
        (first, ChargeOutcome::Exhausted(vec![2])),
        (second, ChargeOutcome::Exhausted(vec![2])),
    ];
    for (n, (window, answer)) in steps.into_iter().enumerate() {
        assert_eq!(
            storage.handle().quotas().charge(&[in_window(window)]).await?,
            answer,
            "step {n}"
        );
    }
    let later = CounterCharge { uses: 3, ..in_window(at(2 * 86_400)) };
    assert_eq!(
        storage.handle().quotas().charge(&[later]).await?,
        ChargeOutcome::Exhausted(vec![0]),
        "more uses than the limit, in a new period"
    );
    Ok(())
}

async fn a_period_that_begins_too_late_restarts_at_zero(storage: TestStorage) -> CheckResult {
    let id = key(&owner(1), 1).id;
    let caller = digest(1);
    let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(365 * 86_400));
    for counter_key in [CounterKey::Key(id), CounterKey::Anonymous(&caller)] {
        let charge = |window: Timestamp| {
            let charge = CounterCharge {
                window,
                latest_window: window.after(day),
                limit: 2,
                ..one_use(counter_key)
            };
            let store = storage.handle();
            async move { store.quotas().charge(&[charge]).await }
        };
        let (now, next, wrong) = (at(0), at(0).after(day), at(0).after(year));
        assert_eq!(charge(wrong).await?, ChargeOutcome::Granted(vec![1]));
        assert_eq!(charge(wrong).await?, ChargeOutcome::Granted(vec![2]));
        assert_eq!(charge(now).await?, ChargeOutcome::Granted(vec![1]), "from 0 again");
        assert_eq!(charge(now).await?, ChargeOutcome::Granted(vec![2]));
        assert_eq!(charge(now).await?, ChargeOutcome::Exhausted(vec![2]));
        assert_eq!(charge(next).await?, ChargeOutcome::Granted(vec![1]));
        assert_eq!(charge(now).await?, ChargeOutcome::Granted(vec![2]), "the next period stays");
        let after_next = next.after(Duration::from_micros(1));
        assert_eq!(charge(after_next).await?, ChargeOutcome::Granted(vec![1]));
        assert_eq!(charge(now).await?, ChargeOutcome::Granted(vec![1]), "one microsecond too late");
    }
    let purged = storage.handle().quotas().purge_counters(at(1), 10).await?;
    assert_eq!(purged, 1, "the anonymous counter, by its period after the restart");
    Ok(())
}

async fn counters_of_different_owners_and_periods_are_independent(
    storage: TestStorage,
) -> CheckResult {
    let owners = [
        owner_of("", "ab"),
        owner_of("a", "b"),
        owner_of("ab", "c"),
        owner_of("a", "bc"),
        owner_of("A", "bc"),
        owner_of("a", "bc "),
    ];
    let keys: [KeyId; 2] = [1, 2].map(|n| key(&owner(1), n).id);
    let counter_keys = owners.iter().map(CounterKey::Owner).chain(keys.map(CounterKey::Key));
    let counter_keys = counter_keys.chain([CounterKey::Job("ab"), CounterKey::Job("")]);
    for counter_key in counter_keys {
        for period in Period::ALL {
            let charge = CounterCharge { period, limit: 1, ..one_use(counter_key) };
            assert_eq!(
                storage.handle().quotas().charge(&[charge]).await?,
                ChargeOutcome::Granted(vec![1]),
                "{charge:?}"
            );
            assert_eq!(
                storage.handle().quotas().charge(&[charge]).await?,
                ChargeOutcome::Exhausted(vec![1])
            );
        }
    }
    Ok(())
}

async fn a_refund_applies_only_to_its_own_period(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let of = |uses| CounterCharge { uses, ..one_use(CounterKey::Owner(&ada)) };
    let _granted = storage.handle().quotas().charge(&[of(10)]).await?;
    storage.handle().quotas().refund(&[of(4)]).await?;
    assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 6);
    let before = CounterCharge { window: Timestamp::MIN, ..of(4) };
    storage.handle().quotas().refund(&[before]).await?;
    assert_eq!(
        used_by(&storage, CounterKey::Owner(&ada)).await?,
        6,
        "a refund of an earlier period"
    );
    let ahead = CounterCharge { window: at(1_000), ..of(4) };
    storage.handle().quotas().refund(&[ahead]).await?;
    assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 6, "a refund of a later period");
    storage.handle().quotas().refund(&[of(7)]).await?;
    assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 0, "a refund stops at 0");
    let full = CounterCharge { limit: 10, ..of(10) };
    assert_eq!(storage.handle().quotas().charge(&[full]).await?, ChargeOutcome::Granted(vec![10]));
    Ok(())
}

async fn a_keys_counters_last_as_long_as_the_key(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    let charge = CounterCharge { limit: 3, uses: 3, ..one_use(CounterKey::Key(issued.id)) };
    assert_eq!(storage.handle().quotas().charge(&[charge]).await?, ChargeOutcome::Granted(vec![3]));
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(5))).await?;
    storage.update(&storage.key(&issued).await?, at(6)).await?;
    assert_eq!(used_by(&storage, charge.counter_key).await?, 3, "after a rotation and an update");
    let by = revocation(&issued, at(7), "leaked");
    let _revoked = storage.handle().revoke((&issued.owner).into(), issued.id, &by).await?;
    assert_eq!(used_by(&storage, charge.counter_key).await?, 3, "after a revocation");
    assert!(storage.key(&issued).await?.revoked.is_some(), "a charge made a revoked key live");

    let deleted = event(EventKind::Deleted, &issued, at(8));
    assert!(storage.handle().delete((&issued.owner).into(), issued.id, &deleted).await?);
    assert_eq!(used_by(&storage, charge.counter_key).await?, 0, "after the key was deleted");
    let purged = WriteCase::new(Write::Purge, 1);
    purged.prepare(&storage).await?;
    let charge = CounterCharge { limit: 3, ..one_use(CounterKey::Key(purged.keys[0].id)) };
    assert_eq!(storage.handle().quotas().charge(&[charge]).await?, ChargeOutcome::Granted(vec![1]));
    purged.run(&*storage.handle()).await?;
    assert_eq!(used_by(&storage, charge.counter_key).await?, 0, "after the key was purged");
    Ok(())
}

/// Drops a charge one poll later each time, until it completes.
async fn a_dropped_charge_is_atomic(storage: TestStorage) -> CheckResult {
    for polls in 0..MAX_POLLS {
        let (ada, id) = (owner(polls), key(&owner(polls), polls).id);
        let both = [one_use(CounterKey::Key(id)), one_use(CounterKey::Owner(&ada))];
        let store = storage.handle();
        let done = poll_at_most(polls, store.quotas().charge(&both)).await.transpose()?;
        let deadline = storage.deadline();
        let (mut own, mut shared) = (1, 0);
        while own != shared {
            assert!(
                Instant::now() < deadline,
                "only one of two counters was charged: {own} {shared}"
            );
            own = used_by(&storage, CounterKey::Key(id)).await?;
            shared = used_by(&storage, CounterKey::Owner(&ada)).await?;
        }
        // The dropped charge left no lock.
        assert!(matches!(
            storage.handle().quotas().charge(&both).await?,
            ChargeOutcome::Granted(_)
        ));
        if done.is_some() {
            assert_eq!(own, 1, "it was acknowledged");
            return Ok(());
        }
    }
    panic!("a charge was not done after {} polls", MAX_POLLS)
}

async fn a_purge_of_counters_removes_old_anonymous_ones_up_to_its_limit(
    storage: TestStorage,
) -> CheckResult {
    let (ada, other) = (owner(1), key(&owner(1), 1).id);
    let counter_keys = [CounterKey::Owner(&ada), CounterKey::Key(other), CounterKey::Job("a job")];
    let callers = [1, 2, 3, 4].map(digest);
    let (old, current) = (at(0), at(600));
    let of = |counter_key, window| CounterCharge {
        counter_key,
        period: Period::Ever,
        window,
        latest_window: Timestamp::MAX,
        limit: 1,
        uses: 1,
    };
    for counter_key in callers[..3].iter().map(CounterKey::Anonymous).chain(counter_keys) {
        assert_eq!(
            storage.handle().quotas().charge(&[of(counter_key, old)]).await?,
            ChargeOutcome::Granted(vec![1])
        );
    }
    // The fourth caller has returned in a later period.
    for window in [old, current] {
        let charge = of(CounterKey::Anonymous(&callers[3]), window);
        let charged = storage.handle().quotas().charge(&[charge]).await?;
        assert_eq!(charged, ChargeOutcome::Granted(vec![1]));
    }

    for purged in [2, 1, 0] {
        let removed = storage.handle().quotas().purge_counters(current, 2).await?;
        assert_eq!(removed, purged, "at a limit of 2");
    }
    for caller in &callers[..3] {
        let charge = of(CounterKey::Anonymous(caller), old);
        assert_eq!(
            storage.handle().quotas().charge(&[charge]).await?,
            ChargeOutcome::Granted(vec![1]),
            "the counter was purged"
        );
    }
    for counter_key in counter_keys {
        let again = storage.handle().quotas().charge(&[of(counter_key, old)]).await?;
        assert_eq!(
            again,
            ChargeOutcome::Exhausted(vec![1]),
            "{counter_key:?} is not anonymous and must be kept"
        );
    }
    let back = of(CounterKey::Anonymous(&callers[3]), current);
    assert_eq!(
        storage.handle().quotas().charge(&[back]).await?,
        ChargeOutcome::Exhausted(vec![1]),
        "a counter of the current period"
    );
    Ok(())
}

/// A charge of one use to a large quota.
pub(super) fn one_use(counter_key: CounterKey<'_>) -> CounterCharge<'_> {
    CounterCharge {
        counter_key,
        period: Period::Day,
        window: at(0),
        latest_window: Timestamp::MAX,
        limit: 1_000,
        uses: 1,
    }
}

fn granted(answer: &ChargeOutcome) -> Option<u64> {
    match answer {
        ChargeOutcome::Granted(used) => used.first().copied(),
        ChargeOutcome::Exhausted(_) => None,
    }
}

/// Returns how much of a quota is used.
async fn used_by(storage: &TestStorage, counter_key: CounterKey<'_>) -> Result<u64, StoreError> {
    let nothing = CounterCharge { uses: 0, limit: u64::MAX, ..one_use(counter_key) };
    match storage.handle().quotas().charge(&[nothing]).await? {
        ChargeOutcome::Granted(used) => Ok(used[0]),
        ChargeOutcome::Exhausted(used) => panic!("a charge of 0 uses was refused at {used:?}"),
    }
}

/// The largest possible quota.
const MAX_LIMIT: u64 = (1 << 53) - 1;
