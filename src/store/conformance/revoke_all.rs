//! Revoking all keys of an owner: every one of them, in one step, and nobody else's.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    sample::{self, at, digest, event, key, owner, owner_of, revocation, revoked, row},
    storage::{Checked, Storage, race, sound},
    suite::checks,
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{Key, KeyId, OwnerScope},
    store::{InsertOutcome, KeyStore, StoreError},
};

checks![
    revoke_all_revokes_each_key_of_the_owner_with_an_event,
    revoke_all_is_atomic,
    revoke_all_misses_no_key_inserted_before_it_started,
];

async fn revoke_all_revokes_each_key_of_the_owner_with_an_event(storage: Storage) -> Checked {
    let ada = owner(1);
    let disabled = Key { disabled_at: Some(at(1)), ..key(&ada, 1) };
    let expired = Key { expires_at: Some(at(1)), ..key(&ada, 2) };
    let mut open = vec![disabled, expired];
    open.extend((3..=40).map(|n| key(&ada, n)));
    for (n, key) in (1..).zip(&open) {
        storage.add(key, &digest(n)).await?;
    }
    let dead = key(&ada, 50);
    storage.add(&dead, &digest(50)).await?;
    let before = revocation(&dead, at(2), "before");
    let _now = storage.any().revoke((&ada).into(), dead.id, &before).await?;
    let strangers = [key(&owner(2), 60), key(&owner_of("other", ada.account()), 61)];
    for (n, stranger) in (60..).zip(&strangers) {
        storage.add(stranger, &digest(n)).await?;
    }

    let mut cursor = storage.feed_end().await?;
    let by = revocation(&open[0], at(10), "the account was closed");
    let told = storage.any().revoke_all(&ada, &by).await?;
    let ids: BTreeSet<KeyId> = open.iter().map(|key| key.id).collect();
    assert_eq!(told.len(), ids.len(), "keys that were told of, each once");
    assert_eq!(BTreeSet::from_iter(sample::ids(&told)), ids, "exactly the open keys were revoked");
    assert_eq!(storage.follow(&mut cursor).await?, ids, "and the feed tells of each");
    let log = storage.log((&ada).into()).await?;
    for key in open {
        assert_eq!(storage.key(&key).await?, revoked(key.clone(), &by));
        let events: Vec<_> = log
            .iter()
            .filter(|it| it.key_id == Some(key.id) && it.kind == EventKind::Revoked)
            .collect();
        let [event] = events[..] else { panic!("{} events of one revocation", events.len()) };
        // The id tells events of one change apart; everything else is that of the call.
        let wanted = by.for_key(0, &key);
        assert_eq!(*event, AuditEvent { id: event.id, ..wanted });
    }
    assert_eq!(storage.key(&dead).await?, revoked(dead, &before), "it was revoked before");
    for stranger in &strangers {
        assert_eq!(storage.key(stranger).await?, *stranger, "another owner's key");
    }
    let again = storage.any().revoke_all(&ada, &revocation(&strangers[0], at(11), "")).await?;
    assert_eq!(again, [], "nothing is left to revoke");
    assert_eq!(storage.log((&ada).into()).await?, log, "and nothing to log");
    Ok(())
}

async fn revoke_all_is_atomic(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let ada = owner(round);
        let keys: Vec<Key> = (0..8).map(|i| key(&ada, round * 1_000 + i)).collect();
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        // Once a reader has seen one key revoked, it sees no key open any more. Two readers go
        // forwards, two backwards, because nobody knows which key a store would begin with.
        let keys = Arc::new(keys);
        let outcomes = race(5, |task| {
            let (store, keys) = (storage.any(), keys.clone());
            async move {
                match task {
                    0 => {
                        let by = revocation(&keys[0], at(5), "");
                        store.revoke_all(&keys[0].owner, &by).await.map(|_| ())
                    }
                    task => watch_steps(&*store, &keys, task % 2 == 0).await,
                }
            }
        });
        outcomes.await.into_iter().collect::<Result<(), StoreError>>()?;
    }
    Ok(())
}

/// Reads the keys one by one until all are revoked.
async fn watch_steps(store: &dyn KeyStore, keys: &[Key], backwards: bool) -> Checked {
    let mut begun = false;
    loop {
        let mut open = 0;
        for i in 0..keys.len() {
            let key = &keys[if backwards { keys.len() - 1 - i } else { i }];
            let stored = store.get((&key.owner).into(), key.id).await?.expect("the key is there");
            let revoked = stored.revoked.is_some();
            assert!(revoked || !begun, "one key was revoked and another was not yet");
            begun |= revoked;
            open += usize::from(!revoked);
        }
        if open == 0 {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

async fn revoke_all_misses_no_key_inserted_before_it_started(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let ada = owner(round);
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let done = Arc::new(AtomicBool::new(false));
        let inserting = tokio::spawn({
            let stores: Vec<_> = (0..4).map(|_| storage.any()).collect();
            let (ada, acknowledged, done) = (ada.clone(), acknowledged.clone(), done.clone());
            race(4, move |task| {
                let (store, ada) = (stores[task as usize].clone(), ada.clone());
                let (acknowledged, done) = (acknowledged.clone(), done.clone());
                async move {
                    for n in (round * 1_000 + task * 40..).take(40) {
                        let key = key(&ada, n);
                        let event = event(EventKind::Created, &key, at(0));
                        let inserted = store.insert(row(&key, &digest(n), None, &event)).await?;
                        assert_eq!(inserted, InsertOutcome::Inserted);
                        acknowledged.lock().expect("nothing panics under it").push(key.id);
                        if done.load(Ordering::Acquire) {
                            break;
                        }
                    }
                    Ok::<(), StoreError>(())
                }
            })
        });
        let acknowledged = || acknowledged.lock().expect("nothing panics under it").clone();
        while acknowledged().len() < 12 && !inserting.is_finished() {
            tokio::task::yield_now().await;
        }
        let before = acknowledged();
        let by = revocation(&key(&ada, 0), at(5), "");
        let told = storage.any().revoke_all(&ada, &by).await;
        done.store(true, Ordering::Release);
        sound(inserting.await).into_iter().collect::<Result<(), StoreError>>()?;

        let told = BTreeSet::from_iter(sample::ids(&told?));
        for id in before {
            assert!(told.contains(&id), "a key was stored before all were revoked, and was missed");
        }
        for key in storage.keys(OwnerScope::Owner(&ada)).await? {
            assert_eq!(key.revoked.is_some(), told.contains(&key.id), "told of as it is stored");
        }
    }
    Ok(())
}
