//! The change feed: every change at least once, or a report that some may be missing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    check::{CheckResult, Handle, TestStorage, checks, joined, race},
    fixtures::{at, digest, event, insert_key, key, owner, revocation},
    write_case::{Write, WriteCase},
};
use crate::{
    audit::{AuditQuery, EventKind},
    model::{Key, KeyId},
    store::{ChangeBatch, FeedMode, InsertOutcome, RevokeOutcome, StoreError},
};

checks![;
    ChangeFeed:
    every_change_enters_the_feed,
    without_a_cursor_the_feed_starts_at_its_end,
    a_reader_of_the_feed_misses_no_change,
    a_change_in_the_feed_is_already_visible,
    the_feed_reports_that_it_has_more,
    a_purge_is_reported_to_readers_that_missed_entries,
    a_purge_loses_no_entry_silently,
    an_unknown_cursor_is_reported_as_missed,
    an_announcement_feeds_each_key_of_the_owner_and_changes_nothing,
    an_announcement_feeds_disabled_and_expired_keys,
    a_change_ends_a_wait_that_started_before_it,
    a_change_ends_every_wait,
    every_kind_of_change_ends_a_wait,
    a_pushed_wait_ends_sooner_than_a_poll,
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
    let start = nothing(storage.handle().feed().changes(None).await?, "of an empty feed");
    nothing(storage.handle().feed().changes(Some(start)).await?, "at the end of an empty feed");
    for n in 1..=3 {
        storage.add(&key(&ada, n), &digest(n)).await?;
        let end = nothing(storage.handle().feed().changes(None).await?, "without a cursor");
        nothing(storage.handle().feed().changes(Some(end)).await?, "at the end");
        // The end includes every acknowledged change, and no later one.
        storage.add(&key(&ada, n + 10), &digest(n + 10)).await?;
        let changed = storage.read_feed(&mut end.clone()).await?;
        assert_eq!(changed, BTreeSet::from([key(&ada, n + 10).id]), "the change after the cursor");
    }
    let all = [1, 11, 2, 12, 3, 13].map(|n| key(&ada, n).id);
    assert_eq!(storage.read_feed(&mut start.clone()).await?, BTreeSet::from(all), "from the start");
    Ok(())
}

async fn every_change_enters_the_feed(storage: TestStorage) -> CheckResult {
    for (n, write) in (1..).zip(Write::ALL) {
        let case = WriteCase::new(write, n);
        case.prepare(&storage).await?;
        let mut cursor = storage.feed_end().await?;
        case.run(&*storage.handle()).await?;
        let wanted: BTreeSet<KeyId> = case.changed_keys().iter().map(|key| key.id).collect();
        assert_eq!(storage.read_feed(&mut cursor).await?, wanted, "the feed entries of {write:?}");
    }
    Ok(())
}

async fn a_reader_of_the_feed_misses_no_change(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        // Half of the tasks insert keys, half revoke existing keys. Each key changes once.
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
                    return read_while_writing(&store, &mut cursor, &writing).await;
                }
                let _guard = WriterGuard(writing);
                let mut changed = BTreeSet::new();
                for i in 0..4 {
                    let n = task / 2 * 4 + i;
                    let key = match task % 2 {
                        0 => old[n as usize].clone(),
                        _ => key(&owner(round), round * 1_000 + 500 + n),
                    };
                    insert_or_revoke(&store, &key, round * 1_000 + 500 + n, task % 2 == 0).await?;
                    changed.insert(key.id);
                }
                Ok(changed)
            }
        });
        let mut outcomes = outcomes.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let seen = outcomes.pop().expect("the reader is one of the tasks");
        let changed: BTreeSet<KeyId> = outcomes.into_iter().flatten().collect();
        let lost = changed.difference(&seen).count();
        assert_eq!(lost, 0, "changes missed by the reader, of {}", changed.len());
    }
    Ok(())
}

/// Enough for a store with a connection pool to have several transactions open concurrently.
const WRITERS: u64 = 16;

/// Counts a writer as finished when dropped, also if the store failed.
struct WriterGuard(Arc<AtomicU64>);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn insert_or_revoke(store: &Handle, key: &Key, n: u64, revoke: bool) -> CheckResult {
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

/// Reads the feed while writers are running, and then to its end.
async fn read_while_writing(
    store: &Handle,
    cursor: &mut u64,
    writing: &AtomicU64,
) -> Result<BTreeSet<KeyId>, StoreError> {
    let mut seen_keys = BTreeSet::new();
    loop {
        // Load before the read: the read must return every change acknowledged until now.
        let last = writing.load(Ordering::Acquire) == 0;
        let page = store.feed().changes(Some(*cursor)).await?;
        assert!(!page.missed, "the feed reports missed entries although none was removed");
        *cursor = page.cursor;
        seen_keys.extend(page.keys);
        if last && !page.more {
            return Ok(seen_keys);
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
                    let _guard = WriterGuard(writing);
                    for i in task * 4..task * 4 + 4 {
                        insert_or_revoke(&store, &keys[i as usize], round * 1_000 + i, false)
                            .await?;
                    }
                    return Ok(BTreeSet::new());
                }
                // A key read because of a feed entry must have the change.
                let mut seen_keys = BTreeSet::new();
                loop {
                    let last = writing.load(Ordering::Acquire) == 0;
                    let page = store.feed().changes(Some(cursor)).await?;
                    cursor = page.cursor;
                    for id in page.keys {
                        assert_visible(&store, &keys, id).await?;
                        seen_keys.insert(id);
                    }
                    if last && !page.more {
                        return Ok(seen_keys);
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let seen_keys: Result<Vec<_>, StoreError> = outcomes.await.into_iter().collect();
        let seen_keys: BTreeSet<KeyId> = seen_keys?.into_iter().flatten().collect();
        assert_eq!(seen_keys.len(), 12, "changes were lost");
    }
    Ok(())
}

async fn assert_visible(store: &Handle, keys: &[Key], id: KeyId) -> CheckResult {
    let owner = &keys[0].owner;
    let key = store.get(owner.into(), id).await?;
    assert!(key.is_some(), "the feed had a change before its key was readable");
    let log = store.events(&AuditQuery::new(owner).key(id)).await?;
    assert_eq!(log.len(), 1, "the feed had a change before its audit event was readable");
    Ok(())
}

async fn the_feed_reports_that_it_has_more(storage: TestStorage) -> CheckResult {
    let mut cursor = storage.feed_end().await?;
    // More entries than any reasonable page size.
    let outcomes = race(WRITERS, |task| {
        let store = storage.handle();
        async move {
            for n in task * 100..task * 100 + 75 {
                insert_or_revoke(&store, &key(&owner(task), n), n, false).await?;
            }
            Ok(())
        }
    });
    outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
    let mut pages = 0;
    let mut seen_keys = Vec::new();
    loop {
        let page = storage.handle().feed().changes(Some(cursor)).await?;
        pages += 1;
        let forward = page.cursor > cursor || !page.more;
        assert!(
            forward && pages <= 1_200,
            "the feed has more entries, but its cursor does not move"
        );
        cursor = page.cursor;
        seen_keys.extend(page.keys);
        if !page.more {
            break;
        }
    }
    let distinct: BTreeSet<KeyId> = seen_keys.iter().copied().collect();
    assert_eq!(distinct.len(), 1_200, "changes read until the feed reported no more");
    let end = storage.handle().feed().changes(Some(cursor)).await?;
    assert_eq!((end.keys, end.more), (vec![], false), "after the last entry");
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
    assert_eq!(
        storage.handle().feed().purge_changes(at(1)).await?,
        0,
        "no entry is older than the first"
    );
    assert_eq!(storage.read_feed(&mut start.clone()).await?.len(), 6, "no entry was removed");
    assert_eq!(
        storage.handle().feed().purge_changes(at(4)).await?,
        3,
        "three entries are older than the fourth"
    );

    for (i, cursor) in [start].iter().chain(&cursors).enumerate() {
        let page = storage.handle().feed().changes(Some(*cursor)).await?;
        assert_eq!(
            page.missed,
            i < 3,
            "a reader that has read {i} of 6 entries, after the first 3 were removed"
        );
    }
    // All entries are removed: a reader at the end missed nothing, all others did.
    assert_eq!(storage.handle().feed().purge_changes(at(100)).await?, 3);
    for (i, cursor) in [start].iter().chain(&cursors).enumerate() {
        let page = storage.handle().feed().changes(Some(*cursor)).await?;
        assert_eq!(
            page.missed,
            i < 6,
            "a reader that has read {i} of 6 entries, after all were removed"
        );
    }
    let page = storage.handle().feed().changes(Some(start)).await?;
    assert_reader_continues(&storage, page.cursor, 10).await
}

/// The instants of entries need not be in order, because the clocks of nodes differ.
async fn a_purge_loses_no_entry_silently(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let start = storage.feed_end().await?;
    let mut cursors = vec![start];
    let instants = [1, 20, 2, 21, 3];
    for (n, second) in (1..).zip(instants) {
        storage.add(&Key { created_at: at(second), ..key(&ada, n) }, &digest(n)).await?;
        cursors.push(storage.feed_end().await?);
    }
    let removed = storage.handle().feed().purge_changes(at(10)).await?;
    assert!(
        (1..=3).contains(&removed),
        "{removed} removed; three are old, and at least the first must be removed"
    );
    for (seen, cursor) in cursors.into_iter().enumerate() {
        let page = storage.handle().feed().changes(Some(cursor)).await?;
        let seen_keys = BTreeSet::from_iter(page.keys);
        let complete = (seen + 1..=5).all(|n| seen_keys.contains(&key(&ada, n as u64).id));
        assert!(
            complete || page.missed,
            "a reader that has read {seen} of 5 entries missed one silently"
        );
    }
    Ok(())
}

async fn an_unknown_cursor_is_reported_as_missed(storage: TestStorage) -> CheckResult {
    storage.add(&key(&owner(1), 1), &digest(1)).await?;
    let end = storage.feed_end().await?;
    // A node has such a cursor after its store was emptied or restored from a backup.
    for (n, ahead) in [(2, 1_000), (3, i64::MAX as u64 / 2)] {
        let page = storage.handle().feed().changes(Some(end + ahead)).await?;
        assert!(page.missed, "a cursor {ahead} after the end was not reported");
        assert_reader_continues(&storage, page.cursor, n).await?;
    }
    Ok(())
}

async fn an_announcement_feeds_disabled_and_expired_keys(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let disabled = Key { disabled_at: Some(at(1)), ..key(&ada, 1) };
    let expired = Key { expires_at: Some(at(2)), ..key(&ada, 2) };
    storage.add(&disabled, &digest(1)).await?;
    storage.add(&expired, &digest(2)).await?;
    let mut cursor = storage.feed_end().await?;
    // A node whose clock is behind may have cached the expired key.
    assert_eq!(storage.handle().feed().announce_account_change(&ada, at(50)).await?, 2);
    assert_eq!(storage.read_feed(&mut cursor).await?, [disabled.id, expired.id].into());
    Ok(())
}

/// Asserts that a reader that missed entries can continue from the returned cursor.
async fn assert_reader_continues(storage: &TestStorage, mut cursor: u64, n: u64) -> CheckResult {
    storage.read_feed(&mut cursor).await?;
    let key = key(&owner(2), n);
    storage.add(&key, &digest(n)).await?;
    let seen_keys = storage.read_feed(&mut cursor).await?;
    assert!(seen_keys.contains(&key.id), "a change after the report of missed entries");
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
    assert_eq!(storage.handle().feed().announce_account_change(&ada, at(2)).await?, 2);
    let after = (storage.keys((&ada).into()).await?, storage.log((&ada).into()).await?);
    assert_eq!(before, after, "an announcement changed a key or the log");
    let seen_keys = storage.read_feed(&mut cursor).await?;
    assert_eq!(seen_keys, [1, 2].map(|n| key(&ada, n).id).into(), "the keys that are not revoked");
    assert_eq!(
        storage.handle().feed().announce_account_change(&owner(9), at(3)).await?,
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
        let waiting =
            tokio::spawn(async move { store.feed().wait_for_changes(end, LONG_WAIT).await });
        // For odd numbers the wait has most likely started before the change, for even ones not.
        for _ in 0..(n % 2) * 100 {
            tokio::task::yield_now().await;
        }
        storage.add(&key(&ada, n), &digest(n)).await?;
        let woken = timeout(storage.patience(), waiting).await;
        let _feed = joined(woken.expect("a change did not end the wait"))?;
    }
    Ok(())
}

async fn a_change_ends_every_wait(storage: TestStorage) -> CheckResult {
    for n in 1..=5 {
        let end = storage.feed_end().await?;
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let store = storage.handle();
                tokio::spawn(async move { store.feed().wait_for_changes(end, LONG_WAIT).await })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        storage.add(&key(&owner(1), n), &digest(n)).await?;
        for wait in waits {
            let woken = timeout(storage.patience(), wait).await;
            let _feed = joined(woken.expect("a change ended some waits, but not all"))?;
        }
    }
    Ok(())
}

async fn every_kind_of_change_ends_a_wait(storage: TestStorage) -> CheckResult {
    for (n, write) in (1..).zip(Write::ALL) {
        let case = WriteCase::new(write, n);
        if case.changed_keys().is_empty() {
            continue;
        }
        case.prepare(&storage).await?;
        let change = async || case.run(&*storage.handle()).await;
        assert_ends_a_wait(&storage, change, &format!("{write:?}")).await?;
    }
    let ada = owner(1);
    storage.add(&key(&ada, 900), &digest(900)).await?;
    let announce = async || {
        let announced = storage.handle().feed().announce_account_change(&ada, at(1)).await?;
        assert_eq!(announced, 1);
        Ok(())
    };
    assert_ends_a_wait(&storage, announce, "an announcement").await
}

async fn assert_ends_a_wait(
    storage: &TestStorage,
    change: impl AsyncFnOnce() -> CheckResult,
    what: &str,
) -> CheckResult {
    let end = storage.feed_end().await?;
    let store = storage.handle();
    let waiting = tokio::spawn(async move { store.feed().wait_for_changes(end, LONG_WAIT).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    change().await?;
    let woken = timeout(storage.patience(), waiting).await;
    let _feed = joined(woken.unwrap_or_else(|_| panic!("{what} did not end a wait")))?;
    Ok(())
}

async fn a_pushed_wait_ends_sooner_than_a_poll(storage: TestStorage) -> CheckResult {
    // A busy machine may delay many waits, but hardly three times in a row.
    for attempt in 0..3 {
        let started = Instant::now();
        for n in 0..PUSHES {
            let end = storage.feed_end().await?;
            let store = storage.handle();
            let waiting =
                tokio::spawn(async move { store.feed().wait_for_changes(end, LONG_WAIT).await });
            tokio::task::yield_now().await;
            let n = attempt * 1_000 + n;
            storage.add(&key(&owner(1), n), &digest(n)).await?;
            let woken = timeout(storage.patience() * 10, waiting).await;
            match joined(woken.expect("a change did not end the wait"))? {
                FeedMode::Pushed => {}
                FeedMode::Polled => return Ok(()),
            }
        }
        if started.elapsed() <= storage.patience() {
            return Ok(());
        }
    }
    panic!(
        "{PUSHES} waits in a row took longer than {:?}, three times: a store that polls must return `Polled`",
        storage.patience()
    )
}

async fn a_wait_for_an_existing_change_ends(storage: TestStorage) -> CheckResult {
    let before = storage.feed_end().await?;
    storage.add(&key(&owner(1), 1), &digest(1)).await?;
    for _ in 0..3 {
        let woken = timeout(
            storage.patience(),
            storage.handle().feed().wait_for_changes(before, LONG_WAIT),
        )
        .await;
        let _feed = woken.expect("a change before the wait did not end it")?;
    }
    Ok(())
}

async fn a_wait_without_a_change_times_out(storage: TestStorage) -> CheckResult {
    let end = storage.feed_end().await?;
    for at_most in [Duration::ZERO, Duration::from_millis(5)] {
        let ended =
            timeout(storage.patience(), storage.handle().feed().wait_for_changes(end, at_most))
                .await;
        let _feed = ended.expect("a wait took longer than its limit")?;
    }
    Ok(())
}

/// With the default patience of 5 seconds, a wait may take 250 ms on average.
const PUSHES: u64 = 20;
/// Longer than the patience of the suite, so that a wait that ends was woken up.
const LONG_WAIT: Duration = Duration::from_secs(3_600);
