//! The change feed: every change at least once, or a report that some may be missing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{
    check::{CheckResult, TestStorage, checks, joined, race},
    fixtures::{at, digest, event, insert_key, key, owner, revocation},
};
use crate::{
    audit::{AuditQuery, EventKind},
    model::{Key, KeyId},
    store::{ChangeBatch, InsertOutcome, KeyStore, RevokeOutcome, StoreError},
};

checks![
    without_a_cursor_the_feed_starts_at_its_end,
    a_reader_of_the_feed_misses_no_change,
    a_change_in_the_feed_is_already_visible,
    the_feed_reports_that_it_has_more,
    a_purge_is_reported_to_readers_that_missed_entries,
    a_purge_loses_no_entry_silently,
    an_unknown_cursor_is_reported_as_missed,
    an_announcement_feeds_each_key_of_the_owner_and_changes_nothing,
    a_change_ends_a_wait_that_started_before_it,
    a_wait_for_an_existing_change_ends,
    a_wait_without_a_change_times_out,
];

async fn without_a_cursor_the_feed_starts_at_its_end(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let nothing = |changes: ChangeBatch, when: &str| {
        let ChangeBatch { keys, cursor, missed, more } = changes;
        assert_eq!((&keys[..], missed, more), (&[][..], false, false), "{when}");
        cursor
    };
    let start = nothing(storage.handle().changes(None).await?, "of an empty feed");
    nothing(storage.handle().changes(Some(start)).await?, "at the end of an empty feed");
    for n in 1..=3 {
        storage.add(&key(&ada, n), &digest(n)).await?;
        let end = nothing(storage.handle().changes(None).await?, "without a cursor");
        nothing(storage.handle().changes(Some(end)).await?, "at the end");
        // At the end is at the end of all that was acknowledged, not of what is yet to come.
        storage.add(&key(&ada, n + 10), &digest(n + 10)).await?;
        let told = storage.follow(&mut end.clone()).await?;
        assert_eq!(told, BTreeSet::from([key(&ada, n + 10).id]), "the change behind the cursor");
    }
    let all = [1, 11, 2, 12, 3, 13].map(|n| key(&ada, n).id);
    assert_eq!(storage.follow(&mut start.clone()).await?, BTreeSet::from(all), "from the start");
    Ok(())
}

async fn a_reader_of_the_feed_misses_no_change(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        // Half of the tasks add keys, half revoke keys that are there: each key changes once.
        let old: Vec<Key> = (0..32).map(|i| key(&owner(round), round * 1_000 + i)).collect();
        for (n, key) in (round * 1_000..).zip(&old) {
            storage.add(key, &digest(n)).await?;
        }
        let mut cursor = storage.feed_end().await?;
        let writing = Arc::new(AtomicU64::new(WRITERS));
        let outcomes = race(WRITERS + 1, |task| {
            let (store, old, writing) = (storage.handle(), old.clone(), writing.clone());
            async move {
                if task == WRITERS {
                    return follow_writers(&*store, &mut cursor, &writing).await;
                }
                let _until_done = Writer(writing);
                let mut changed = BTreeSet::new();
                for i in 0..4 {
                    let n = task / 2 * 4 + i;
                    let key = match task % 2 {
                        0 => old[n as usize].clone(),
                        _ => key(&owner(round), round * 1_000 + 500 + n),
                    };
                    change(&*store, &key, round * 1_000 + 500 + n, task % 2 == 0).await?;
                    changed.insert(key.id);
                }
                Ok(changed)
            }
        });
        let mut outcomes = outcomes.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let told = outcomes.pop().expect("the reader is one of the tasks");
        let changed: BTreeSet<KeyId> = outcomes.into_iter().flatten().collect();
        let lost = changed.difference(&told).count();
        assert_eq!(lost, 0, "changes lost of {} to a reader that followed", changed.len());
    }
    Ok(())
}

/// Sixteen, so that a store with a pool has many transactions open at once.
const WRITERS: u64 = 16;

/// One of those who still write; a store that fails ends a writer early.
struct Writer(Arc<AtomicU64>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn change(store: &dyn KeyStore, key: &Key, n: u64, revoke: bool) -> CheckResult {
    if revoke {
        let by = revocation(key, at(1), "");
        assert_eq!(store.revoke((&key.owner).into(), key.id, &by).await?, RevokeOutcome::Revoked);
    } else {
        let by = event(EventKind::Created, key, at(1));
        let inserted = store.insert(insert_key(key, &digest(n), None, &by)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted);
    }
    Ok(())
}

/// Follows the feed as long as somebody writes, and then to its end.
async fn follow_writers(
    store: &dyn KeyStore,
    cursor: &mut u64,
    writing: &AtomicU64,
) -> Result<BTreeSet<KeyId>, StoreError> {
    let mut told = BTreeSet::new();
    loop {
        // Before the read: what was acknowledged by now must be in it.
        let last = writing.load(Ordering::Acquire) == 0;
        let page = store.changes(Some(*cursor)).await?;
        assert!(!page.missed, "nothing was removed from the feed, so nothing was missed");
        *cursor = page.cursor;
        told.extend(page.keys);
        if last && !page.more {
            return Ok(told);
        }
        tokio::task::yield_now().await;
    }
}

async fn a_change_in_the_feed_is_already_visible(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        let mut cursor = storage.feed_end().await?;
        let keys: Vec<Key> = (0..12).map(|i| key(&ada, round * 1_000 + i)).collect();
        let writing = Arc::new(AtomicU64::new(3));
        let outcomes = race(4, |task| {
            let (store, keys, writing) = (storage.handle(), keys.clone(), writing.clone());
            async move {
                if task < 3 {
                    let _until_done = Writer(writing);
                    for i in task * 4..task * 4 + 4 {
                        change(&*store, &keys[i as usize], round * 1_000 + i, false).await?;
                    }
                    return Ok(BTreeSet::new());
                }
                // Whoever reads the key because the feed told of it must find it changed.
                let mut told = BTreeSet::new();
                loop {
                    let last = writing.load(Ordering::Acquire) == 0;
                    let page = store.changes(Some(cursor)).await?;
                    cursor = page.cursor;
                    for id in page.keys {
                        assert_happened(&*store, &keys, id).await?;
                        told.insert(id);
                    }
                    if last && !page.more {
                        return Ok(told);
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let told: Result<Vec<_>, StoreError> = outcomes.await.into_iter().collect();
        let told: BTreeSet<KeyId> = told?.into_iter().flatten().collect();
        assert_eq!(told.len(), 12, "changes were lost");
    }
    Ok(())
}

async fn assert_happened(store: &dyn KeyStore, keys: &[Key], id: KeyId) -> CheckResult {
    let owner = &keys[0].owner;
    let key = store.get(owner.into(), id).await?;
    assert!(key.is_some(), "the feed told of a key before it was there");
    let log = store.events(&AuditQuery::new(owner).key(id)).await?;
    assert_eq!(log.len(), 1, "the feed told of a change before its event was there");
    Ok(())
}

async fn the_feed_reports_that_it_has_more(storage: TestStorage) -> CheckResult {
    let mut cursor = storage.feed_end().await?;
    // More than a page, whatever a store takes for one, within reason.
    let outcomes = race(WRITERS, |task| {
        let store = storage.handle();
        async move {
            for n in task * 100..task * 100 + 75 {
                change(&*store, &key(&owner(task), n), n, false).await?;
            }
            Ok(())
        }
    });
    outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
    let mut pages = 0;
    let mut told = Vec::new();
    loop {
        let page = storage.handle().changes(Some(cursor)).await?;
        pages += 1;
        let forward = page.cursor > cursor || !page.more;
        assert!(forward && pages <= 1_200, "a feed that has more goes forward");
        cursor = page.cursor;
        told.extend(page.keys);
        if !page.more {
            break;
        }
    }
    let distinct: BTreeSet<KeyId> = told.iter().copied().collect();
    assert_eq!(distinct.len(), 1_200, "changes told of when the feed says that there are no more");
    let end = storage.handle().changes(Some(cursor)).await?;
    assert_eq!((end.keys, end.more), (vec![], false), "behind the last of them");
    Ok(())
}

async fn a_purge_is_reported_to_readers_that_missed_entries(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let start = storage.feed_end().await?;
    let mut cursors = Vec::new();
    for n in 1..=6 {
        let key = Key { created_at: at(n), ..key(&ada, n) };
        storage.add(&key, &digest(n)).await?;
        cursors.push(storage.feed_end().await?);
    }
    assert_eq!(storage.handle().purge_changes(at(1)).await?, 0, "nothing is from before the first");
    assert_eq!(storage.follow(&mut start.clone()).await?.len(), 6, "nothing was removed");
    assert_eq!(storage.handle().purge_changes(at(4)).await?, 3, "three are from before the fourth");

    for (i, cursor) in [start].iter().chain(&cursors).enumerate() {
        let page = storage.handle().changes(Some(*cursor)).await?;
        assert_eq!(page.missed, i < 3, "a reader who had seen {i} of 6, the first 3 of them gone");
    }
    // Everything is gone: who stands at the end has missed nothing, and all others have.
    assert_eq!(storage.handle().purge_changes(at(100)).await?, 3);
    for (i, cursor) in [start].iter().chain(&cursors).enumerate() {
        let page = storage.handle().changes(Some(*cursor)).await?;
        assert_eq!(page.missed, i < 6, "a reader who had seen {i} of 6, all of them gone");
    }
    let page = storage.handle().changes(Some(start)).await?;
    goes_on(&storage, page.cursor, 10).await
}

/// Entries need not be as old as their place says: clocks of nodes differ.
async fn a_purge_loses_no_entry_silently(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let start = storage.feed_end().await?;
    let mut cursors = vec![start];
    let instants = [1, 20, 2, 21, 3];
    for (n, second) in (1..).zip(instants) {
        storage.add(&Key { created_at: at(second), ..key(&ada, n) }, &digest(n)).await?;
        cursors.push(storage.feed_end().await?);
    }
    let removed = storage.handle().purge_changes(at(10)).await?;
    assert!((1..=3).contains(&removed), "{removed} removed; three are old, and the first must go");
    for (seen, cursor) in cursors.into_iter().enumerate() {
        let page = storage.handle().changes(Some(cursor)).await?;
        let told = BTreeSet::from_iter(page.keys);
        let whole = (seen + 1..=5).all(|n| told.contains(&key(&ada, n as u64).id));
        assert!(
            whole || page.missed,
            "a reader who had seen {seen} of 5 missed something silently"
        );
    }
    Ok(())
}

async fn an_unknown_cursor_is_reported_as_missed(storage: TestStorage) -> CheckResult {
    storage.add(&key(&owner(1), 1), &digest(1)).await?;
    let end = storage.feed_end().await?;
    // As a node has it whose store was emptied, or restored from a backup.
    for (n, ahead) in [(2, 1_000), (3, i64::MAX as u64 / 2)] {
        let page = storage.handle().changes(Some(end + ahead)).await?;
        assert!(page.missed, "a cursor {ahead} behind the end is of another life");
        goes_on(&storage, page.cursor, n).await?;
    }
    Ok(())
}

/// Whoever was told that it missed something can go on from there, and misses nothing more.
async fn goes_on(storage: &TestStorage, mut cursor: u64, n: u64) -> CheckResult {
    storage.follow(&mut cursor).await?;
    let key = key(&owner(2), n);
    storage.add(&key, &digest(n)).await?;
    let told = storage.follow(&mut cursor).await?;
    assert!(told.contains(&key.id), "a change after the reader was told that it missed some");
    Ok(())
}

async fn an_announcement_feeds_each_key_of_the_owner_and_changes_nothing(
    storage: TestStorage,
) -> CheckResult {
    let (ada, bob) = (owner(1), owner(2));
    for n in 1..=3 {
        storage.add(&key(&ada, n), &digest(n)).await?;
    }
    storage.add(&key(&bob, 4), &digest(4)).await?;
    let revoked = key(&ada, 3);
    let by = revocation(&revoked, at(1), "");
    assert_eq!(
        storage.handle().revoke((&ada).into(), revoked.id, &by).await?,
        RevokeOutcome::Revoked
    );

    let mut cursor = storage.feed_end().await?;
    let before = (storage.keys((&ada).into()).await?, storage.log((&ada).into()).await?);
    assert_eq!(storage.handle().announce_account_change(&ada, at(2)).await?, 2);
    let after = (storage.keys((&ada).into()).await?, storage.log((&ada).into()).await?);
    assert_eq!(before, after, "an announcement changes nothing");
    let told = storage.follow(&mut cursor).await?;
    assert_eq!(told, [1, 2].map(|n| key(&ada, n).id).into(), "the keys that live");
    assert_eq!(
        storage.handle().announce_account_change(&owner(9), at(3)).await?,
        0,
        "an owner without keys"
    );
    Ok(())
}

async fn a_change_ends_a_wait_that_started_before_it(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    for n in 1..=10 {
        let end = storage.feed_end().await?;
        let store = storage.handle();
        let waiting = tokio::spawn(async move { store.wait_for_changes(end, FAR_AWAY).await });
        // With an even number the wait has most likely begun by then, with an odd one it has not.
        for _ in 0..(n % 2) * 100 {
            tokio::task::yield_now().await;
        }
        storage.add(&key(&ada, n), &digest(n)).await?;
        let woken = timeout(storage.patience(), waiting).await;
        let _feed = joined(woken.expect("nobody woke the one who waits for a change"))?;
    }
    Ok(())
}

async fn a_wait_for_an_existing_change_ends(storage: TestStorage) -> CheckResult {
    let before = storage.feed_end().await?;
    storage.add(&key(&owner(1), 1), &digest(1)).await?;
    for _ in 0..3 {
        let woken =
            timeout(storage.patience(), storage.handle().wait_for_changes(before, FAR_AWAY)).await;
        let _feed = woken.expect("a change that was there before the wait did not end it")?;
    }
    Ok(())
}

async fn a_wait_without_a_change_times_out(storage: TestStorage) -> CheckResult {
    let end = storage.feed_end().await?;
    for at_most in [Duration::ZERO, Duration::from_millis(5)] {
        let ended =
            timeout(storage.patience(), storage.handle().wait_for_changes(end, at_most)).await;
        let _feed = ended.expect("a wait went on behind its end")?;
    }
    Ok(())
}

/// Being woken is told from waiting until the end by this: the suite is not that patient.
const FAR_AWAY: Duration = Duration::from_secs(3_600);
