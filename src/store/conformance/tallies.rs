//! What is counted of keys: sums, by hour, as long as the key is there.

use super::{
    sample::{at, digest, event, key, owner, owner_of},
    storage::{Checked, Storage, race},
    suite::checks,
};
use crate::{
    audit::EventKind,
    model::{Key, OwnerScope, Timestamp},
    store::{HourlyUsage, StoreError},
};

checks![
    usage_adds_up_by_key_and_hour,
    racing_additions_of_usage_add_up,
    usage_of_unknown_keys_is_skipped_and_usage_is_deleted_with_its_key,
    another_owners_usage_cannot_be_read,
    a_purge_of_usage_removes_old_hours_up_to_its_limit,
];

async fn usage_adds_up_by_key_and_hour(storage: Storage) -> Checked {
    let keys = [1, 2].map(|n| key(&owner(1), n));
    for (n, key) in (1..).zip(&keys) {
        storage.add(key, &digest(n)).await?;
    }
    let mut cursor = storage.feed_end().await?;
    let [ada, bob] = &keys;
    storage.any().add_usage(&[]).await?;
    let first = [tally(ada, 0, 1, 0), tally(bob, 0, 100, 7), tally(ada, 2, 5, 1)];
    storage.any().add_usage(&first).await?;
    // The same hour twice in one call counts twice.
    let second = [tally(ada, 0, 10, 3), tally(ada, 1, 0, 4), tally(ada, 0, 20, 0)];
    storage.any().add_usage(&second).await?;
    let sums = [tally(ada, 0, 31, 3), tally(ada, 1, 0, 4), tally(ada, 2, 5, 1)];
    assert_eq!(read(&storage, ada, at(0)).await?, sums);
    assert_eq!(read(&storage, ada, hour(1)).await?, sums[1..], "from an hour on");
    assert_eq!(read(&storage, ada, hour(3)).await?, [], "when there is nothing yet");
    assert_eq!(read(&storage, bob, at(0)).await?, [tally(bob, 0, 100, 7)]);
    assert_eq!(&storage.key(ada).await?, ada, "counting changes nothing of the key");
    let told = storage.follow(&mut cursor).await?;
    assert!(told.is_empty(), "counting makes no node forget a key, and the feed tells of {told:?}");
    Ok(())
}

async fn racing_additions_of_usage_add_up(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let keys = [1, 2, 3].map(|n| key(&owner(round), round * 1_000 + n));
        for (n, key) in (round * 1_000..).zip(&keys) {
            storage.add(key, &digest(n)).await?;
        }
        let answers = race(12, |task| {
            let store = storage.any();
            let mut batch: Vec<_> = keys.iter().map(|key| tally(key, 0, 1, task)).collect();
            // In opposite orders: who locks key by key as they come must not lock up.
            if task % 2 == 1 {
                batch.reverse();
            }
            async move { store.add_usage(&batch).await }
        });
        answers.await.into_iter().collect::<Result<(), StoreError>>()?;
        for key in &keys {
            assert_eq!(read(&storage, key, at(0)).await?, [tally(key, 0, 12, 66)]);
        }
    }
    Ok(())
}

async fn usage_of_unknown_keys_is_skipped_and_usage_is_deleted_with_its_key(
    storage: Storage,
) -> Checked {
    let (known, gone, later) = (key(&owner(1), 1), key(&owner(1), 2), key(&owner(1), 3));
    storage.add(&known, &digest(1)).await?;
    storage.add(&gone, &digest(2)).await?;
    let counts = [&gone, &later, &known].map(|key| tally(key, 0, 1, 1));
    storage.any().add_usage(&counts).await?;
    let by = event(EventKind::Deleted, &gone, at(1));
    assert!(storage.any().delete((&gone.owner).into(), gone.id, &by).await?);
    storage.any().add_usage(&counts).await?;
    assert_eq!(read(&storage, &known, at(0)).await?, [tally(&known, 0, 2, 2)]);
    storage.add(&gone, &digest(2)).await?;
    storage.add(&later, &digest(3)).await?;
    for key in [&gone, &later] {
        assert_eq!(read(&storage, key, at(0)).await?, [], "counted while there was no such key");
    }
    Ok(())
}

async fn another_owners_usage_cannot_be_read(storage: Storage) -> Checked {
    let issued = key(&owner_of("acme", "ada"), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.any().add_usage(&[tally(&issued, 0, 1, 1)]).await?;
    let strangers = [owner_of("acme", "bob"), owner_of("umbrella", "ada"), owner_of("", "ada")];
    let within = strangers.iter().map(OwnerScope::Owner).chain([OwnerScope::Tenant("umbrella")]);
    for within in within {
        assert_eq!(storage.any().usage_history(within, issued.id, at(0)).await?, [], "{within:?}");
    }
    let seen = storage.any().usage_history(OwnerScope::Tenant("acme"), issued.id, at(0)).await?;
    assert_eq!(seen, [tally(&issued, 0, 1, 1)], "an administrator of the tenant");
    Ok(())
}

async fn a_purge_of_usage_removes_old_hours_up_to_its_limit(storage: Storage) -> Checked {
    let keys = [1, 2].map(|n| key(&owner(1), n));
    for (n, key) in (1..).zip(&keys) {
        storage.add(key, &digest(n)).await?;
        let counts: Vec<_> = (0..4).map(|hour| tally(key, hour, 1, 0)).collect();
        storage.any().add_usage(&counts).await?;
    }
    for purged in [4, 2, 0] {
        assert_eq!(storage.any().purge_usage(hour(3), 4).await?, purged, "up to four");
    }
    for key in &keys {
        assert_eq!(read(&storage, key, at(0)).await?, [tally(key, 3, 1, 0)]);
    }
    Ok(())
}

/// With more that were limited than were denied.
fn tally(key: &Key, n: u64, accepted: u64, denied: u64) -> HourlyUsage {
    HourlyUsage { key_id: key.id, hour: hour(n), accepted, denied, limited: denied * 3 }
}

fn hour(n: u64) -> Timestamp {
    at(n * 3_600)
}

async fn read(
    storage: &Storage,
    key: &Key,
    from: Timestamp,
) -> Result<Vec<HourlyUsage>, StoreError> {
    storage.any().usage_history((&key.owner).into(), key.id, from).await
}
