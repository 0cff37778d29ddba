//! Inserting: the count and the key in one step, and nothing overwritten.

use super::{
    sample::{at, digest, event, just_before, key, owner, owner_of, revocation, row},
    storage::{Checked, Storage, race},
    suite::checks,
    view::Watch,
};
use crate::{
    audit::EventKind,
    model::{Key, Timestamp},
    store::{InsertOutcome, PreviousSecret, RevokeOutcome, StoreError},
};

checks![
    insert_is_refused_at_the_limit,
    expired_and_revoked_keys_free_a_slot_and_disabled_ones_do_not,
    racing_inserts_never_exceed_the_limit,
    an_insert_overwrites_nothing,
    racing_inserts_of_one_secret_make_one_key,
];

async fn insert_is_refused_at_the_limit(storage: Storage) -> Checked {
    let ada = owner(1);
    for n in 1..=2 {
        let inserted = try_insert(&storage, &key(&ada, n), n, 2, at(n)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "key {n} of 2");
    }
    let watch = Watch::begin(&storage, ada.tenant(), [digest(3)]).await?;
    let before = watch.look().await?;
    let third = key(&ada, 3);
    for limit in [2, 1, 0] {
        let refused = try_insert(&storage, &third, 3, limit, at(3)).await?;
        assert_eq!(refused, InsertOutcome::LimitReached, "2 keys, limit {limit}");
    }
    assert_eq!(watch.look().await?, before, "a refused key left something behind");

    // Who else counts: no other account of the tenant, and no namesake elsewhere.
    for (n, other) in [(4, owner(2)), (5, owner_of("other", ada.account()))] {
        let inserted = try_insert(&storage, &key(&other, n), n, 1, at(3)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "the limit of {ada:?} held for {other:?}");
    }
    let inserted = try_insert(&storage, &third, 3, None, at(3)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted, "without a limit");
    Ok(())
}

async fn expired_and_revoked_keys_free_a_slot_and_disabled_ones_do_not(
    storage: Storage,
) -> Checked {
    let ada = owner(1);
    let expiring = Key { expires_at: Some(at(10)), ..key(&ada, 1) };
    storage.add(&expiring, &digest(1)).await?;

    let disabled = Key { disabled_at: Some(at(9)), ..key(&ada, 2) };
    let early = try_insert(&storage, &disabled, 2, 1, just_before(at(10))).await?;
    assert_eq!(early, InsertOutcome::LimitReached, "a key lives until it expires");
    let in_time = try_insert(&storage, &disabled, 2, 1, at(10)).await?;
    assert_eq!(in_time, InsertOutcome::Inserted, "a key is dead from the instant of its expiry on");

    let third = key(&ada, 3);
    let refused = try_insert(&storage, &third, 3, 1, at(11)).await?;
    assert_eq!(refused, InsertOutcome::LimitReached, "a disabled key counts");
    let event = revocation(&disabled, at(12), "");
    let revoked = storage.any().revoke((&ada).into(), disabled.id, &event).await?;
    assert_eq!(revoked, RevokeOutcome::Revoked);
    let inserted = try_insert(&storage, &third, 3, 1, at(12)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted, "a revoked key does not count");
    Ok(())
}

async fn racing_inserts_never_exceed_the_limit(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let ada = owner(round);
        let answers = race(64, |task| {
            let (store, n) = (storage.any(), round * 1_000 + task);
            let key = key(&ada, n);
            async move {
                let created = event(EventKind::Created, &key, at(1));
                store.insert(row(&key, &digest(n), 5, &created)).await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let made = answers.iter().filter(|answer| **answer == InsertOutcome::Inserted).count();
        let refused =
            answers.iter().filter(|answer| **answer == InsertOutcome::LimitReached).count();
        assert_eq!((made, refused), (5, 59), "made and refused of 64 at a limit of 5");
        let stored = storage.keys((&ada).into()).await?.len();
        assert_eq!(stored, 5, "keys stored at a limit of 5");
    }
    Ok(())
}

async fn an_insert_overwrites_nothing(storage: Storage) -> Checked {
    let (ada, bob) = (owner(1), owner_of("other", "bob"));
    let (plain, rotated) = (key(&ada, 1), key(&ada, 2));
    storage.add(&plain, &digest(1)).await?;
    storage.add(&rotated, &digest(2)).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::EndsAt(at(50))).await?;

    let ours = Watch::begin(&storage, ada.tenant(), (1..=4).map(digest)).await?;
    let theirs = Watch::begin(&storage, bob.tenant(), []).await?;
    let before = (ours.look().await?, theirs.look().await?);
    let same_id = Key { owner: bob.clone(), ..plain.clone() };
    let intruders = [
        ("the digest of another key", key(&bob, 11), 1),
        ("the current digest of a rotated key", key(&bob, 12), 3),
        ("the former digest of a rotated key", key(&ada, 13), 2),
        ("the id of another owner's key", same_id, 4),
        ("the key itself", plain, 1),
    ];
    for (what, intruder, n) in intruders {
        let answer = try_insert(&storage, &intruder, n, None, at(5)).await?;
        assert_eq!(answer, InsertOutcome::DigestTaken, "{what} was inserted again");
        let now = (ours.look().await?, theirs.look().await?);
        assert_eq!(now, before, "{what} was inserted again and changed something");
    }
    Ok(())
}

async fn racing_inserts_of_one_secret_make_one_key(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let answers = race(8, |task| {
            let store = storage.any();
            let key = key(&owner(task), round * 1_000 + task);
            async move {
                let created = event(EventKind::Created, &key, at(1));
                let inserted = store.insert(row(&key, &digest(round), None, &created)).await?;
                Ok((key.id, inserted))
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let made: Vec<_> =
            answers.iter().filter(|(_, it)| *it == InsertOutcome::Inserted).collect();
        let [(id, _)] = made[..] else { panic!("{} keys were made of one secret", made.len()) };
        let holder = storage.holder(&digest(round)).await?;
        assert_eq!(holder, Some((*id, None)), "the secret leads to the key that was made");
    }
    Ok(())
}

/// Inserts with the `n`th secret.
async fn try_insert(
    storage: &Storage,
    key: &Key,
    n: u64,
    limit: impl Into<Option<u32>>,
    at: Timestamp,
) -> Result<InsertOutcome, StoreError> {
    let created = event(EventKind::Created, key, at);
    storage.any().insert(row(key, &digest(n), limit, &created)).await
}
