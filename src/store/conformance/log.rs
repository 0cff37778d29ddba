//! The log of changes: an event with each of them, in step with the feed, and none without.

use std::collections::BTreeSet;

use super::{
    deed::{Deed, Write},
    sample::{at, digest, event, key, owner, revocation, rotation, row, used},
    storage::{Checked, Storage},
    suite::checks,
    view::{Watch, added},
};
use crate::{
    audit::EventKind,
    model::{Key, KeyId, OwnerScope},
    store::{InsertOutcome, PreviousSecret, RevokeOutcome, RotateOutcome, UpdateOutcome},
};

checks![
    every_change_writes_its_audit_event,
    every_change_enters_the_feed,
    refused_changes_write_no_event_and_no_feed_entry,
];

async fn every_change_writes_its_audit_event(storage: Storage) -> Checked {
    for (n, write) in (1..).zip(Write::ALL) {
        let deed = Deed::new(write, n);
        deed.prepare(&storage).await?;
        let before = storage.log((&deed.owner).into()).await?;
        deed.make(&*storage.any()).await?;
        let log = storage.log((&deed.owner).into()).await?;
        let new = added(&log, &before).unwrap_or_else(|| panic!("{write:?} changed old events"));
        assert_eq!(deed.alike(new), deed.alike(deed.logged()), "the events of {write:?}");
    }
    Ok(())
}

async fn every_change_enters_the_feed(storage: Storage) -> Checked {
    for (n, write) in (1..).zip(Write::ALL) {
        let deed = Deed::new(write, n);
        deed.prepare(&storage).await?;
        let mut cursor = storage.feed_end().await?;
        deed.make(&*storage.any()).await?;
        let wanted: BTreeSet<KeyId> = deed.changed().iter().map(|key| key.id).collect();
        assert_eq!(storage.follow(&mut cursor).await?, wanted, "told of {write:?}");
    }
    Ok(())
}

async fn refused_changes_write_no_event_and_no_feed_entry(storage: Storage) -> Checked {
    let (mine, dead) = (key(&owner(1), 1), key(&owner(1), 2));
    storage.add(&mine, &digest(1)).await?;
    storage.add(&dead, &digest(2)).await?;
    let by = revocation(&dead, at(1), "");
    let _now = storage.any().revoke((&dead.owner).into(), dead.id, &by).await?;
    storage.any().record_uses(&[used(&mine, at(1), at(2))]).await?;

    let watch = Watch::begin(&storage, "acme", (1..=3).map(digest)).await?;
    let before = watch.look().await?;
    let store = storage.any();
    let (absent, stale) = (key(&owner(1), 3), Key { revision: 9, ..mine.clone() });
    let created = || event(EventKind::Created, &absent, at(5));
    let updated = |key| event(EventKind::Updated, key, at(5));
    let within = OwnerScope::Owner(&mine.owner);

    let taken = store.insert(row(&absent, &digest(1), None, &created())).await?;
    assert_eq!(taken, InsertOutcome::DigestTaken);
    let limited = store.insert(row(&absent, &digest(3), 1, &created())).await?;
    assert_eq!(limited, InsertOutcome::LimitReached);
    assert_eq!(store.update(&stale, &updated(&stale)).await?, UpdateOutcome::Conflict);
    assert_eq!(store.update(&absent, &updated(&absent)).await?, UpdateOutcome::NotFound);
    for (key, to, wanted) in [
        (&stale, 3, RotateOutcome::Conflict),
        (&absent, 3, RotateOutcome::NotFound),
        (&mine, 2, RotateOutcome::DigestTaken),
    ] {
        let (to, event) = (digest(to), event(EventKind::Rotated, key, at(5)));
        let rotate = rotation(key, &to, PreviousSecret::Replaced, &event);
        assert_eq!(store.rotate(rotate).await?, wanted);
    }
    let by = |key| revocation(key, at(5), "");
    assert_eq!(store.revoke(within, dead.id, &by(&dead)).await?, RevokeOutcome::AlreadyRevoked);
    assert_eq!(store.revoke(within, absent.id, &by(&absent)).await?, RevokeOutcome::NotFound);
    assert_eq!(store.revoke_all(&owner(9), &by(&mine)).await?, []);
    assert!(!store.delete(within, absent.id, &event(EventKind::Deleted, &absent, at(5))).await?);
    let purged = store.purge_keys(at(0), 10, &event(EventKind::Purged, &mine, at(5))).await?;
    assert_eq!(purged, []);
    assert_eq!(store.record_uses(&[used(&mine, at(1), at(2))]).await?, []);
    assert!(!store.rehash(&digest(9), &digest(3)).await?);

    assert_eq!(watch.look().await?, before, "something that was refused left a trace");
    Ok(())
}
