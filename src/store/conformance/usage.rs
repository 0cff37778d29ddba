//! Uses: forward only, first once, and no change of the key.

use super::{
    sample::{at, digest, event, key, owner, owner_of, revocation, revoked, used},
    storage::{Checked, Storage, race},
    suite::checks,
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::Key,
    store::{KeyUse, StoreError},
};

checks![
    last_use_only_moves_forward,
    a_first_use_is_recorded_once_with_its_event,
    racing_first_uses_are_recorded_once,
    uses_of_unknown_keys_are_skipped,
    recording_a_use_changes_nothing_else,
];

async fn last_use_only_moves_forward(storage: Storage) -> Checked {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    let from = |last: u8| Some([192, 0, 2, last].into());
    // The instants of uses, and those of the last one as they are to be remembered.
    let steps = [(20, 20), (10, 20), (20, 20), (19, 20), (30, 30), (1, 30)];
    for (use_at, last_at) in steps {
        let uses = KeyUse { ip: from(use_at), ..used(&issued, at(5), at(use_at.into())) };
        storage.any().record_uses(&[uses]).await?;
        let stored = storage.key(&issued).await?;
        assert_eq!(stored.last_used_at, Some(at(last_at.into())), "after a use at {use_at}");
        assert_eq!(stored.last_used_ip, from(last_at), "the address of the last use");
        assert_eq!(stored.first_used_at, Some(at(5)), "the first use");
    }
    let nowhere = KeyUse { ip: None, ..used(&issued, at(40), at(40)) };
    storage.any().record_uses(&[nowhere]).await?;
    let stored = storage.key(&issued).await?;
    assert_eq!(stored.last_used_at, Some(at(40)));
    assert_eq!(stored.last_used_ip, None, "an address that belongs to an older use");
    Ok(())
}

async fn a_first_use_is_recorded_once_with_its_event(storage: Storage) -> Checked {
    let keys = [1, 2, 3].map(|n| key(&owner(n), n));
    for (n, key) in (1..).zip(&keys) {
        storage.add(key, &digest(n)).await?;
    }
    let first = [used(&keys[0], at(10), at(20)), used(&keys[1], at(11), at(11))];
    let written = storage.any().record_uses(&first).await?;
    assert_eq!(
        by_id(written),
        by_id(first.iter().map(KeyUse::first_use).collect()),
        "in the answer"
    );

    // Of a mixed batch, only the third key is used for the first time. Nor is there an earlier
    // first use than the first.
    let mixed = [used(&keys[0], at(5), at(30)), used(&keys[2], at(12), at(12))];
    let written = storage.any().record_uses(&mixed).await?;
    assert_eq!(written, [mixed[1].first_use()], "in the answer to a mixed batch");
    for (key, uses) in keys.iter().zip([&first[0], &first[1], &mixed[1]]) {
        let log = storage.log((&key.owner).into()).await?;
        let firsts: Vec<_> = log.iter().filter(|it| it.kind == EventKind::FirstUsed).collect();
        assert_eq!(firsts, [&uses.first_use()], "in the log");
        assert_eq!(storage.key(key).await?.first_used_at, Some(uses.first_at));
    }
    assert_eq!(storage.any().record_uses(&[]).await?, [], "of no uses at all");
    Ok(())
}

async fn racing_first_uses_are_recorded_once(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let ada = owner(round);
        let keys: Vec<Key> = (0..4).map(|i| key(&ada, round * 1_000 + i)).collect();
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        let answers = race(12, |task| {
            let store = storage.any();
            let mut batch: Vec<KeyUse> =
                keys.iter().map(|key| used(key, at(100 - task), at(100 + task))).collect();
            // In opposite orders: who locks key by key as they come must not lock up.
            if task % 2 == 1 {
                batch.reverse();
            }
            async move { store.record_uses(&batch).await }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let told = by_id(answers.concat());
        let log = storage.log((&ada).into()).await?;
        let firsts = log.into_iter().filter(|event| event.kind == EventKind::FirstUsed);
        let logged = by_id(firsts.collect());
        assert_eq!(logged.len(), keys.len(), "first uses in the log, of {} keys", keys.len());
        assert_eq!(told, logged, "first uses in the answers, and in the log");
        for key in keys {
            let stored = storage.key(&key).await?;
            let event = logged.iter().find(|event| event.key_id == Some(key.id));
            let event = event.expect("one of as many events as there are keys");
            assert_eq!(stored.first_used_at, Some(event.at), "the first use, and its event");
            assert_eq!(stored.last_used_at, Some(at(111)), "the last of all uses");
        }
    }
    Ok(())
}

async fn uses_of_unknown_keys_are_skipped(storage: Storage) -> Checked {
    let (known, gone, never) = (key(&owner(1), 1), key(&owner(1), 2), key(&owner(1), 3));
    storage.add(&known, &digest(1)).await?;
    storage.add(&gone, &digest(2)).await?;
    let by = event(EventKind::Deleted, &gone, at(1));
    assert!(storage.any().delete((&gone.owner).into(), gone.id, &by).await?);

    let forged = Key { owner: owner_of("other", "account-1"), ..known.clone() };
    let batch = [&gone, &forged, &known, &never].map(|key| used(key, at(10), at(20)));
    let written = storage.any().record_uses(&batch).await?;
    assert_eq!(written, [batch[2].first_use()], "only one of the four is a key");
    assert_eq!(storage.key(&known).await?.last_used_at, Some(at(20)));
    for absent in [&gone, &never] {
        let stored = storage.any().get((&absent.owner).into(), absent.id).await?;
        assert_eq!(stored, None, "a use made a key");
    }
    let log = storage.log((&known.owner).into()).await?;
    let firsts = log.iter().filter(|event| event.kind == EventKind::FirstUsed).count();
    assert_eq!(firsts, 1, "first uses in the log");
    Ok(())
}

async fn recording_a_use_changes_nothing_else(storage: Storage) -> Checked {
    let live = Key { expires_at: Some(at(5)), disabled_at: Some(at(1)), ..key(&owner(1), 1) };
    let dead = key(&owner(1), 2);
    storage.add(&live, &digest(1)).await?;
    storage.add(&dead, &digest(2)).await?;
    let by = revocation(&dead, at(2), "leaked");
    let _now = storage.any().revoke((&dead.owner).into(), dead.id, &by).await?;

    let mut cursor = storage.feed_end().await?;
    let batch = [&live, &dead].map(|key| used(key, at(10), at(20)));
    storage.any().record_uses(&batch).await?;
    for (key, uses) in [live, revoked(dead, &by)].into_iter().zip(&batch) {
        let wanted = Key {
            first_used_at: Some(at(10)),
            last_used_at: Some(at(20)),
            last_used_ip: uses.ip,
            ..key
        };
        assert_eq!(storage.key(&wanted).await?, wanted, "a use, and no more than that");
    }
    let told = storage.follow(&mut cursor).await?;
    assert!(told.is_empty(), "a use makes no node forget a key, and the feed tells of {told:?}");
    Ok(())
}

fn by_id(mut events: Vec<AuditEvent>) -> Vec<AuditEvent> {
    events.sort_by_key(|event| event.id);
    events
}
