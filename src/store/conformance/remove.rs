//! Removal: a key goes with its secrets, its events stay, and no purge takes what is alive.

use std::collections::BTreeSet;

use super::{
    sample::{at, digest, event, ids, just_before, key, owner, owner_of, revocation},
    storage::{Checked, Storage, race},
    suite::checks,
    view::Watch,
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{EventId, Key, KeyId, OwnerScope},
    store::{PreviousSecret, StoreError},
};

checks![
    delete_removes_the_key_and_its_secrets_and_keeps_its_events,
    a_purge_removes_keys_that_ended_before_the_cutoff_and_nothing_else,
    a_purge_stops_at_its_limit,
    racing_purges_remove_each_key_once,
];

async fn delete_removes_the_key_and_its_secrets_and_keeps_its_events(storage: Storage) -> Checked {
    let (gone, other) = (key(&owner(1), 1), key(&owner(1), 2));
    let within = OwnerScope::Owner(&gone.owner);
    storage.add(&gone, &digest(1)).await?;
    storage.add(&other, &digest(2)).await?;
    storage.rotate(&gone, &digest(3), PreviousSecret::EndsAt(at(50))).await?;
    let before = storage.log(within).await?;

    let by = event(EventKind::Deleted, &gone, at(5));
    assert!(storage.any().delete(within, gone.id, &by).await?, "the key was there");
    assert_eq!(storage.any().get(within, gone.id).await?, None, "read by its id");
    assert_eq!(storage.holder(&digest(1)).await?, None, "its former secret");
    assert_eq!(storage.holder(&digest(3)).await?, None, "its current secret");
    let listed = storage.keys(within).await?;
    assert_eq!(listed.iter().map(|key| key.id).collect::<Vec<_>>(), [other.id], "listed");
    let log = storage.log(within).await?;
    assert_eq!(log, [vec![by], before].concat(), "its events, and that of its deletion");

    let watch = Watch::begin(&storage, "acme", (1..=3).map(digest)).await?;
    let before = watch.look().await?;
    let again = event(EventKind::Deleted, &gone, at(6));
    assert!(!storage.any().delete(within, gone.id, &again).await?, "the key is gone");
    assert_eq!(watch.look().await?, before, "a key that was gone was deleted again");
    for (n, secret) in [(4, 1), (5, 3)] {
        storage.add(&key(&owner(1), n), &digest(secret)).await?;
    }
    Ok(())
}

async fn a_purge_removes_keys_that_ended_before_the_cutoff_and_nothing_else(
    storage: Storage,
) -> Checked {
    let before = at(1_000);
    let instants = [None, Some(at(10)), Some(just_before(before)), Some(before), Some(at(2_000))];
    let mut stored = Vec::new();
    let mut n = 0;
    for expires_at in instants {
        for revoked_at in instants {
            // Every other one is disabled since long ago, which says nothing.
            n += 1;
            let disabled_at = (n % 2 == 0).then(|| at(1));
            let owner = owner_of(if n % 3 == 0 { "other" } else { "acme" }, "account-1");
            let key = Key { expires_at, disabled_at, ..key(&owner, n) };
            storage.add(&key, &digest(n)).await?;
            if let Some(revoked_at) = revoked_at {
                let by = revocation(&key, revoked_at, "");
                let _now = storage.any().revoke((&owner).into(), key.id, &by).await?;
            }
            stored.push((n, storage.key(&key).await?));
        }
    }
    let dead = |key: &Key| key.dead_since().is_some_and(|since| since < before);
    let wanted = BTreeSet::from_iter(stored.iter().filter(|(_, it)| dead(it)).map(|(_, it)| it.id));

    let mut cursor = storage.feed_end().await?;
    let by = event(EventKind::Purged, &stored[0].1, at(3_000));
    let purged = storage.any().purge_keys(before, 1_000, &by).await?;
    for (n, key) in &stored {
        let left = storage.any().get((&key.owner).into(), key.id).await?;
        assert_eq!(left.is_some(), !dead(key), "purged before {before}, left or not: {key:#?}");
        assert_eq!(storage.holder(&digest(*n)).await?.is_some(), !dead(key), "its secret");
        let log = storage.log((&key.owner).into()).await?;
        let mut own = log.iter().filter(|event| event.key_id == Some(key.id));
        assert!(own.clone().any(|event| event.kind == EventKind::Created), "its events stay");
        let event = own.find(|event| event.kind == EventKind::Purged);
        let wanted = event.map(|event| AuditEvent { id: event.id, ..by.for_key(0, key) });
        assert_eq!(event.is_some(), dead(key), "the event of its purge");
        assert_eq!(event.cloned(), wanted, "the event of its purge names it and its owner");
    }
    assert_eq!(BTreeSet::from_iter(ids(&purged)), wanted, "the answer tells of the purged keys");
    assert_eq!(storage.follow(&mut cursor).await?, wanted, "the feed tells of the purged keys");
    let again = event(EventKind::Purged, &stored[0].1, at(3_000));
    assert_eq!(storage.any().purge_keys(before, 1_000, &again).await?, [], "nothing is left");
    Ok(())
}

async fn a_purge_stops_at_its_limit(storage: Storage) -> Checked {
    let ada = owner(1);
    for n in 1..=7 {
        let dead = Key { expires_at: Some(at(n)), ..key(&ada, n) };
        storage.add(&dead, &digest(n)).await?;
    }
    for (purged, left) in [(3, 4), (3, 1), (1, 0), (0, 0)] {
        let by = event(EventKind::Purged, &key(&ada, 1), at(200));
        let answer = storage.any().purge_keys(at(100), 3, &by).await?;
        assert_eq!(answer.len(), purged, "at a limit of 3");
        assert_eq!(storage.keys((&ada).into()).await?.len(), left, "keys left");
    }
    let log = storage.log((&ada).into()).await?;
    let purges = log.iter().filter(|event| event.kind == EventKind::Purged);
    let named: BTreeSet<Option<KeyId>> = purges.clone().map(|event| event.key_id).collect();
    assert_eq!((purges.count(), named.len()), (7, 7), "an event for each of 7 keys");
    Ok(())
}

async fn racing_purges_remove_each_key_once(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let ada = owner(round);
        for n in (round * 1_000..).take(10) {
            let dead = Key { expires_at: Some(at(1)), ..key(&ada, n) };
            storage.add(&dead, &digest(n)).await?;
        }
        let answers = race(4, |_| {
            let (store, by) = (storage.any(), event(EventKind::Purged, &key(&ada, 0), at(200)));
            async move {
                // A purge may leave to another what that one is at, so each goes on until the end.
                let mut purged = 0;
                loop {
                    match store.purge_keys(at(100), 3, &by_itself(&by, purged)).await?.len() {
                        0 => return Ok(purged),
                        n => purged += n,
                    }
                }
            }
        });
        let purged: usize = answers.await.into_iter().sum::<Result<usize, StoreError>>()?;
        assert_eq!(purged, 10, "keys purged by four tasks, all together");
        assert_eq!(storage.keys((&ada).into()).await?, [], "keys left");
        let log = storage.log((&ada).into()).await?;
        let events = log.iter().filter(|event| event.kind == EventKind::Purged).count();
        assert_eq!(events, 10, "events of ten purges");
    }
    Ok(())
}

/// The event of a task's next purge: with an id of its own, as every change has.
fn by_itself(by: &AuditEvent, purged: usize) -> AuditEvent {
    let mut id = *by.id.as_bytes();
    id[10] = purged as u8;
    AuditEvent { id: EventId::from_bytes(id), ..by.clone() }
}
