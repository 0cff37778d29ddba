//! Revocation: at once, whatever else happens, and for ever.

use super::{
    sample::{at, digest, event, ids, key, name, owner, revocation, revoked, rotation, used},
    storage::{Checked, Storage, race},
    suite::checks,
};
use crate::{
    audit::EventKind,
    model::{Key, OwnerScope},
    store::{KeyStore, PreviousSecret, RevokeOutcome, RotateOutcome, StoreError, UpdateOutcome},
};

checks![
    a_second_revocation_keeps_the_first_instant_and_reason,
    a_disabled_or_expired_key_can_be_revoked,
    a_revocation_racing_other_writes_wins,
    racing_revocations_have_one_winner,
];

async fn a_second_revocation_keeps_the_first_instant_and_reason(storage: Storage) -> Checked {
    let issued = key(&owner(1), 1);
    let within = OwnerScope::Owner(&issued.owner);
    storage.add(&issued, &digest(1)).await?;
    storage.update(&issued, at(1)).await?;
    let stored = storage.key(&issued).await?;

    let first = revocation(&issued, at(10), "leaked");
    assert_eq!(storage.any().revoke(within, issued.id, &first).await?, RevokeOutcome::Revoked);
    let wanted = revoked(stored, &first);
    assert_eq!(storage.key(&issued).await?, wanted);
    for (instant, reason) in [(at(20), "again"), (at(5), "earlier"), (at(10), "")] {
        let second = revocation(&issued, instant, reason);
        assert_eq!(
            storage.any().revoke(within, issued.id, &second).await?,
            RevokeOutcome::AlreadyRevoked
        );
        assert_eq!(storage.key(&issued).await?, wanted, "revoked again, {reason:?}");
    }
    let log = storage.log(within).await?;
    let events: Vec<_> = log.iter().filter(|it| it.kind == EventKind::Revoked).collect();
    assert_eq!(events, [&first], "events of one revocation");

    let absent = key(&owner(1), 2);
    let by = revocation(&absent, at(10), "");
    assert_eq!(storage.any().revoke(within, absent.id, &by).await?, RevokeOutcome::NotFound);
    Ok(())
}

async fn a_disabled_or_expired_key_can_be_revoked(storage: Storage) -> Checked {
    let ada = owner(1);
    let disabled = Key { disabled_at: Some(at(1)), ..key(&ada, 1) };
    let expired = Key { expires_at: Some(at(1)), ..key(&ada, 2) };
    for (n, key) in (1..).zip([disabled, expired]) {
        storage.add(&key, &digest(n)).await?;
        let by = revocation(&key, at(10), "");
        assert_eq!(storage.any().revoke((&ada).into(), key.id, &by).await?, RevokeOutcome::Revoked);
        assert_eq!(storage.key(&key).await?, revoked(key, &by));
    }
    Ok(())
}

async fn a_revocation_racing_other_writes_wins(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let n = round * 1_000;
        let issued = Key { disabled_at: Some(at(0)), ..key(&owner(round), n) };
        storage.add(&issued, &digest(n)).await?;
        let by = revocation(&issued, at(5), "leaked");
        let outcomes = race(12, |task| {
            let (store, key, by) = (storage.any(), issued.clone(), by.clone());
            async move {
                match task {
                    0 if round % 2 == 0 => {
                        let revoked = store.revoke_all(&key.owner, &by).await?;
                        assert_eq!(ids(&revoked), [key.id], "the one revocation of a race");
                        Ok(())
                    }
                    0 => {
                        let answer = store.revoke((&key.owner).into(), key.id, &by).await?;
                        assert_eq!(answer, RevokeOutcome::Revoked, "the one revocation of a race");
                        Ok(())
                    }
                    task => disturb(&*store, &key, n, task).await,
                }
            }
        });
        outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
        assert_revoked(&storage, &issued, "after the race").await?;

        // And all of it once more, now over the revision of the revoked key.
        let stored = storage.key(&issued).await?;
        for task in 1..12 {
            disturb(&*storage.any(), &stored, n + 500, task).await?;
        }
        assert_revoked(&storage, &issued, "after writes to the revoked key").await?;
        assert_eq!(storage.key(&issued).await?.revision, stored.revision, "a revoked key changed");
    }
    Ok(())
}

async fn racing_revocations_have_one_winner(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        storage.add(&issued, &digest(round)).await?;
        let answers = race(8, |task| {
            let (store, key) = (storage.any(), issued.clone());
            let by = revocation(&key, at(task), &format!("reason {task}"));
            async move { Ok((store.revoke((&key.owner).into(), key.id, &by).await?, revoked(key, &by))) }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let won: Vec<_> = answers.iter().filter(|(it, _)| *it == RevokeOutcome::Revoked).collect();
        let [(_, wanted)] = won[..] else { panic!("{} revocations of one key won", won.len()) };
        let already = answers.iter().filter(|(it, _)| *it == RevokeOutcome::AlreadyRevoked).count();
        assert_eq!(already, 7, "the others came too late");
        assert_eq!(storage.key(&issued).await?, *wanted, "the winner's instant and reason");
    }
    Ok(())
}

/// One of the writes that a revocation must hold out against. What it answers does not matter,
/// only that the store does not fail; it is repeated over newer revisions, as a service would.
async fn disturb(store: &dyn KeyStore, issued: &Key, n: u64, task: u64) -> Checked {
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
                store.record_uses(&[used(&key, at(task), at(task + attempt))]).await?;
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

async fn assert_revoked(storage: &Storage, issued: &Key, when: &str) -> Checked {
    let revocation = storage.key(issued).await?.revoked;
    let revocation = revocation.unwrap_or_else(|| panic!("the key is not revoked {when}"));
    assert_eq!((revocation.at, &*revocation.reason), (at(5), "leaked"), "{when}");
    Ok(())
}
