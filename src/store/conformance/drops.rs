//! Dropped futures: a client that hangs up in the middle of a write leaves it whole or undone.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    deed::{Deed, Write},
    sample::{at, digest, event, key, revocation},
    storage::{Checked, Storage},
    suite::checks,
    view::{View, Watch, added},
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

async fn a_dropped_insert_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Insert).await
}

async fn a_dropped_update_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Update).await
}

async fn a_dropped_rotation_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Rotate).await?;
    drop_at_every_point(&storage, Write::Replace).await
}

async fn a_dropped_revocation_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Revoke).await
}

async fn a_dropped_revoke_all_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::RevokeAll).await
}

async fn a_dropped_deletion_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Delete).await
}

async fn a_dropped_purge_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Retention).await
}

async fn a_dropped_record_of_a_use_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Touch).await
}

async fn a_dropped_rehash_is_atomic(storage: Storage) -> Checked {
    drop_at_every_point(&storage, Write::Rehash).await
}

/// Makes a write again and again, dropped one poll later each time, until it gets done.
async fn drop_at_every_point(storage: &Storage, write: Write) -> Checked {
    for polls in 0..MOST_POLLS {
        let deed = Deed::new(write, write as u64 * MOST_POLLS + polls);
        deed.prepare(storage).await?;
        let watch = Watch::begin(storage, deed.owner.tenant(), deed.digests()).await?;
        let watch = watch.only(&deed.keys);
        let before = watch.look().await?;
        let after = as_in_memory(&deed).await?;

        let store = storage.any();
        let done = poll_for_a_while(polls, deed.make(&*store)).await.transpose()?.is_some();
        settle(&watch, &deed, &before, &after, done, polls).await?;
        still_works(storage, &deed).await?;
        if done {
            return Ok(());
        }
    }
    panic!("{write:?} was not done after {MOST_POLLS} polls")
}

/// Waits until the write is whole or undone. A store may finish in the background what it began,
/// so a state between the two is wrong only if it stays.
async fn settle(
    watch: &Watch<'_>,
    deed: &Deed,
    before: &View,
    after: &View,
    done: bool,
    polls: u64,
) -> Checked {
    let deadline = watch.storage.deadline();
    loop {
        let seen = watch.look().await?;
        if is_whole(&seen, deed, before, after) || (!done && seen == *before) {
            return Ok(());
        }
        let write = deed.write;
        assert!(!done, "{write:?} was acknowledged, and is not whole: {seen:#?}");
        let late = Instant::now() > deadline;
        assert!(!late, "{write:?}, dropped after {polls} polls, was left half done: {seen:#?}");
        tokio::task::yield_now().await;
    }
}

/// Whether keys, secrets, log and feed all have it.
fn is_whole(seen: &View, deed: &Deed, before: &View, after: &View) -> bool {
    let changed: BTreeSet<_> = deed.changed().iter().map(|key| key.id).collect();
    seen.keys == after.keys
        && seen.secrets == after.secrets
        && seen.told == changed
        && added(&seen.log, &before.log).map(|new| deed.alike(new))
            == Some(deed.alike(deed.logged()))
}

/// What the write has to come to. The checks of each write on its own have shown that a store does
/// as the one in memory does; here, it saves saying it all again.
async fn as_in_memory(deed: &Deed) -> Result<View, StoreError> {
    let memory = Storage::new(vec![Arc::new(MemoryStore::new())], 1, Duration::ZERO);
    deed.prepare(&memory).await?;
    deed.make(&*memory.any()).await?;
    Watch::begin(&memory, deed.owner.tenant(), deed.digests()).await?.look().await
}

/// Nothing stays locked behind a write that was dropped: the same keys can be written again.
async fn still_works(storage: &Storage, deed: &Deed) -> Checked {
    let n = deed.first + 9;
    storage.add(&key(&deed.owner, n), &digest(n)).await?;
    let by = revocation(&deed.keys[0], at(99), "the end");
    storage.any().revoke_all(&deed.owner, &by).await?;
    let left = storage.keys((&deed.owner).into()).await?;
    assert!(left.iter().all(|key| key.revoked.is_some()), "revoked together after a dropped write");
    // The next purge is to find no more than the last one.
    for key in left {
        let deleted = event(EventKind::Deleted, &key, at(99));
        storage.any().delete((&deed.owner).into(), key.id, &deleted).await?;
    }
    Ok(())
}

/// The result of a future, unless it is not ready after so many polls; then it is dropped. Between
/// the polls it waits as ever, for whatever wakes it.
pub(super) async fn poll_for_a_while<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub(super) const MOST_POLLS: u64 = 500;
