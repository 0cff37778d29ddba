//! Usage: first and last use of a key, and counts by hour.

use super::{
    check::{CheckResult, TestStorage, checks, race},
    fixtures::{at, digest, event, key, key_use, owner, owner_of, revocation, revoked},
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{Key, OwnerScope, Timestamp},
    store::{HourlyUsage, KeyUse, PreviousSecret, StoreError},
};

checks![
    last_use_only_moves_forward,
    a_first_use_is_recorded_once_with_its_event,
    racing_first_uses_are_recorded_once,
    uses_of_unknown_keys_are_skipped,
    uses_of_both_secrets_of_a_key_are_recorded,
    recording_a_use_changes_nothing_else;

    UsageHistory:
    usage_adds_up_by_key_and_hour,
    counts_beyond_32_bits_add_up,
    racing_additions_of_usage_add_up,
    usage_of_unknown_keys_is_skipped_and_usage_is_deleted_with_its_key,
    another_owners_usage_cannot_be_read,
    a_purge_of_usage_removes_old_hours_up_to_its_limit,
];

async fn last_use_only_moves_forward(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    let from = |last: u8| Some([192, 0, 2, last].into());
    // Pairs of the instant of a use and the expected instant of the last use.
    let steps = [(20, 20), (10, 20), (20, 20), (19, 20), (30, 30), (1, 30)];
    for (use_at, last_at) in steps {
        let uses = KeyUse { ip: from(use_at), ..key_use(&issued, at(5), at(use_at.into())) };
        storage.handle().record_uses(&[uses]).await?;
        let stored = storage.key(&issued).await?;
        assert_eq!(stored.last_used_at, Some(at(last_at.into())), "after a use at {use_at}");
        assert_eq!(stored.last_used_ip, from(last_at), "the address of the last use");
        assert_eq!(stored.first_used_at, Some(at(5)), "the first use");
    }
    let without_ip = KeyUse { ip: None, ..key_use(&issued, at(40), at(40)) };
    storage.handle().record_uses(&[without_ip]).await?;
    let stored = storage.key(&issued).await?;
    assert_eq!(stored.last_used_at, Some(at(40)));
    assert_eq!(stored.last_used_ip, None, "the address of an older use");
    Ok(())
}

async fn a_first_use_is_recorded_once_with_its_event(storage: TestStorage) -> CheckResult {
    let keys = [1, 2, 3].map(|n| key(&owner(n), n));
    for (n, key) in (1..).zip(&keys) {
        storage.add(key, &digest(n)).await?;
    }
    let first = [key_use(&keys[0], at(10), at(20)), key_use(&keys[1], at(11), at(11))];
    let written = storage.handle().record_uses(&first).await?;
    assert_eq!(
        sorted_by_id(written),
        sorted_by_id(first.iter().map(KeyUse::first_use).collect()),
        "the returned events"
    );

    // In this batch, only the third key is used for the first time. An earlier use of the first key
    // that is recorded later does not replace its first use.
    let mixed = [key_use(&keys[0], at(5), at(30)), key_use(&keys[2], at(12), at(12))];
    let written = storage.handle().record_uses(&mixed).await?;
    assert_eq!(written, [mixed[1].first_use()], "the events returned for a mixed batch");
    for (key, uses) in keys.iter().zip([&first[0], &first[1], &mixed[1]]) {
        let log = storage.log((&key.owner).into()).await?;
        let firsts: Vec<_> = log.iter().filter(|it| it.kind == EventKind::FirstUsed).collect();
        assert_eq!(firsts, [&uses.first_use()], "in the log");
        assert_eq!(storage.key(key).await?.first_used_at, Some(uses.first_at));
    }
    assert_eq!(storage.handle().record_uses(&[]).await?, [], "an empty batch");
    Ok(())
}

async fn racing_first_uses_are_recorded_once(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        let keys: Vec<Key> = (0..4).map(|i| key(&ada, round * 1_000 + i)).collect();
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        let answers = race(12, |task| {
            let store = storage.handle();
            let mut batch: Vec<KeyUse> =
                keys.iter().map(|key| key_use(key, at(100 - task), at(100 + task))).collect();
            // In opposite orders, so that a store that locks keys in batch order deadlocks.
            if task % 2 == 1 {
                batch.reverse();
            }
            async move { store.record_uses(&batch).await }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let returned = sorted_by_id(answers.concat());
        let log = storage.log((&ada).into()).await?;
        let firsts = log.into_iter().filter(|event| event.kind == EventKind::FirstUsed);
        let logged = sorted_by_id(firsts.collect());
        assert_eq!(logged.len(), keys.len(), "first uses in the log, of {} keys", keys.len());
        assert_eq!(returned, logged, "first uses that were returned, and those in the log");
        for key in keys {
            let stored = storage.key(&key).await?;
            let event = logged.iter().find(|event| event.key_id == Some(key.id));
            let event = event.expect("each key has one event");
            assert_eq!(stored.first_used_at, Some(event.at), "the first use, and its event");
            assert_eq!(stored.last_used_at, Some(at(111)), "the last of all uses");
        }
    }
    Ok(())
}

async fn uses_of_unknown_keys_are_skipped(storage: TestStorage) -> CheckResult {
    let (known, gone, never) = (key(&owner(1), 1), key(&owner(1), 2), key(&owner(1), 3));
    storage.add(&known, &digest(1)).await?;
    storage.add(&gone, &digest(2)).await?;
    let by = event(EventKind::Deleted, &gone, at(1));
    assert!(storage.handle().delete((&gone.owner).into(), gone.id, &by).await?);

    let forged = Key { owner: owner_of("other", "account-1"), ..known.clone() };
    let batch = [&gone, &forged, &known, &never].map(|key| key_use(key, at(10), at(20)));
    let written = storage.handle().record_uses(&batch).await?;
    assert_eq!(written, [batch[2].first_use()], "only one of the four exists");
    assert_eq!(storage.key(&known).await?.last_used_at, Some(at(20)));
    for absent in [&gone, &never] {
        let stored = storage.handle().get((&absent.owner).into(), absent.id).await?;
        assert_eq!(stored, None, "a use created a key");
    }
    let log = storage.log((&known.owner).into()).await?;
    let firsts = log.iter().filter(|event| event.kind == EventKind::FirstUsed).count();
    assert_eq!(firsts, 1, "first uses in the log");
    Ok(())
}

async fn uses_of_both_secrets_of_a_key_are_recorded(storage: TestStorage) -> CheckResult {
    for (n, current_first) in [(1, false), (2, true)] {
        let issued = key(&owner(n), n);
        storage.add(&issued, &digest(n)).await?;
        storage.rotate(&issued, &digest(n + 10), PreviousSecret::EndsAt(at(50))).await?;
        let ip = Some([192, 0, 2, 30].into());
        let mut batch = vec![
            KeyUse { digest: digest(n), ip, ..key_use(&issued, at(10), at(30)) },
            KeyUse { digest: digest(n + 10), ..key_use(&issued, at(20), at(25)) },
        ];
        if current_first {
            batch[1].first_at = at(5);
            batch.reverse();
        }
        let written = storage.handle().record_uses(&batch).await?;
        let first = batch[0].first_use();
        assert_eq!(written, std::slice::from_ref(&first), "one first use");
        let stored = storage.key(&issued).await?;
        assert_eq!(stored.first_used_at, Some(first.at), "the first use, and its event");
        let of_current = if current_first { at(5) } else { at(20) };
        assert_eq!(stored.secret_first_used_at, Some(of_current), "of the current secret");
        assert_eq!((stored.last_used_at, stored.last_used_ip), (Some(at(30)), ip), "the last use");
    }
    Ok(())
}

async fn recording_a_use_changes_nothing_else(storage: TestStorage) -> CheckResult {
    let live = Key { expires_at: Some(at(5)), disabled_at: Some(at(1)), ..key(&owner(1), 1) };
    let dead = key(&owner(1), 2);
    storage.add(&live, &digest(1)).await?;
    storage.add(&dead, &digest(2)).await?;
    let by = revocation(&dead, at(2), "leaked");
    let _revoked = storage.handle().revoke((&dead.owner).into(), dead.id, &by).await?;

    let mark = storage.mark().await?;
    let batch = [&live, &dead].map(|key| key_use(key, at(10), at(20)));
    storage.handle().record_uses(&batch).await?;
    for (key, uses) in [live, revoked(dead, &by)].into_iter().zip(&batch) {
        let wanted = Key {
            first_used_at: Some(at(10)),
            last_used_at: Some(at(20)),
            last_used_ip: uses.ip,
            ..key
        };
        assert_eq!(storage.key(&wanted).await?, wanted, "only the fields of a use changed");
    }
    let changed = storage.changed_since(mark).await?.unwrap_or_default();
    assert!(changed.is_empty(), "recording a use wrote feed entries: {changed:?}");
    Ok(())
}

fn sorted_by_id(mut events: Vec<AuditEvent>) -> Vec<AuditEvent> {
    events.sort_by_key(|event| event.id);
    events
}

async fn usage_adds_up_by_key_and_hour(storage: TestStorage) -> CheckResult {
    let keys = [1, 2].map(|n| key(&owner(1), n));
    for (n, key) in (1..).zip(&keys) {
        storage.add(key, &digest(n)).await?;
    }
    let mark = storage.mark().await?;
    let [ada, bob] = &keys;
    storage.handle().history().add_usage(&[]).await?;
    let first = [hour_of(ada, 0, 1, 0), hour_of(bob, 0, 100, 7), hour_of(ada, 2, 5, 1)];
    storage.handle().history().add_usage(&first).await?;
    // The same hour twice in one call counts twice.
    let second = [hour_of(ada, 0, 10, 3), hour_of(ada, 1, 0, 4), hour_of(ada, 0, 20, 0)];
    storage.handle().history().add_usage(&second).await?;
    let sums = [hour_of(ada, 0, 31, 3), hour_of(ada, 1, 0, 4), hour_of(ada, 2, 5, 1)];
    assert_eq!(history(&storage, ada, at(0)).await?, sums);
    assert_eq!(history(&storage, ada, hour_at(1)).await?, sums[1..], "from the second hour");
    assert_eq!(history(&storage, ada, hour_at(3)).await?, [], "after the last hour");
    assert_eq!(history(&storage, bob, at(0)).await?, [hour_of(bob, 0, 100, 7)]);
    assert_eq!(&storage.key(ada).await?, ada, "adding usage changed the key");
    let changed = storage.changed_since(mark).await?.unwrap_or_default();
    assert!(changed.is_empty(), "adding usage wrote feed entries: {changed:?}");
    Ok(())
}

async fn counts_beyond_32_bits_add_up(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    // The largest count that every store counts exactly is 2^53 - 1.
    let (large, rest) = ((1 << 53) - 3, 2);
    let hour = hour_of(&issued, 0, large, 1 << 40);
    storage.handle().history().add_usage(&[hour]).await?;
    storage.handle().history().add_usage(&[hour_of(&issued, 0, rest, 1 << 40)]).await?;
    let wanted = hour_of(&issued, 0, large + rest, 1 << 41);
    assert_eq!(history(&storage, &issued, at(0)).await?, [wanted]);
    Ok(())
}

async fn racing_additions_of_usage_add_up(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let keys = [1, 2, 3].map(|n| key(&owner(round), round * 1_000 + n));
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        let answers = race(12, |task| {
            let store = storage.handle();
            let mut batch: Vec<_> = keys.iter().map(|key| hour_of(key, 0, 1, task)).collect();
            // In opposite orders, so that a store that locks keys in batch order deadlocks.
            if task % 2 == 1 {
                batch.reverse();
            }
            async move { store.history().add_usage(&batch).await }
        });
        answers.await.into_iter().collect::<Result<(), StoreError>>()?;
        for key in &keys {
            assert_eq!(history(&storage, key, at(0)).await?, [hour_of(key, 0, 12, 66)]);
        }
    }
    Ok(())
}

async fn usage_of_unknown_keys_is_skipped_and_usage_is_deleted_with_its_key(
    storage: TestStorage,
) -> CheckResult {
    let (known, gone, later) = (key(&owner(1), 1), key(&owner(1), 2), key(&owner(1), 3));
    storage.add(&known, &digest(1)).await?;
    storage.add(&gone, &digest(2)).await?;
    let counts = [&gone, &later, &known].map(|key| hour_of(key, 0, 1, 1));
    storage.handle().history().add_usage(&counts).await?;
    let by = event(EventKind::Deleted, &gone, at(1));
    assert!(storage.handle().delete((&gone.owner).into(), gone.id, &by).await?);
    storage.handle().history().add_usage(&counts).await?;
    assert_eq!(history(&storage, &known, at(0)).await?, [hour_of(&known, 0, 2, 2)]);
    storage.add(&gone, &digest(2)).await?;
    storage.add(&later, &digest(3)).await?;
    for key in [&gone, &later] {
        assert_eq!(
            history(&storage, key, at(0)).await?,
            [],
            "usage added while the key did not exist"
        );
    }
    Ok(())
}

async fn another_owners_usage_cannot_be_read(storage: TestStorage) -> CheckResult {
    let issued = key(&owner_of("acme", "ada"), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.handle().history().add_usage(&[hour_of(&issued, 0, 1, 1)]).await?;
    let others = [owner_of("acme", "bob"), owner_of("umbrella", "ada"), owner_of("", "ada")];
    let within = others.iter().map(OwnerScope::Owner).chain([OwnerScope::Tenant("umbrella")]);
    for within in within {
        assert_eq!(
            storage.handle().history().hourly_usage(within, issued.id, at(0)).await?,
            [],
            "{within:?}"
        );
    }
    let seen = storage
        .handle()
        .history()
        .hourly_usage(OwnerScope::Tenant("acme"), issued.id, at(0))
        .await?;
    assert_eq!(seen, [hour_of(&issued, 0, 1, 1)], "an administrator of the tenant");
    Ok(())
}

async fn a_purge_of_usage_removes_old_hours_up_to_its_limit(storage: TestStorage) -> CheckResult {
    let keys = [1, 2].map(|n| key(&owner(1), n));
    for (n, key) in (1..).zip(&keys) {
        storage.add(key, &digest(n)).await?;
        let counts: Vec<_> = (0..4).map(|hour| hour_of(key, hour, 1, 0)).collect();
        storage.handle().history().add_usage(&counts).await?;
    }
    for purged in [4, 2, 0] {
        assert_eq!(
            storage.handle().history().purge_usage(hour_at(3), 4).await?,
            purged,
            "at a limit of 4"
        );
    }
    for key in &keys {
        assert_eq!(history(&storage, key, at(0)).await?, [hour_of(key, 3, 1, 0)]);
    }
    Ok(())
}

/// Usage of the `n`th hour, with three limited requests per denied one.
fn hour_of(key: &Key, n: u64, accepted: u64, denied: u64) -> HourlyUsage {
    HourlyUsage { key_id: key.id, hour: hour_at(n), accepted, denied, limited: denied * 3 }
}

fn hour_at(n: u64) -> Timestamp {
    at(n * 3_600)
}

async fn history(
    storage: &TestStorage,
    key: &Key,
    from: Timestamp,
) -> Result<Vec<HourlyUsage>, StoreError> {
    storage.handle().history().hourly_usage((&key.owner).into(), key.id, from).await
}
