//! Revoking, deleting and purging: final, atomic, and limited to the right keys.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    check::{CheckResult, Handle, TestStorage, Watch, checks, joined, race},
    fixtures::{
        at, digest, event, insert_key, just_before, key, key_ids, key_use, name, owner, owner_of,
        revocation, revoked, rotation,
    },
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{EventId, Key, KeyId, OwnerScope},
    store::{
        InsertOutcome, KeyStore, PreviousSecret, RevokeOutcome, RotateOutcome, StoreError,
        UpdateOutcome,
    },
};

checks![
    a_second_revocation_keeps_the_first_instant_and_reason,
    a_disabled_or_expired_key_can_be_revoked,
    a_revocation_racing_other_writes_wins,
    racing_revocations_have_one_winner,
    revoke_all_revokes_each_key_of_the_owner_with_an_event,
    revoke_all_is_atomic,
    a_visible_revocation_has_its_event_and_feed_entry,
    revoke_all_misses_no_key_inserted_before_it_started,
    delete_removes_the_key_and_its_secrets_and_keeps_its_events,
    a_purge_removes_keys_that_ended_before_the_cutoff_and_nothing_else,
    a_purge_stops_at_its_limit,
    racing_purges_remove_each_key_once,
];

async fn a_second_revocation_keeps_the_first_instant_and_reason(
    storage: TestStorage,
) -> CheckResult {
    let issued = key(&owner(1), 1);
    let within = OwnerScope::Owner(&issued.owner);
    storage.add(&issued, &digest(1)).await?;
    storage.update(&issued, at(1)).await?;
    let stored = storage.key(&issued).await?;

    let first = revocation(&issued, at(10), "leaked");
    assert_eq!(storage.handle().revoke(within, issued.id, &first).await?, RevokeOutcome::Revoked);
    let wanted = revoked(stored, &first);
    assert_eq!(storage.key(&issued).await?, wanted);
    for (instant, reason) in [(at(20), "again"), (at(5), "earlier"), (at(10), "")] {
        let second = revocation(&issued, instant, reason);
        assert_eq!(
            storage.handle().revoke(within, issued.id, &second).await?,
            RevokeOutcome::AlreadyRevoked
        );
        assert_eq!(storage.key(&issued).await?, wanted, "revoked again, {reason:?}");
    }
    let log = storage.log(within).await?;
    let events: Vec<_> = log.iter().filter(|it| it.kind == EventKind::Revoked).collect();
    assert_eq!(events, [&first], "events of one revocation");

    let absent = key(&owner(1), 2);
    let by = revocation(&absent, at(10), "");
    assert_eq!(storage.handle().revoke(within, absent.id, &by).await?, RevokeOutcome::NotFound);
    Ok(())
}

async fn a_disabled_or_expired_key_can_be_revoked(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let disabled = Key { disabled_at: Some(at(1)), ..key(&ada, 1) };
    let expired = Key { expires_at: Some(at(1)), ..key(&ada, 2) };
    for (n, key) in (1..).zip([disabled, expired]) {
        storage.add(&key, &digest(n)).await?;
        let by = revocation(&key, at(10), "");
        assert_eq!(
            storage.handle().revoke((&ada).into(), key.id, &by).await?,
            RevokeOutcome::Revoked
        );
        assert_eq!(storage.key(&key).await?, revoked(key, &by));
    }
    Ok(())
}

async fn a_revocation_racing_other_writes_wins(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let n = round * 1_000;
        let issued = Key { disabled_at: Some(at(0)), ..key(&owner(round), n) };
        storage.add(&issued, &digest(n)).await?;
        let by = revocation(&issued, at(5), "leaked");
        let outcomes = race(12, |task| {
            let (store, key, by) = (storage.handle(), issued.clone(), by.clone());
            async move {
                match task {
                    0 if round % 2 == 0 => {
                        let revoked = store.revoke_all(&key.owner, &by).await?;
                        assert_eq!(key_ids(&revoked), [key.id], "the one revocation of a race");
                        Ok(())
                    }
                    0 => {
                        let answer = store.revoke((&key.owner).into(), key.id, &by).await?;
                        assert_eq!(answer, RevokeOutcome::Revoked, "the one revocation of a race");
                        Ok(())
                    }
                    task => write_concurrently(&*store, &key, n, task).await,
                }
            }
        });
        outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
        assert_revoked(&storage, &issued, "after the race").await?;

        // Repeat all writes with the revision of the revoked key.
        let stored = storage.key(&issued).await?;
        for task in 1..12 {
            write_concurrently(&*storage.handle(), &stored, n + 500, task).await?;
        }
        assert_revoked(&storage, &issued, "after writes to the revoked key").await?;
        assert_eq!(
            storage.key(&issued).await?.revision,
            stored.revision,
            "a write changed a revoked key"
        );
    }
    Ok(())
}

async fn racing_revocations_have_one_winner(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        storage.add(&issued, &digest(round)).await?;
        let answers = race(8, |task| {
            let (store, key) = (storage.handle(), issued.clone());
            let by = revocation(&key, at(task), &format!("reason {task}"));
            async move { Ok((store.revoke((&key.owner).into(), key.id, &by).await?, revoked(key, &by))) }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let won: Vec<_> = answers.iter().filter(|(it, _)| *it == RevokeOutcome::Revoked).collect();
        let [(_, wanted)] = won[..] else { panic!("{} revocations of one key won", won.len()) };
        let already = answers.iter().filter(|(it, _)| *it == RevokeOutcome::AlreadyRevoked).count();
        assert_eq!(already, 7, "losers of the race");
        assert_eq!(storage.key(&issued).await?, *wanted, "the winner's instant and reason");
    }
    Ok(())
}

/// Runs one of the writes that must not undo a revocation. Any outcome is fine, as long as the store
/// does not fail. A conflict is retried with the newer revision, like a service would.
async fn write_concurrently(store: &dyn KeyStore, issued: &Key, n: u64, task: u64) -> CheckResult {
    let mut key = issued.clone();
    for attempt in 0..4 {
        let done = match task {
            1..=3 => {
                let mine =
                    Key { disabled_at: None, revoked: None, name: name("enabled"), ..key.clone() };
                let event = event(EventKind::Enabled, &mine, at(6));
                store.update(&mine, &event).await? == UpdateOutcome::Updated
            }
            4..=6 => {
                let previous = if task == 6 {
                    PreviousSecret::Replaced
                } else {
                    PreviousSecret::EndsAt(at(50))
                };
                let to = digest(n + task * 10 + attempt + 1);
                let event = event(EventKind::Rotated, &key, at(6));
                let rotate = rotation(&key, &to, previous, &event);
                store.rotate(rotate).await? == RotateOutcome::Rotated
            }
            7..=9 => {
                store.record_uses(&[key_use(&key, at(task), at(task + attempt))]).await?;
                false
            }
            _ => store.rehash(&digest(n), &digest(n + task * 10)).await?,
        };
        if done {
            return Ok(());
        }
        let stored = store.get((&key.owner).into(), key.id).await?;
        key = Key::clone(&stored.expect("a revoked key stays until it is purged"));
    }
    Ok(())
}

async fn assert_revoked(storage: &TestStorage, issued: &Key, when: &str) -> CheckResult {
    let revocation = storage.key(issued).await?.revoked;
    let revocation = revocation.unwrap_or_else(|| panic!("the key is not revoked {when}"));
    assert_eq!((revocation.at, &*revocation.reason), (at(5), "leaked"), "{when}");
    Ok(())
}

async fn revoke_all_revokes_each_key_of_the_owner_with_an_event(
    storage: TestStorage,
) -> CheckResult {
    let ada = owner(1);
    let disabled = Key { disabled_at: Some(at(1)), ..key(&ada, 1) };
    let expired = Key { expires_at: Some(at(1)), ..key(&ada, 2) };
    let mut unrevoked = vec![disabled, expired];
    unrevoked.extend((3..=40).map(|n| key(&ada, n)));
    for (n, key) in (1..).zip(&unrevoked) {
        storage.add(key, &digest(n)).await?;
    }
    let dead = key(&ada, 50);
    storage.add(&dead, &digest(50)).await?;
    let before = revocation(&dead, at(2), "before");
    let _revoked = storage.handle().revoke((&ada).into(), dead.id, &before).await?;
    let others = [key(&owner(2), 60), key(&owner_of("other", ada.account()), 61)];
    for (n, other) in (60..).zip(&others) {
        storage.add(other, &digest(n)).await?;
    }

    let mark = storage.mark().await?;
    let by = revocation(&unrevoked[0], at(10), "the account was closed");
    let written = storage.handle().revoke_all(&ada, &by).await?;
    let ids: BTreeSet<KeyId> = unrevoked.iter().map(|key| key.id).collect();
    assert_eq!(written.len(), ids.len(), "returned events");
    assert_eq!(
        BTreeSet::from_iter(key_ids(&written)),
        ids,
        "the returned events are about the keys that were not revoked"
    );
    if let Some(changed) = storage.changed_since(mark).await? {
        assert_eq!(changed, ids, "the feed entries");
    }
    let log = storage.log((&ada).into()).await?;
    for key in unrevoked {
        assert_eq!(storage.key(&key).await?, revoked(key.clone(), &by));
        let events: Vec<_> = log
            .iter()
            .filter(|it| it.key_id == Some(key.id) && it.kind == EventKind::Revoked)
            .collect();
        let [event] = events[..] else { panic!("{} events of one revocation", events.len()) };
        // Only the id differs from the event that was passed.
        let wanted = by.for_key(0, &key);
        assert_eq!(*event, AuditEvent { id: event.id, ..wanted });
    }
    assert_eq!(storage.key(&dead).await?, revoked(dead, &before), "a key that was revoked before");
    for other in &others {
        assert_eq!(storage.key(other).await?, *other, "another owner's key");
    }
    let again = storage.handle().revoke_all(&ada, &revocation(&others[0], at(11), "")).await?;
    assert_eq!(again, [], "a second call revokes nothing");
    assert_eq!(storage.log((&ada).into()).await?, log, "a second call writes no event");
    Ok(())
}

async fn revoke_all_is_atomic(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        let keys: Vec<Key> = (0..8).map(|i| key(&ada, round * 1_000 + i)).collect();
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        // After a reader saw one revoked key, it must not see a key that is not revoked. Two readers
        // read forwards and two backwards, because the order of the store is unknown.
        let keys = Arc::new(keys);
        let outcomes = race(5, |task| {
            let (store, keys) = (storage.handle(), keys.clone());
            async move {
                match task {
                    0 => {
                        let by = revocation(&keys[0], at(5), "");
                        store.revoke_all(&keys[0].owner, &by).await.map(|_| ())
                    }
                    task => assert_all_at_one_instant(&*store, &keys, task % 2 == 0).await,
                }
            }
        });
        outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
    }
    Ok(())
}

/// Reads the keys one by one until all are revoked. Panics if only some are revoked.
async fn assert_all_at_one_instant(
    store: &dyn KeyStore,
    keys: &[Key],
    backwards: bool,
) -> CheckResult {
    let mut started = false;
    loop {
        let mut unrevoked = 0;
        for i in 0..keys.len() {
            let key = &keys[if backwards { keys.len() - 1 - i } else { i }];
            let stored = store.get((&key.owner).into(), key.id).await?.expect("the key exists");
            let revoked = stored.revoked.is_some();
            assert!(revoked || !started, "one key was revoked before another");
            started |= revoked;
            unrevoked += usize::from(!revoked);
        }
        if unrevoked == 0 {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

async fn a_visible_revocation_has_its_event_and_feed_entry(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        // The first key is revoked alone, the others together.
        let owners = [owner(round * 2), owner(round * 2 + 1)];
        let keys: Vec<Key> =
            (0..4).map(|i| key(&owners[usize::from(i > 0)], round * 1_000 + i)).collect();
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        let (mark, keys) = (storage.mark().await?, Arc::new(keys));
        let outcomes = race(6, |task| {
            let (store, keys) = (storage.handle(), keys.clone());
            async move {
                let by = |n: usize| revocation(&keys[n], at(5), "leaked");
                match task {
                    0 => {
                        let within = OwnerScope::Owner(&keys[0].owner);
                        store.revoke(within, keys[0].id, &by(0)).await.map(|_| ())
                    }
                    1 => store.revoke_all(&keys[1].owner, &by(1)).await.map(|_| ()),
                    task => {
                        let n = task as usize - 2;
                        assert_revoked_as_a_whole(&store, &keys[n], round * 1_000 + n as u64, mark)
                            .await
                    }
                }
            }
        });
        outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
    }
    Ok(())
}

/// Waits until a key is revoked, and asserts that its event and its feed entry are there as well.
async fn assert_revoked_as_a_whole(
    store: &Handle,
    key: &Key,
    n: u64,
    mark: Option<u64>,
) -> CheckResult {
    loop {
        let found = store.find(&[digest(n)]).await?.expect("the key exists");
        if found.key.revoked.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let log = store.events(&AuditQuery::new(&key.owner).key(key.id)).await?;
    let logged = log.iter().any(|event| event.kind == EventKind::Revoked);
    assert!(logged, "a key was seen as revoked before its audit event");
    let Some(mark) = mark else { return Ok(()) };
    let (mut cursor, mut changed) = (mark, BTreeSet::new());
    loop {
        let page = store.feed().changes(Some(cursor)).await?;
        cursor = page.cursor;
        changed.extend(page.keys);
        if !page.more {
            break;
        }
    }
    assert!(changed.contains(&key.id), "a key was seen as revoked before its feed entry");
    Ok(())
}

async fn revoke_all_misses_no_key_inserted_before_it_started(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let done = Arc::new(AtomicBool::new(false));
        let inserting = tokio::spawn({
            let stores: Vec<_> = (0..4).map(|_| storage.handle()).collect();
            let (ada, acknowledged, done) = (ada.clone(), acknowledged.clone(), done.clone());
            race(4, move |task| {
                let (store, ada) = (stores[task as usize].clone(), ada.clone());
                let (acknowledged, done) = (acknowledged.clone(), done.clone());
                async move {
                    for n in (round * 1_000 + task * 40..).take(40) {
                        let key = key(&ada, n);
                        let event = event(EventKind::Created, &key, at(0));
                        let inserted =
                            store.insert(insert_key(&key, &digest(n), None, &event)).await?;
                        assert_eq!(inserted, InsertOutcome::Inserted);
                        acknowledged.lock().expect("no panic while the lock is held").push(key.id);
                        if done.load(Ordering::Acquire) {
                            break;
                        }
                    }
                    Ok::<(), StoreError>(())
                }
            })
        });
        let acknowledged = || acknowledged.lock().expect("no panic while the lock is held").clone();
        while acknowledged().len() < 12 && !inserting.is_finished() {
            tokio::task::yield_now().await;
        }
        let before = acknowledged();
        let by = revocation(&key(&ada, 0), at(5), "");
        let written = storage.handle().revoke_all(&ada, &by).await;
        done.store(true, Ordering::Release);
        joined(inserting.await).into_iter().collect::<Result<(), StoreError>>()?;

        let revoked = BTreeSet::from_iter(key_ids(&written?));
        for id in before {
            assert!(revoked.contains(&id), "revoke_all missed a key that was inserted before it");
        }
        for key in storage.keys(OwnerScope::Owner(&ada)).await? {
            assert_eq!(
                key.revoked.is_some(),
                revoked.contains(&key.id),
                "the returned events agree with the stored keys"
            );
        }
    }
    Ok(())
}

async fn delete_removes_the_key_and_its_secrets_and_keeps_its_events(
    storage: TestStorage,
) -> CheckResult {
    let (gone, other) = (key(&owner(1), 1), key(&owner(1), 2));
    let within = OwnerScope::Owner(&gone.owner);
    storage.add(&gone, &digest(1)).await?;
    storage.add(&other, &digest(2)).await?;
    storage.rotate(&gone, &digest(3), PreviousSecret::EndsAt(at(50))).await?;
    let before = storage.log(within).await?;

    let by = event(EventKind::Deleted, &gone, at(5));
    assert!(storage.handle().delete(within, gone.id, &by).await?, "the key existed");
    assert_eq!(storage.handle().get(within, gone.id).await?, None, "read by its id");
    assert_eq!(storage.holder(&digest(1)).await?, None, "its retiring secret");
    assert_eq!(storage.holder(&digest(3)).await?, None, "its current secret");
    let listed = storage.keys(within).await?;
    assert_eq!(listed.iter().map(|key| key.id).collect::<Vec<_>>(), [other.id], "listed");
    let log = storage.log(within).await?;
    assert_eq!(log, [vec![by], before].concat(), "its events, with the event of the deletion");

    let watch = Watch::start(&storage, "acme", (1..=3).map(digest)).await?;
    let before = watch.snapshot().await?;
    let again = event(EventKind::Deleted, &gone, at(6));
    assert!(!storage.handle().delete(within, gone.id, &again).await?, "the key was deleted before");
    assert_eq!(watch.snapshot().await?, before, "a second deletion changed something");
    for (n, secret) in [(4, 1), (5, 3)] {
        storage.add(&key(&owner(1), n), &digest(secret)).await?;
    }
    Ok(())
}

async fn a_purge_removes_keys_that_ended_before_the_cutoff_and_nothing_else(
    storage: TestStorage,
) -> CheckResult {
    let before = at(1_000);
    let instants = [None, Some(at(10)), Some(just_before(before)), Some(before), Some(at(2_000))];
    let mut stored = Vec::new();
    let mut n = 0;
    for expires_at in instants {
        for revoked_at in instants {
            // Every other key has long been disabled, which must not matter.
            n += 1;
            let disabled_at = (n % 2 == 0).then(|| at(1));
            let owner = owner_of(if n % 3 == 0 { "other" } else { "acme" }, "account-1");
            let key = Key { expires_at, disabled_at, ..key(&owner, n) };
            storage.add(&key, &digest(n)).await?;
            if let Some(revoked_at) = revoked_at {
                let by = revocation(&key, revoked_at, "");
                let _revoked = storage.handle().revoke((&owner).into(), key.id, &by).await?;
            }
            stored.push((n, storage.key(&key).await?));
        }
    }
    let dead = |key: &Key| key.dead_since().is_some_and(|since| since < before);
    let wanted = BTreeSet::from_iter(stored.iter().filter(|(_, it)| dead(it)).map(|(_, it)| it.id));

    let mark = storage.mark().await?;
    let by = event(EventKind::Purged, &stored[0].1, at(3_000));
    let purged = storage.handle().purge_keys(before, 1_000, &by).await?;
    for (n, key) in &stored {
        let kept = storage.handle().get((&key.owner).into(), key.id).await?;
        assert_eq!(kept.is_some(), !dead(key), "whether a purge before {before} kept {key:#?}");
        assert_eq!(storage.holder(&digest(*n)).await?.is_some(), !dead(key), "its secret");
        let log = storage.log((&key.owner).into()).await?;
        let mut own = log.iter().filter(|event| event.key_id == Some(key.id));
        assert!(own.clone().any(|event| event.kind == EventKind::Created), "its events are kept");
        let event = own.find(|event| event.kind == EventKind::Purged);
        let wanted = event.map(|event| AuditEvent { id: event.id, ..by.for_key(0, key) });
        assert_eq!(event.is_some(), dead(key), "the event of its purge");
        assert_eq!(event.cloned(), wanted, "the event of its purge has its id and owner");
    }
    assert_eq!(BTreeSet::from_iter(key_ids(&purged)), wanted, "the returned events");
    if let Some(changed) = storage.changed_since(mark).await? {
        assert_eq!(changed, wanted, "the feed entries");
    }
    let again = event(EventKind::Purged, &stored[0].1, at(3_000));
    assert_eq!(
        storage.handle().purge_keys(before, 1_000, &again).await?,
        [],
        "a second purge finds nothing"
    );
    Ok(())
}

async fn a_purge_stops_at_its_limit(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    for n in 1..=7 {
        let dead = Key { expires_at: Some(at(n)), ..key(&ada, n) };
        storage.add(&dead, &digest(n)).await?;
    }
    for (purged, left) in [(3, 4), (3, 1), (1, 0), (0, 0)] {
        let by = event(EventKind::Purged, &key(&ada, 1), at(200));
        let answer = storage.handle().purge_keys(at(100), 3, &by).await?;
        assert_eq!(answer.len(), purged, "at a limit of 3");
        assert_eq!(storage.keys((&ada).into()).await?.len(), left, "keys left");
    }
    let log = storage.log((&ada).into()).await?;
    let purges = log.iter().filter(|event| event.kind == EventKind::Purged);
    let named: BTreeSet<Option<KeyId>> = purges.clone().map(|event| event.key_id).collect();
    assert_eq!((purges.count(), named.len()), (7, 7), "an event for each of 7 keys");
    Ok(())
}

async fn racing_purges_remove_each_key_once(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        for n in (round * 1_000..).take(10) {
            let dead = Key { expires_at: Some(at(1)), ..key(&ada, n) };
            storage.add(&dead, &digest(n)).await?;
        }
        let answers = race(4, |_| {
            let (store, by) = (storage.handle(), event(EventKind::Purged, &key(&ada, 0), at(200)));
            async move {
                // A purge may skip keys that another purge is deleting, so each task repeats it.
                let mut purged = 0;
                loop {
                    match store.purge_keys(at(100), 3, &with_own_id(&by, purged)).await?.len() {
                        0 => return Ok(purged),
                        n => purged += n,
                    }
                }
            }
        });
        let purged: usize = answers.await.into_iter().sum::<Result<usize, StoreError>>()?;
        assert_eq!(purged, 10, "the sum of keys purged by four tasks");
        assert_eq!(storage.keys((&ada).into()).await?, [], "keys left");
        let log = storage.log((&ada).into()).await?;
        let events = log.iter().filter(|event| event.kind == EventKind::Purged).count();
        assert_eq!(events, 10, "events of ten purges");
    }
    Ok(())
}

/// The event of a task's next purge, with a new id.
fn with_own_id(by: &AuditEvent, purged: usize) -> AuditEvent {
    let mut id = *by.id.as_bytes();
    id[10] = purged as u8;
    AuditEvent { id: EventId::from_bytes(id), ..by.clone() }
}
