//! Inserting, updating, rotating and rehashing: atomic, and only what the operation may change.

use super::{
    check::{CheckResult, TestStorage, Watch, checks, race},
    fixtures::{
        at, digest, event, insert_key, just_before, key, key_use, name, owner, owner_of,
        revocation, rotation,
    },
};
use crate::{
    audit::EventKind,
    model::{
        Access, Key, KeyLimits, Metadata, Networks, Rate, RetiringSecret, Revocation, Timestamp,
    },
    secret::{HasherTag, SecretDigest},
    store::{
        InsertKey, InsertOutcome, KeyUse, PreviousSecret, RevokeOutcome, RotateOutcome,
        RotateSecret, StoreError, UpdateOutcome,
    },
};

checks![
    insert_is_refused_at_the_limit,
    expired_and_revoked_keys_free_a_slot_and_disabled_ones_do_not,
    racing_inserts_never_exceed_the_limit,
    an_insert_overwrites_nothing,
    racing_inserts_of_one_secret_make_one_key,
    a_token_issues_one_key_of_an_owner,
    racing_inserts_with_one_token_make_one_key,
    an_update_writes_its_fields_and_nothing_else,
    an_update_applies_only_to_the_revision_it_was_based_on,
    an_update_does_not_change_a_revoked_key,
    racing_updates_of_one_revision_have_one_winner,
    a_rotation_retires_the_current_secret_and_changes_nothing_else,
    a_rotation_sets_and_removes_the_token,
    a_second_rotation_removes_the_retiring_secret,
    a_replaced_secret_is_removed_and_the_retiring_one_stays,
    a_used_secret_is_not_replaced,
    a_replacement_racing_a_use_of_the_secret_sees_it,
    a_rotation_to_an_existing_digest_changes_nothing,
    a_rotation_applies_only_to_the_revision_it_was_based_on,
    racing_rotations_of_one_revision_have_one_winner,
    a_rehash_replaces_one_digest_and_changes_nothing_else,
    a_rehash_from_a_missing_or_to_an_existing_digest_changes_nothing,
    racing_rehashes_of_one_secret_have_one_winner,
];

async fn insert_is_refused_at_the_limit(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    for n in 1..=2 {
        let inserted = try_insert(&storage, &key(&ada, n), n, 2, at(n)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "key {n} of 2");
    }
    let watch = Watch::start(&storage, ada.tenant(), [digest(3)]).await?;
    let before = watch.snapshot().await?;
    let third = key(&ada, 3);
    for limit in [2, 1, 0] {
        let refused = try_insert(&storage, &third, 3, limit, at(3)).await?;
        assert_eq!(refused, InsertOutcome::LimitReached, "2 keys, limit {limit}");
    }
    assert_eq!(watch.snapshot().await?, before, "a refused insert left a trace");

    // The limit does not apply to another account of the tenant, or the same account elsewhere.
    for (n, other) in [(4, owner(2)), (5, owner_of("other", ada.account()))] {
        let inserted = try_insert(&storage, &key(&other, n), n, 1, at(3)).await?;
        assert_eq!(
            inserted,
            InsertOutcome::Inserted,
            "the limit of {ada:?} was applied to {other:?}"
        );
    }
    let inserted = try_insert(&storage, &third, 3, None, at(3)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted, "without a limit");
    Ok(())
}

async fn expired_and_revoked_keys_free_a_slot_and_disabled_ones_do_not(
    storage: TestStorage,
) -> CheckResult {
    let ada = owner(1);
    let expiring = Key { expires_at: Some(at(10)), ..key(&ada, 1) };
    storage.add(&expiring, &digest(1)).await?;

    let disabled = Key { disabled_at: Some(at(9)), ..key(&ada, 2) };
    let early = try_insert(&storage, &disabled, 2, 1, just_before(at(10))).await?;
    assert_eq!(early, InsertOutcome::LimitReached, "a key is live until it expires");
    let in_time = try_insert(&storage, &disabled, 2, 1, at(10)).await?;
    assert_eq!(in_time, InsertOutcome::Inserted, "a key is not live at the instant of its expiry");

    let third = key(&ada, 3);
    let refused = try_insert(&storage, &third, 3, 1, at(11)).await?;
    assert_eq!(refused, InsertOutcome::LimitReached, "a disabled key counts");
    let event = revocation(&disabled, at(12), "");
    let revoked = storage.handle().revoke((&ada).into(), disabled.id, &event).await?;
    assert_eq!(revoked, RevokeOutcome::Revoked);
    let inserted = try_insert(&storage, &third, 3, 1, at(12)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted, "a revoked key does not count");
    Ok(())
}

async fn racing_inserts_never_exceed_the_limit(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        let answers = race(64, |task| {
            let (store, n) = (storage.handle(), round * 1_000 + task);
            let key = key(&ada, n);
            async move {
                let created = event(EventKind::Created, &key, at(1));
                store.insert(insert_key(&key, &digest(n), 5, &created)).await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let made = answers.iter().filter(|answer| **answer == InsertOutcome::Inserted).count();
        let refused =
            answers.iter().filter(|answer| **answer == InsertOutcome::LimitReached).count();
        assert_eq!((made, refused), (5, 59), "inserted and refused, of 64 at a limit of 5");
        let stored = storage.keys((&ada).into()).await?.len();
        assert_eq!(stored, 5, "keys stored at a limit of 5");
    }
    Ok(())
}

async fn an_insert_overwrites_nothing(storage: TestStorage) -> CheckResult {
    let (ada, bob) = (owner(1), owner_of("other", "bob"));
    let (plain, rotated) = (key(&ada, 1), key(&ada, 2));
    storage.add(&plain, &digest(1)).await?;
    storage.add(&rotated, &digest(2)).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::EndsAt(at(50))).await?;

    let ours = Watch::start(&storage, ada.tenant(), (1..=4).map(digest)).await?;
    let theirs = Watch::start(&storage, bob.tenant(), []).await?;
    let before = (ours.snapshot().await?, theirs.snapshot().await?);
    let same_id = Key { owner: bob.clone(), ..plain.clone() };
    let duplicates = [
        ("the digest of another key", key(&bob, 11), 1),
        ("the current digest of a rotated key", key(&bob, 12), 3),
        ("the former digest of a rotated key", key(&ada, 13), 2),
        ("the id of another owner's key", same_id, 4),
        ("the key itself", plain, 1),
    ];
    for (what, duplicate, n) in duplicates {
        let answer = try_insert(&storage, &duplicate, n, None, at(5)).await?;
        assert_eq!(answer, InsertOutcome::DigestTaken, "{what} was inserted again");
        let now = (ours.snapshot().await?, theirs.snapshot().await?);
        assert_eq!(now, before, "inserting {what} again changed something");
    }
    Ok(())
}

async fn racing_inserts_of_one_secret_make_one_key(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let answers = race(8, |task| {
            let store = storage.handle();
            let key = key(&owner(task), round * 1_000 + task);
            async move {
                let created = event(EventKind::Created, &key, at(1));
                let inserted =
                    store.insert(insert_key(&key, &digest(round), None, &created)).await?;
                Ok((key.id, inserted))
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let made: Vec<_> =
            answers.iter().filter(|(_, it)| *it == InsertOutcome::Inserted).collect();
        let [(id, _)] = made[..] else {
            panic!("{} keys were inserted with one secret", made.len())
        };
        let holder = storage.holder(&digest(round)).await?;
        assert_eq!(holder, Some((*id, None)), "the secret finds the key that was inserted");
    }
    Ok(())
}

async fn a_token_issues_one_key_of_an_owner(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let token = |n| Some([n; 32]);
    let insert = async |key: &Key, n, max_active: Option<u32>, token_since| {
        let created = event(EventKind::Created, key, at(5));
        let digest = digest(n);
        let new = insert_key(key, &digest, max_active, &created);
        storage.handle().insert(InsertKey { token_since, ..new }).await
    };
    let first = Key { issue_token: token(7), created_at: at(5), ..key(&ada, 1) };
    let inserted = insert(&first, 1, Some(1), at(5)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted);
    assert_eq!(storage.key(&first).await?, first, "the key and its token");

    let watch = Watch::start(&storage, ada.tenant(), (1..=9).map(digest)).await?;
    let before = watch.snapshot().await?;
    let again = Key { issue_token: token(7), ..key(&ada, 2) };
    let taken = InsertOutcome::TokenTaken(first.id);
    for (what, key, n) in [
        ("with the token", &again, 2),
        ("of the same key", &first, 1),
        ("of its secret", &again, 1),
    ] {
        let answer = insert(key, n, Some(1), at(5)).await?;
        assert_eq!(answer, taken, "an insert {what}, at the limit of keys");
    }
    assert_eq!(watch.snapshot().await?, before, "a refused insert left a trace");

    let others = [
        ("another account", Key { issue_token: token(7), ..key(&owner(2), 3) }),
        (
            "another tenant",
            Key { issue_token: token(7), ..key(&owner_of("other", ada.account()), 4) },
        ),
        ("another token", Key { issue_token: token(8), ..key(&ada, 5) }),
        ("no token", key(&ada, 6)),
        ("no token again", key(&ada, 7)),
    ];
    for (n, (what, key)) in (3..).zip(&others) {
        assert_eq!(insert(key, n, None, at(5)).await?, InsertOutcome::Inserted, "{what}");
    }

    // The token stays with a key that was rotated and revoked, until the key is deleted.
    storage.rotate(&first, &digest(20), PreviousSecret::EndsAt(at(50))).await?;
    let by = revocation(&first, at(8), "");
    assert_eq!(
        storage.handle().revoke((&ada).into(), first.id, &by).await?,
        RevokeOutcome::Revoked
    );
    assert_eq!(insert(&again, 21, None, at(5)).await?, taken, "the key is rotated and revoked");

    // Keys from before the given instant do not count.
    let later = Key { issue_token: token(7), created_at: at(10), ..key(&ada, 8) };
    let since = just_before(at(10));
    assert_eq!(insert(&later, 22, None, since).await?, InsertOutcome::Inserted, "a later key");
    let taken = InsertOutcome::TokenTaken(later.id);
    assert_eq!(insert(&again, 23, None, since).await?, taken, "the later key has the token");
    for gone in [&first, &later] {
        let by = event(EventKind::Deleted, gone, at(11));
        assert!(storage.handle().delete((&ada).into(), gone.id, &by).await?);
    }
    let inserted = insert(&again, 24, None, at(0)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted, "the keys with the token are deleted");
    Ok(())
}

async fn racing_inserts_with_one_token_make_one_key(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let ada = owner(round);
        let answers = race(32, |task| {
            let (store, n) = (storage.handle(), round * 1_000 + task);
            let key = Key { issue_token: Some([7; 32]), ..key(&ada, n) };
            async move {
                let created = event(EventKind::Created, &key, at(1));
                let answer = store.insert(insert_key(&key, &digest(n), 5, &created)).await?;
                Ok((key.id, answer))
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let made: Vec<_> =
            answers.iter().filter(|(_, it)| *it == InsertOutcome::Inserted).collect();
        let [(id, _)] = made[..] else {
            panic!("{} keys were inserted with one token", made.len())
        };
        let taken = answers.iter().filter(|(_, it)| *it == InsertOutcome::TokenTaken(*id)).count();
        assert_eq!(taken, 31, "inserts that were answered with the key, of 32 with one token");
        let stored = storage.keys((&ada).into()).await?;
        assert_eq!(stored.iter().map(|key| key.id).collect::<Vec<_>>(), [*id], "stored keys");
    }
    Ok(())
}

/// Inserts a key with the `n`th secret.
async fn try_insert(
    storage: &TestStorage,
    key: &Key,
    n: u64,
    limit: impl Into<Option<u32>>,
    at: Timestamp,
) -> Result<InsertOutcome, StoreError> {
    let created = event(EventKind::Created, key, at);
    storage.handle().insert(insert_key(key, &digest(n), limit, &created)).await
}

async fn an_update_writes_its_fields_and_nothing_else(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let issued = Key { expires_at: Some(at(100)), ..key(&ada, 1) };
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let stored = storage.key(&issued).await?;

    let mine = Key {
        name: name("renamed"),
        access: Access::only(["a", "b"]).expect("valid scopes"),
        limits: KeyLimits { rate: Some(Rate::per_minute(3)), ..KeyLimits::default() },
        networks: Networks::only(["192.0.2.0/24"]).expect("valid networks"),
        metadata: Metadata::new([("a", "b")]).expect("valid pairs"),
        disabled_at: Some(at(7)),
        ..stored.clone()
    };
    // Fields that an update must not write differ too.
    let given = Key {
        hint: "kw_forged".into(),
        retiring: Some(RetiringSecret { hint: "kw_forged".into(), ends_at: at(999) }),
        created_at: at(999),
        expires_at: None,
        revoked: Some(Revocation { at: at(999), reason: "forged".into() }),
        rotated_at: Some(at(999)),
        rotation_token: Some([9; 32]),
        issue_token: Some([9; 32]),
        first_used_at: Some(at(999)),
        secret_first_used_at: Some(at(999)),
        last_used_at: Some(at(999)),
        last_used_ip: Some([192, 0, 2, 9].into()),
        ..mine.clone()
    };
    storage.update(&given, at(8)).await?;
    let wanted = Key { revision: stored.revision + 1, ..mine };
    assert_eq!(storage.key(&issued).await?, wanted, "after the update");
    assert_eq!(storage.holder(&digest(1)).await?, Some((issued.id, Some(at(50)))));
    assert_eq!(storage.holder(&digest(2)).await?, Some((issued.id, None)));

    // Every field that an update sets can be reset.
    let plain = Key { revision: wanted.revision, ..key(&ada, 1) };
    storage.update(&plain, at(9)).await?;
    let Key { name, access, limits, networks, metadata, disabled_at, .. } = plain;
    let revision = wanted.revision + 1;
    let wanted = Key { name, access, limits, networks, metadata, disabled_at, revision, ..wanted };
    assert_eq!(storage.key(&issued).await?, wanted, "after the reset");
    Ok(())
}

async fn an_update_applies_only_to_the_revision_it_was_based_on(
    storage: TestStorage,
) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.update(&issued, at(1)).await?;
    let current = storage.key(&issued).await?;

    let watch = Watch::start(&storage, "acme", [digest(1)]).await?;
    let before = watch.snapshot().await?;
    for revision in [current.revision - 1, current.revision + 1, i64::MAX as u64] {
        let based = Key { revision, name: name("stale"), ..current.clone() };
        let answer =
            storage.handle().update(&based, &event(EventKind::Updated, &based, at(2))).await?;
        assert_eq!(
            answer,
            UpdateOutcome::Conflict,
            "an update of revision {revision}; the stored one is {}",
            current.revision
        );
    }
    let absent = key(&owner(1), 2);
    let answer =
        storage.handle().update(&absent, &event(EventKind::Updated, &absent, at(2))).await?;
    assert_eq!(answer, UpdateOutcome::NotFound, "the key does not exist");
    assert_eq!(watch.snapshot().await?, before, "a refused update changed something");
    storage.update(&current, at(3)).await
}

async fn an_update_does_not_change_a_revoked_key(storage: TestStorage) -> CheckResult {
    let issued = Key { disabled_at: Some(at(1)), ..key(&owner(1), 1) };
    storage.add(&issued, &digest(1)).await?;
    let by = revocation(&issued, at(2), "leaked");
    let _revoked = storage.handle().revoke((&issued.owner).into(), issued.id, &by).await?;

    let watch = Watch::start(&storage, "acme", [digest(1)]).await?;
    let before = watch.snapshot().await?;
    let stored = storage.key(&issued).await?;
    for revision in [issued.revision, stored.revision] {
        let enabled = Key { disabled_at: None, revoked: None, revision, ..stored.clone() };
        let event = event(EventKind::Enabled, &enabled, at(3));
        let answer = storage.handle().update(&enabled, &event).await?;
        assert_eq!(answer, UpdateOutcome::Conflict, "the key is revoked");
    }
    assert_eq!(watch.snapshot().await?, before, "an update changed a revoked key");
    Ok(())
}

async fn racing_updates_of_one_revision_have_one_winner(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        storage.add(&issued, &digest(round)).await?;
        let answers = race(8, |task| {
            let (store, mine) = (storage.handle(), name(&format!("winner {task}")));
            let key = Key { name: mine.clone(), ..issued.clone() };
            async move {
                let event = event(EventKind::Updated, &key, at(1));
                Ok((mine, store.update(&key, &event).await?))
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let won: Vec<_> = answers.iter().filter(|(_, it)| *it == UpdateOutcome::Updated).collect();
        let [(name, _)] = won[..] else { panic!("{} updates of one revision won", won.len()) };
        let stored = storage.key(&issued).await?;
        assert_eq!(
            (&stored.name, stored.revision),
            (name, 1),
            "the winner's name and the next revision"
        );
        let log = storage.log((&issued.owner).into()).await?;
        let written = log.iter().filter(|event| event.kind == EventKind::Updated).count();
        assert_eq!(written, 1, "events of one update");
    }
    Ok(())
}

async fn a_rotation_retires_the_current_secret_and_changes_nothing_else(
    storage: TestStorage,
) -> CheckResult {
    // The overlap may end after the expiry, before it, or immediately.
    for (n, (expires_at, ends_at)) in
        (1..).zip([(Some(at(60)), at(100)), (Some(at(60)), at(50)), (None, at(50)), (None, at(0))])
    {
        let issued = Key { expires_at, disabled_at: Some(at(1)), ..key(&owner(n), n) };
        let (old, new) = (digest(n), digest(n + 100));
        storage.add(&issued, &old).await?;
        // Other fields of the passed key differ from the stored ones and must be ignored.
        let given = Key { expires_at: Some(at(9_999)), disabled_at: None, ..issued.clone() };
        let event = event(EventKind::Rotated, &issued, at(40));
        let rotate = RotateSecret {
            key: &given,
            digest: &new,
            hint: "kw_new",
            previous: PreviousSecret::EndsAt(ends_at),
            token: Some([5; 32]),
            event: &event,
        };
        assert_eq!(storage.handle().rotate(rotate).await?, RotateOutcome::Rotated);
        let wanted = Key {
            hint: "kw_new".into(),
            retiring: Some(RetiringSecret { hint: issued.hint.clone(), ends_at }),
            rotated_at: Some(at(40)),
            rotation_token: Some([5; 32]),
            revision: 1,
            ..issued
        };
        assert_eq!(storage.key(&wanted).await?, wanted, "after a rotation");
        assert_eq!(
            storage.holder(&old).await?,
            Some((wanted.id, Some(ends_at))),
            "the retiring secret"
        );
        assert_eq!(storage.holder(&new).await?, Some((wanted.id, None)), "the current secret");
    }
    Ok(())
}

async fn a_rotation_sets_and_removes_the_token(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    for (n, token) in (2..).zip([None, Some([1; 32]), Some([2; 32]), None, Some([2; 32])]) {
        let stored = storage.key(&issued).await?;
        let (to, event) = (digest(n), event(EventKind::Rotated, &stored, at(n)));
        let rotate = rotation(&stored, &to, PreviousSecret::EndsAt(at(90)), &event);
        let rotated = storage.handle().rotate(RotateSecret { token, ..rotate }).await?;
        assert_eq!(rotated, RotateOutcome::Rotated);
        assert_eq!(storage.key(&issued).await?.rotation_token, token, "after rotation {n}");
    }
    Ok(())
}

async fn a_second_rotation_removes_the_retiring_secret(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let rotated = storage.key(&issued).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::EndsAt(at(70))).await?;

    assert_eq!(
        storage.holder(&digest(1)).await?,
        None,
        "the older retiring secret, during its overlap"
    );
    assert_eq!(storage.holder(&digest(2)).await?, Some((issued.id, Some(at(70)))));
    assert_eq!(storage.holder(&digest(3)).await?, Some((issued.id, None)));
    let stored = storage.key(&issued).await?;
    assert_eq!(stored.retiring, Some(RetiringSecret { hint: rotated.hint, ends_at: at(70) }));
    assert_eq!(stored.revision, 2);
    Ok(())
}

async fn a_replaced_secret_is_removed_and_the_retiring_one_stays(
    storage: TestStorage,
) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    // The answer to the first rotation was lost, so the client never received secret 2.
    let rotated = storage.key(&issued).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::Replaced).await?;

    assert_eq!(
        storage.holder(&digest(1)).await?,
        Some((issued.id, Some(at(50)))),
        "the retiring one"
    );
    assert_eq!(storage.holder(&digest(2)).await?, None, "the replaced secret");
    assert_eq!(storage.holder(&digest(3)).await?, Some((issued.id, None)), "the current secret");
    assert_eq!(
        storage.key(&issued).await?.retiring,
        rotated.retiring,
        "the hint of the retiring secret"
    );

    // Without a retiring secret, the new secret is the only one.
    let single = key(&owner(1), 2);
    storage.add(&single, &digest(4)).await?;
    storage.rotate(&single, &digest(5), PreviousSecret::Replaced).await?;
    assert_eq!(storage.holder(&digest(4)).await?, None, "the only secret, replaced");
    assert_eq!(storage.holder(&digest(5)).await?, Some((single.id, None)));
    assert_eq!(storage.key(&single).await?.retiring, None, "nothing is retiring");
    Ok(())
}

async fn a_used_secret_is_not_replaced(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    let record = async |by: SecretDigest, from, to| {
        let uses = KeyUse { digest: by, ..key_use(&issued, at(from), at(to)) };
        storage.handle().record_uses(&[uses]).await
    };
    let replace = async |to| {
        let stored = storage.key(&issued).await?;
        let event = event(EventKind::Rotated, &stored, at(99));
        let to = digest(to);
        storage.handle().rotate(rotation(&stored, &to, PreviousSecret::Replaced, &event)).await
    };
    let first_used = async || Ok::<_, StoreError>(storage.key(&issued).await?.secret_first_used_at);

    assert_eq!(replace(2).await?, RotateOutcome::Rotated, "the secret was not used");
    record(digest(1), 9, 9).await?;
    assert_eq!(first_used().await?, None, "a replaced secret was used");
    record(digest(2), 10, 12).await?;
    record(digest(2), 13, 14).await?;
    assert_eq!(first_used().await?, Some(at(10)), "the first use of the current secret");
    let watch = Watch::start(&storage, "acme", (1..=9).map(digest)).await?;
    let before = watch.snapshot().await?;
    assert_eq!(replace(3).await?, RotateOutcome::SecretUsed);
    assert_eq!(watch.snapshot().await?, before, "a refused replacement changed something");

    // An update keeps it, and a rotation that retires the used secret resets it.
    let stored = storage.key(&issued).await?;
    storage.update(&stored, at(15)).await?;
    assert_eq!(first_used().await?, Some(at(10)), "after an update");
    storage
        .rotate(&storage.key(&issued).await?, &digest(4), PreviousSecret::EndsAt(at(50)))
        .await?;
    assert_eq!(first_used().await?, None, "the new secret was not used");
    record(digest(2), 20, 20).await?;
    assert_eq!(first_used().await?, None, "the retiring secret was used");
    assert_eq!(replace(5).await?, RotateOutcome::Rotated, "only the retiring secret was used");
    let retiring = storage.holder(&digest(2)).await?;
    assert_eq!(retiring, Some((issued.id, Some(at(50)))), "the retiring secret");

    assert!(storage.handle().rehash(&digest(5), &peppered(5)).await?);
    record(peppered(5), 21, 21).await?;
    assert_eq!(replace(6).await?, RotateOutcome::SecretUsed, "used by its new digest");
    Ok(())
}

async fn a_replacement_racing_a_use_of_the_secret_sees_it(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        storage.add(&issued, &digest(round)).await?;
        // One task replaces the secret. The others use it, and read the key afterwards. On a busy machine, the same
        // task may come first in each round.
        let replacing = round % 4;
        let answers = race(4, |task| {
            let (store, key) = (storage.handle(), issued.clone());
            async move {
                if task == replacing {
                    let (event, to) = (event(EventKind::Rotated, &key, at(2)), digest(round + 500));
                    let rotate = rotation(&key, &to, PreviousSecret::Replaced, &event);
                    return Ok(store.rotate(rotate).await? == RotateOutcome::Rotated);
                }
                let uses = KeyUse { digest: digest(round), ..key_use(&key, at(1), at(1)) };
                store.record_uses(&[uses]).await?;
                let read = store.get((&key.owner).into(), key.id).await?.expect("the key exists");
                // Before the replacement, and with the use.
                Ok(read.revision == 0 && read.secret_first_used_at.is_some())
            }
        });
        let mut answers = answers.await.into_iter().collect::<Result<Vec<bool>, StoreError>>()?;
        let (replaced, seen_used) = (answers.remove(replacing as usize), answers.contains(&true));
        assert!(!(replaced && seen_used), "a secret was replaced after its use was recorded");
        let stored = storage.key(&issued).await?;
        assert_eq!(stored.secret_first_used_at.is_some(), !replaced, "replaced: {replaced}");
    }
    Ok(())
}

async fn a_rotation_to_an_existing_digest_changes_nothing(storage: TestStorage) -> CheckResult {
    let (mine, other) = (key(&owner(1), 1), key(&owner(2), 2));
    storage.add(&mine, &digest(1)).await?;
    storage.rotate(&mine, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    storage.add(&other, &digest(3)).await?;
    storage.rotate(&other, &digest(4), PreviousSecret::EndsAt(at(50))).await?;

    let watch = Watch::start(&storage, "acme", (1..=4).map(digest)).await?;
    let before = watch.snapshot().await?;
    let rotated = storage.key(&mine).await?;
    let secrets =
        [(2, "its current"), (1, "its retiring"), (4, "another current"), (3, "another retiring")];
    for (n, which) in secrets {
        for previous in [PreviousSecret::EndsAt(at(70)), PreviousSecret::Replaced] {
            let event = event(EventKind::Rotated, &rotated, at(2));
            let to = digest(n);
            let answer = storage.handle().rotate(rotation(&rotated, &to, previous, &event)).await?;
            assert_eq!(
                answer,
                RotateOutcome::DigestTaken,
                "rotated to {which} secret, {previous:?}"
            );
            assert_eq!(
                watch.snapshot().await?,
                before,
                "after a refused rotation to {which} secret"
            );
        }
    }
    Ok(())
}

async fn a_rotation_applies_only_to_the_revision_it_was_based_on(
    storage: TestStorage,
) -> CheckResult {
    let (issued, dead, absent) = (key(&owner(1), 1), key(&owner(1), 2), key(&owner(1), 3));
    storage.add(&issued, &digest(1)).await?;
    storage.update(&issued, at(1)).await?;
    let current = storage.key(&issued).await?;
    storage.add(&dead, &digest(2)).await?;
    let by = revocation(&dead, at(1), "");
    let _revoked = storage.handle().revoke((&dead.owner).into(), dead.id, &by).await?;
    let dead = storage.key(&dead).await?;

    let watch = Watch::start(&storage, "acme", (1..=9).map(digest)).await?;
    let before = watch.snapshot().await?;
    let future = Key { revision: current.revision + 1, ..current.clone() };
    let cases = [
        ("an older revision", &issued, RotateOutcome::Conflict),
        ("a future revision", &future, RotateOutcome::Conflict),
        ("a revoked key", &dead, RotateOutcome::Conflict),
        ("no key", &absent, RotateOutcome::NotFound),
    ];
    for (what, key, wanted) in cases {
        for previous in [PreviousSecret::EndsAt(at(70)), PreviousSecret::Replaced] {
            let event = event(EventKind::Rotated, key, at(2));
            let answer =
                storage.handle().rotate(rotation(key, &digest(9), previous, &event)).await?;
            assert_eq!(answer, wanted, "a rotation of {what}");
        }
    }
    assert_eq!(watch.snapshot().await?, before, "a refused rotation changed something");
    storage.rotate(&current, &digest(9), PreviousSecret::Replaced).await
}

async fn racing_rotations_of_one_revision_have_one_winner(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        let secret = |task| digest(round * 1_000 + task);
        storage.add(&issued, &digest(round)).await?;
        let answers = race(8, |task| {
            let (store, key, to) = (storage.handle(), issued.clone(), secret(task));
            async move {
                let event = event(EventKind::Rotated, &key, at(1));
                let rotate = rotation(&key, &to, PreviousSecret::EndsAt(at(50)), &event);
                store.rotate(rotate).await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let won = answers.iter().filter(|answer| **answer == RotateOutcome::Rotated).count();
        assert_eq!(won, 1, "winning rotations of one revision");
        for (task, answer) in (0..).zip(answers) {
            let found = storage.holder(&secret(task)).await?.is_some();
            let won = answer == RotateOutcome::Rotated;
            assert_eq!(found, won, "exactly the secret of the winning rotation is stored");
        }
        let former = storage.holder(&digest(round)).await?;
        assert_eq!(former, Some((issued.id, Some(at(50)))), "the secret before the race");
    }
    Ok(())
}

async fn a_rehash_replaces_one_digest_and_changes_nothing_else(
    storage: TestStorage,
) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let watch = Watch::start(&storage, "acme", []).await?;
    let before = watch.snapshot().await?;

    let (former, current) = (peppered(1), peppered(2));
    assert!(storage.handle().rehash(&digest(1), &former).await?, "the retiring secret");
    assert!(storage.handle().rehash(&digest(2), &current).await?, "the current secret");
    assert_eq!(storage.holder(&digest(1)).await?, None, "by the old digest");
    assert_eq!(storage.holder(&digest(2)).await?, None, "by the old digest");
    assert_eq!(storage.holder(&former).await?, Some((issued.id, Some(at(50)))), "the retiring one");
    assert_eq!(storage.holder(&current).await?, Some((issued.id, None)), "the current secret");
    assert_eq!(watch.snapshot().await?, before, "a rehash changed a key, the log or the feed");

    // The old digest can be used again, and a rotation finds the new one.
    storage.add(&key(&owner(1), 2), &digest(2)).await?;
    let rotated = storage.key(&issued).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::EndsAt(at(70))).await?;
    assert_eq!(storage.holder(&former).await?, None, "the secret before the previous one");
    assert_eq!(storage.holder(&current).await?, Some((issued.id, Some(at(70)))));
    Ok(())
}

async fn a_rehash_from_a_missing_or_to_an_existing_digest_changes_nothing(
    storage: TestStorage,
) -> CheckResult {
    let (mine, other) = (key(&owner(1), 1), key(&owner(2), 2));
    storage.add(&mine, &digest(1)).await?;
    storage.rotate(&mine, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    storage.add(&other, &digest(3)).await?;
    let digests = (1..=3).map(digest).chain([peppered(1)]);
    let watch = Watch::start(&storage, "acme", digests).await?;
    let before = watch.snapshot().await?;
    let cases = [
        ("to another key's secret", digest(2), digest(3)),
        ("to the key's own retiring secret", digest(2), digest(1)),
        ("of the retiring to the current secret", digest(1), digest(2)),
        ("of a secret that does not exist", digest(9), peppered(1)),
    ];
    for (what, from, to) in cases {
        assert!(!storage.handle().rehash(&from, &to).await?, "a rehash {what}");
        assert_eq!(watch.snapshot().await?, before, "after a rehash {what}");
    }
    Ok(())
}

async fn racing_rehashes_of_one_secret_have_one_winner(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        let issued = key(&owner(1), round);
        storage.add(&issued, &digest(round)).await?;
        let to = |task| peppered(round * 1_000 + task);
        let answers = race(6, |task| {
            let (store, to) = (storage.handle(), to(task));
            async move { store.rehash(&digest(round), &to).await }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<bool>, StoreError>>()?;
        assert_eq!(answers.iter().filter(|won| **won).count(), 1, "winning rehashes");
        for (task, won) in (0..).zip(answers) {
            let holder = storage.holder(&to(task)).await?;
            assert_eq!(
                holder,
                won.then_some((issued.id, None)),
                "by the digest of one of the tasks"
            );
        }
    }
    Ok(())
}

/// The digest of the `n`th secret under another hasher.
fn peppered(n: u64) -> SecretDigest {
    let bytes = digest(n).to_bytes()[3..].try_into().expect("a digest has 32 bytes of hash");
    SecretDigest::from_parts(HasherTag::custom(1), bytes)
}
