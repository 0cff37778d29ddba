//! Quota counters: charged exactly, together or not at all, and reset only by a new period.

use std::time::Instant;

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

checks![
    charges_are_granted_exactly_up_to_the_limit,
    racing_charges_never_exceed_a_quota,
    counters_are_charged_together_or_not_at_all,
    racing_charges_of_two_counters_do_not_deadlock,
    a_new_period_starts_at_zero_and_an_old_one_never_reopens,
    counters_of_different_owners_and_periods_are_independent,
    a_refund_applies_only_to_its_own_period,
    a_keys_counters_last_as_long_as_the_key,
    a_dropped_charge_is_atomic,
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
        // A plan that allows more counts from what there is; one that allows less grants nothing.
        (CounterCharge { limit: 6, ..of(1) }, ChargeOutcome::Granted(vec![6])),
        (CounterCharge { limit: 3, ..of(1) }, ChargeOutcome::Exhausted(vec![6])),
        (
            CounterCharge { limit: MAX_LIMIT, ..of(MAX_LIMIT - 6) },
            ChargeOutcome::Granted(vec![MAX_LIMIT]),
        ),
        (CounterCharge { limit: MAX_LIMIT, ..of(1) }, ChargeOutcome::Exhausted(vec![MAX_LIMIT])),
    ];
    for (spend, answer) in steps {
        assert_eq!(storage.handle().charge(&[spend]).await?, answer, "{spend:?}");
    }
    let none = CounterCharge { limit: 0, ..one_use(CounterKey::Key(key(&owner(1), 2).id)) };
    assert_eq!(
        storage.handle().charge(&[none]).await?,
        ChargeOutcome::Exhausted(vec![0]),
        "a quota of none"
    );
    assert_eq!(
        storage.handle().charge(&[]).await?,
        ChargeOutcome::Granted(vec![]),
        "of no quota at all"
    );
    Ok(())
}

async fn racing_charges_never_exceed_a_quota(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let id = key(&owner(round), round).id;
        let answers = race(64, |_| {
            let store = storage.handle();
            async move {
                store.charge(&[CounterCharge { limit: 20, ..one_use(CounterKey::Key(id)) }]).await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let mut counts: Vec<u64> = answers.iter().filter_map(granted).collect();
        counts.sort_unstable();
        assert_eq!(counts, (1..=20).collect::<Vec<_>>(), "of 64 tasks, exactly 20 were granted");
        assert_eq!(used_by(&storage, CounterKey::Key(id)).await?, 20);
    }
    Ok(())
}

async fn counters_are_charged_together_or_not_at_all(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let (ada, id) = (owner(round), key(&owner(round), round).id);
        // Each of two keys has 15 uses, and both share 20.
        let other = key(&ada, round + 500).id;
        let answers = race(48, |task| {
            let (store, ada) = (storage.handle(), ada.clone());
            let id = if task % 2 == 0 { id } else { other };
            async move {
                let own = CounterCharge { limit: 15, ..one_use(CounterKey::Key(id)) };
                store
                    .charge(&[own, CounterCharge { limit: 20, ..one_use(CounterKey::Owner(&ada)) }])
                    .await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        assert_eq!(answers.iter().filter_map(granted).count(), 20, "of what they share");
        let own = [
            used_by(&storage, CounterKey::Key(id)).await?,
            used_by(&storage, CounterKey::Key(other)).await?,
        ];
        assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 20);
        assert_eq!(own[0] + own[1], 20, "what was refused by one was spent from another: {own:?}");
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
                store.charge(&both).await
            }
        });
        for answer in answers.await {
            assert!(matches!(answer?, ChargeOutcome::Granted(_)), "there is enough for all");
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
        // A node whose clock is behind spends from the period that has begun.
        (first, ChargeOutcome::Granted(vec![2])),
        (first, ChargeOutcome::Exhausted(vec![2])),
        (second, ChargeOutcome::Exhausted(vec![2])),
    ];
    for (n, (window, answer)) in steps.into_iter().enumerate() {
        assert_eq!(storage.handle().charge(&[in_window(window)]).await?, answer, "step {n}");
    }
    let later = CounterCharge { uses: 3, ..in_window(at(2 * 86_400)) };
    assert_eq!(
        storage.handle().charge(&[later]).await?,
        ChargeOutcome::Exhausted(vec![0]),
        "too much at once"
    );
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
    let payers = owners.iter().map(CounterKey::Owner).chain(keys.map(CounterKey::Key));
    let payers = payers.chain([CounterKey::Job("ab"), CounterKey::Job("")]);
    for payer in payers {
        for period in Period::ALL {
            let spend = CounterCharge { period, limit: 1, ..one_use(payer) };
            assert_eq!(
                storage.handle().charge(&[spend]).await?,
                ChargeOutcome::Granted(vec![1]),
                "{spend:?}"
            );
            assert_eq!(storage.handle().charge(&[spend]).await?, ChargeOutcome::Exhausted(vec![1]));
        }
    }
    Ok(())
}

async fn a_refund_applies_only_to_its_own_period(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let of = |uses| CounterCharge { uses, ..one_use(CounterKey::Owner(&ada)) };
    let _granted = storage.handle().charge(&[of(10)]).await?;
    storage.handle().refund(&[of(4)]).await?;
    assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 6);
    let before = CounterCharge { window: Timestamp::MIN, ..of(4) };
    storage.handle().refund(&[before]).await?;
    assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 6, "of a period that is over");
    let ahead = CounterCharge { window: at(1_000), ..of(4) };
    storage.handle().refund(&[ahead]).await?;
    assert_eq!(
        used_by(&storage, CounterKey::Owner(&ada)).await?,
        6,
        "of a period that has not begun"
    );
    storage.handle().refund(&[of(7)]).await?;
    assert_eq!(used_by(&storage, CounterKey::Owner(&ada)).await?, 0, "never less than nothing");
    let full = CounterCharge { limit: 10, ..of(10) };
    assert_eq!(storage.handle().charge(&[full]).await?, ChargeOutcome::Granted(vec![10]));
    Ok(())
}

async fn a_keys_counters_last_as_long_as_the_key(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    let spend = CounterCharge { limit: 3, uses: 3, ..one_use(CounterKey::Key(issued.id)) };
    assert_eq!(storage.handle().charge(&[spend]).await?, ChargeOutcome::Granted(vec![3]));
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(5))).await?;
    storage.update(&storage.key(&issued).await?, at(6)).await?;
    assert_eq!(used_by(&storage, spend.payer).await?, 3, "after a rotation and an update");
    let by = revocation(&issued, at(7), "leaked");
    let _now = storage.handle().revoke((&issued.owner).into(), issued.id, &by).await?;
    assert_eq!(used_by(&storage, spend.payer).await?, 3, "after a revocation");
    assert!(storage.key(&issued).await?.revoked.is_some(), "spending brings nothing back");

    let deleted = event(EventKind::Deleted, &issued, at(8));
    assert!(storage.handle().delete((&issued.owner).into(), issued.id, &deleted).await?);
    assert_eq!(used_by(&storage, spend.payer).await?, 0, "of a key whose record is removed");
    let purged = WriteCase::new(Write::Purge, 1);
    purged.prepare(&storage).await?;
    let spend = CounterCharge { limit: 3, ..one_use(CounterKey::Key(purged.keys[0].id)) };
    assert_eq!(storage.handle().charge(&[spend]).await?, ChargeOutcome::Granted(vec![1]));
    purged.run(&*storage.handle()).await?;
    assert_eq!(used_by(&storage, spend.payer).await?, 0, "of a key that was purged");
    Ok(())
}

/// Dropped one poll later each time, until it gets done.
async fn a_dropped_charge_is_atomic(storage: TestStorage) -> CheckResult {
    for polls in 0..MAX_POLLS {
        let (ada, id) = (owner(polls), key(&owner(polls), polls).id);
        let both = [one_use(CounterKey::Key(id)), one_use(CounterKey::Owner(&ada))];
        let store = storage.handle();
        let done = poll_at_most(polls, store.charge(&both)).await.transpose()?;
        let deadline = storage.deadline();
        let (mut own, mut shared) = (1, 0);
        while own != shared {
            assert!(Instant::now() < deadline, "spent from one of two: {own} {shared}");
            own = used_by(&storage, CounterKey::Key(id)).await?;
            shared = used_by(&storage, CounterKey::Owner(&ada)).await?;
        }
        // Nothing stays locked behind it.
        assert!(matches!(storage.handle().charge(&both).await?, ChargeOutcome::Granted(_)));
        if done.is_some() {
            assert_eq!(own, 1, "it was acknowledged");
            return Ok(());
        }
    }
    panic!("spending was not done after {} polls", MAX_POLLS)
}

/// One use of a large quota.
fn one_use(payer: CounterKey<'_>) -> CounterCharge<'_> {
    CounterCharge { payer, period: Period::Day, window: at(0), limit: 1_000, uses: 1 }
}

fn granted(answer: &ChargeOutcome) -> Option<u64> {
    match answer {
        ChargeOutcome::Granted(used) => used.first().copied(),
        ChargeOutcome::Exhausted(_) => None,
    }
}

/// How much of a quota is used up.
async fn used_by(storage: &TestStorage, payer: CounterKey<'_>) -> Result<u64, StoreError> {
    let nothing = CounterCharge { uses: 0, limit: u64::MAX, ..one_use(payer) };
    match storage.handle().charge(&[nothing]).await? {
        ChargeOutcome::Granted(used) => Ok(used[0]),
        ChargeOutcome::Exhausted(used) => panic!("of all there is, {used:?} are used up"),
    }
}

/// More than that no quota has.
const MAX_LIMIT: u64 = (1 << 53) - 1;
