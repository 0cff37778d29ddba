//! Dropped futures: a write whose future is dropped happens as a whole or not at all.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    check::{
        CheckResult, MAX_POLLS, Snapshot, TestStorage, Watch, added_events, checks, poll_at_most,
    },
    fixtures::{at, digest, event, key, revocation},
    write_case::{Write, WriteCase},
};
use crate::{
    audit::EventKind,
    store::{MemoryStore, StoreError},
};

checks![
    a_dropped_insert_is_atomic,
    a_dropped_update_is_atomic,
    a_dropped_rotation_is_atomic,
    a_dropped_revocation_is_atomic,
    a_dropped_revoke_all_is_atomic,
    a_dropped_deletion_is_atomic,
    a_dropped_purge_is_atomic,
    a_dropped_record_of_a_use_is_atomic,
    a_dropped_rehash_is_atomic,
];

async fn a_dropped_insert_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Insert).await
}

async fn a_dropped_update_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Update).await
}

async fn a_dropped_rotation_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Rotate).await?;
    drop_at_every_point(&storage, Write::Replace).await
}

async fn a_dropped_revocation_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Revoke).await
}

async fn a_dropped_revoke_all_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::RevokeAll).await
}

async fn a_dropped_deletion_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Delete).await
}

async fn a_dropped_purge_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Purge).await
}

async fn a_dropped_record_of_a_use_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::RecordUse).await
}

async fn a_dropped_rehash_is_atomic(storage: TestStorage) -> CheckResult {
    drop_at_every_point(&storage, Write::Rehash).await
}

/// Makes a write again and again, dropped one poll later each time, until it gets done.
async fn drop_at_every_point(storage: &TestStorage, write: Write) -> CheckResult {
    for polls in 0..MAX_POLLS {
        let case = WriteCase::new(write, write as u64 * MAX_POLLS + polls);
        case.prepare(storage).await?;
        let watch = Watch::start(storage, case.owner.tenant(), case.digests()).await?;
        let watch = watch.only(&case.keys);
        let before = watch.snapshot().await?;
        let after = as_in_memory(&case).await?;

        let store = storage.handle();
        let done = poll_at_most(polls, case.run(&*store)).await.transpose()?.is_some();
        settle(&watch, &case, &before, &after, done, polls).await?;
        still_works(storage, &case).await?;
        if done {
            return Ok(());
        }
    }
    panic!("{write:?} was not done after {MAX_POLLS} polls")
}

/// Waits until the write is whole or undone. A store may finish in the background what it began,
/// so a state between the two is wrong only if it stays.
async fn settle(
    watch: &Watch<'_>,
    case: &WriteCase,
    before: &Snapshot,
    after: &Snapshot,
    done: bool,
    polls: u64,
) -> CheckResult {
    let deadline = watch.storage.deadline();
    loop {
        let seen = watch.snapshot().await?;
        if is_whole(&seen, case, before, after) || (!done && seen == *before) {
            return Ok(());
        }
        let write = case.write;
        assert!(!done, "{write:?} was acknowledged, and is not whole: {seen:#?}");
        let late = Instant::now() > deadline;
        assert!(!late, "{write:?}, dropped after {polls} polls, was left half done: {seen:#?}");
        tokio::task::yield_now().await;
    }
}

/// Whether keys, secrets, log and feed all have it.
fn is_whole(seen: &Snapshot, case: &WriteCase, before: &Snapshot, after: &Snapshot) -> bool {
    let changed: BTreeSet<_> = case.changed_keys().iter().map(|key| key.id).collect();
    seen.keys == after.keys
        && seen.secrets == after.secrets
        && seen.told == changed
        && added_events(&seen.log, &before.log).map(|new| case.comparable(new))
            == Some(case.comparable(case.expected_events()))
}

/// What the write has to come to. The checks of each write on its own have shown that a store does
/// as the one in memory does; here, it saves saying it all again.
async fn as_in_memory(case: &WriteCase) -> Result<Snapshot, StoreError> {
    let memory = TestStorage::new(vec![Arc::new(MemoryStore::new())], 1, Duration::ZERO);
    case.prepare(&memory).await?;
    case.run(&*memory.handle()).await?;
    Watch::start(&memory, case.owner.tenant(), case.digests()).await?.snapshot().await
}

/// Nothing stays locked behind a write that was dropped: the same keys can be written again.
async fn still_works(storage: &TestStorage, case: &WriteCase) -> CheckResult {
    let n = case.first + 9;
    storage.add(&key(&case.owner, n), &digest(n)).await?;
    let by = revocation(&case.keys[0], at(99), "the end");
    storage.handle().revoke_all(&case.owner, &by).await?;
    let left = storage.keys((&case.owner).into()).await?;
    assert!(left.iter().all(|key| key.revoked.is_some()), "revoked together after a dropped write");
    // The next purge is to find no more than the last one.
    for key in left {
        let deleted = event(EventKind::Deleted, &key, at(99));
        storage.handle().delete((&case.owner).into(), key.id, &deleted).await?;
    }
    Ok(())
}
