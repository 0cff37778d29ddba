//! Dropped futures: a write whose future is dropped happens as a whole or not at all.

use std::{collections::BTreeSet, time::Instant};

use super::{
    check::{
        CheckResult, MAX_POLLS, Snapshot, TestStorage, Watch, added_events, checks, poll_at_most,
    },
    fixtures::{at, digest, event, key, revocation},
    write_case::{Write, WriteCase},
};
use crate::{audit::EventKind, store::StoreError};

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

/// Repeats a write, dropped one poll later each time, until it completes.
async fn drop_at_every_point(storage: &TestStorage, write: Write) -> CheckResult {
    for polls in 0..MAX_POLLS {
        let case = WriteCase::new(write, write as u64 * MAX_POLLS + polls);
        case.prepare(storage).await?;
        let watch = Watch::start(storage, case.owner.tenant(), case.digests()).await?;
        let watch = watch.only(&case.keys);
        let before = watch.snapshot().await?;
        let after = expected_after(&case).await?;

        let store = storage.handle();
        let done = poll_at_most(polls, case.run(&*store)).await.transpose()?.is_some();
        wait_until_settled(&watch, &case, &before, &after, done, polls).await?;
        assert_usable(storage, &case).await?;
        if done {
            return Ok(());
        }
    }
    panic!("{write:?} was not done after {MAX_POLLS} polls")
}

/// Waits until the write is complete or undone. A store may finish a dropped write in the
/// background, so an intermediate state is an error only if it persists.
async fn wait_until_settled(
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
        if is_complete(&seen, watch, case, before, after) || (!done && seen == *before) {
            return Ok(());
        }
        let write = case.write;
        assert!(!done, "{write:?} was acknowledged, but is not complete: {seen:#?}");
        let late = Instant::now() > deadline;
        assert!(!late, "{write:?}, dropped after {polls} polls, was left half done: {seen:#?}");
        tokio::task::yield_now().await;
    }
}

/// Returns whether keys, secrets, log and feed all have the write.
fn is_complete(
    seen: &Snapshot,
    watch: &Watch<'_>,
    case: &WriteCase,
    before: &Snapshot,
    after: &Snapshot,
) -> bool {
    let fed = if watch.storage.has_feed() { case.changed_keys() } else { &[] };
    let changed: BTreeSet<_> = fed.iter().map(|key| key.id).collect();
    seen.keys == after.keys
        && seen.secrets == after.secrets
        && seen.changed == changed
        && added_events(&seen.log, &before.log).map(|new| case.comparable(new))
            == Some(case.comparable(case.expected_events()))
}

/// Returns the expected state after the write: the state of a memory store. Other checks assert that
/// each write has the right effect, so this one need not repeat it.
async fn expected_after(case: &WriteCase) -> Result<Snapshot, StoreError> {
    let memory = TestStorage::in_memory();
    case.prepare(&memory).await?;
    case.run(&*memory.handle()).await?;
    Watch::start(&memory, case.owner.tenant(), case.digests()).await?.snapshot().await
}

/// Asserts that a dropped write left no lock: the same keys can be written again.
async fn assert_usable(storage: &TestStorage, case: &WriteCase) -> CheckResult {
    let n = case.first + 9;
    storage.add(&key(&case.owner, n), &digest(n)).await?;
    let by = revocation(&case.keys[0], at(99), "the end");
    storage.handle().revoke_all(&case.owner, &by).await?;
    let left = storage.keys((&case.owner).into()).await?;
    assert!(
        left.iter().all(|key| key.revoked.is_some()),
        "revoke_all after a dropped write revoked every key"
    );
    // Remove the keys, so that later purges do not find them.
    for key in left {
        let deleted = event(EventKind::Deleted, &key, at(99));
        storage.handle().delete((&case.owner).into(), key.id, &deleted).await?;
    }
    Ok(())
}
