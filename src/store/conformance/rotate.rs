//! Rotations: which secrets lead to the key afterwards, and that nothing else of it changed.

use super::{
    sample::{at, digest, event, key, owner, revocation, rotation},
    storage::{Checked, Storage, race},
    suite::checks,
    view::Watch,
};
use crate::{
    audit::EventKind,
    model::{Key, Retiring},
    store::{PreviousSecret, RotateOutcome, RotateSecret, StoreError},
};

checks![
    a_rotation_retires_the_current_secret_and_changes_nothing_else,
    a_second_rotation_removes_the_retiring_secret,
    a_replaced_secret_is_removed_and_the_retiring_one_stays,
    a_rotation_to_an_existing_digest_changes_nothing,
    a_rotation_applies_only_to_the_revision_it_was_based_on,
    racing_rotations_of_one_revision_have_one_winner,
];

async fn a_rotation_retires_the_current_secret_and_changes_nothing_else(
    storage: Storage,
) -> Checked {
    // An overlap may reach beyond the expiry, end before it, or never have begun.
    for (n, (expires_at, ends_at)) in
        (1..).zip([(Some(at(60)), at(100)), (Some(at(60)), at(50)), (None, at(50)), (None, at(0))])
    {
        let issued = Key { expires_at, disabled_at: Some(at(1)), ..key(&owner(n), n) };
        let (old, new) = (digest(n), digest(n + 100));
        storage.add(&issued, &old).await?;
        // What the key has besides in the caller's hands is not what is stored.
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
        assert_eq!(storage.any().rotate(rotate).await?, RotateOutcome::Rotated);
        let wanted = Key {
            hint: "kw_new".into(),
            retiring: Some(Retiring { hint: issued.hint.clone(), ends_at }),
            rotated_at: Some(at(40)),
            rotation_token: Some([5; 32]),
            revision: 1,
            ..issued
        };
        assert_eq!(storage.key(&wanted).await?, wanted, "after a rotation");
        assert_eq!(storage.holder(&old).await?, Some((wanted.id, Some(ends_at))), "the former");
        assert_eq!(storage.holder(&new).await?, Some((wanted.id, None)), "the current secret");
    }
    Ok(())
}

async fn a_second_rotation_removes_the_retiring_secret(storage: Storage) -> Checked {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let rotated = storage.key(&issued).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::EndsAt(at(70))).await?;

    assert_eq!(storage.holder(&digest(1)).await?, None, "the former secret, during its overlap");
    assert_eq!(storage.holder(&digest(2)).await?, Some((issued.id, Some(at(70)))));
    assert_eq!(storage.holder(&digest(3)).await?, Some((issued.id, None)));
    let stored = storage.key(&issued).await?;
    assert_eq!(stored.retiring, Some(Retiring { hint: rotated.hint, ends_at: at(70) }));
    assert_eq!(stored.revision, 2);
    Ok(())
}

async fn a_replaced_secret_is_removed_and_the_retiring_one_stays(storage: Storage) -> Checked {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    // The answer to the first rotation got lost, so that nobody has secret 2.
    let rotated = storage.key(&issued).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::Replaced).await?;

    assert_eq!(storage.holder(&digest(1)).await?, Some((issued.id, Some(at(50)))), "the former");
    assert_eq!(storage.holder(&digest(2)).await?, None, "the secret that was replaced");
    assert_eq!(storage.holder(&digest(3)).await?, Some((issued.id, None)), "the current secret");
    assert_eq!(storage.key(&issued).await?.retiring, rotated.retiring, "the hint of the former");

    // Without a former secret, the new one is the only one.
    let single = key(&owner(1), 2);
    storage.add(&single, &digest(4)).await?;
    storage.rotate(&single, &digest(5), PreviousSecret::Replaced).await?;
    assert_eq!(storage.holder(&digest(4)).await?, None, "the only secret, replaced");
    assert_eq!(storage.holder(&digest(5)).await?, Some((single.id, None)));
    assert_eq!(storage.key(&single).await?.retiring, None, "nothing is retiring");
    Ok(())
}

async fn a_rotation_to_an_existing_digest_changes_nothing(storage: Storage) -> Checked {
    let (mine, other) = (key(&owner(1), 1), key(&owner(2), 2));
    storage.add(&mine, &digest(1)).await?;
    storage.rotate(&mine, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    storage.add(&other, &digest(3)).await?;
    storage.rotate(&other, &digest(4), PreviousSecret::EndsAt(at(50))).await?;

    let watch = Watch::begin(&storage, "acme", (1..=4).map(digest)).await?;
    let before = watch.look().await?;
    let rotated = storage.key(&mine).await?;
    let secrets =
        [(2, "its current"), (1, "its former"), (4, "another's current"), (3, "another's former")];
    for (n, within) in secrets {
        for previous in [PreviousSecret::EndsAt(at(70)), PreviousSecret::Replaced] {
            let event = event(EventKind::Rotated, &rotated, at(2));
            let to = digest(n);
            let answer = storage.any().rotate(rotation(&rotated, &to, previous, &event)).await?;
            assert_eq!(
                answer,
                RotateOutcome::DigestTaken,
                "rotated to {within} secret, {previous:?}"
            );
            assert_eq!(watch.look().await?, before, "after a refused rotation to {within} secret");
        }
    }
    Ok(())
}

async fn a_rotation_applies_only_to_the_revision_it_was_based_on(storage: Storage) -> Checked {
    let (issued, dead, absent) = (key(&owner(1), 1), key(&owner(1), 2), key(&owner(1), 3));
    storage.add(&issued, &digest(1)).await?;
    storage.update(&issued, at(1)).await?;
    let current = storage.key(&issued).await?;
    storage.add(&dead, &digest(2)).await?;
    let by = revocation(&dead, at(1), "");
    let _now = storage.any().revoke((&dead.owner).into(), dead.id, &by).await?;
    let dead = storage.key(&dead).await?;

    let watch = Watch::begin(&storage, "acme", (1..=9).map(digest)).await?;
    let before = watch.look().await?;
    let future = Key { revision: current.revision + 1, ..current.clone() };
    let cases = [
        ("a former revision", &issued, RotateOutcome::Conflict),
        ("a future revision", &future, RotateOutcome::Conflict),
        ("a revoked key", &dead, RotateOutcome::Conflict),
        ("no key", &absent, RotateOutcome::NotFound),
    ];
    for (what, key, wanted) in cases {
        for previous in [PreviousSecret::EndsAt(at(70)), PreviousSecret::Replaced] {
            let event = event(EventKind::Rotated, key, at(2));
            let answer = storage.any().rotate(rotation(key, &digest(9), previous, &event)).await?;
            assert_eq!(answer, wanted, "a rotation of {what}");
        }
    }
    assert_eq!(watch.look().await?, before, "a rotation that was refused changed something");
    storage.rotate(&current, &digest(9), PreviousSecret::Replaced).await
}

async fn racing_rotations_of_one_revision_have_one_winner(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        let secret = |task| digest(round * 1_000 + task);
        storage.add(&issued, &digest(round)).await?;
        let answers = race(8, |task| {
            let (store, key, to) = (storage.any(), issued.clone(), secret(task));
            async move {
                let event = event(EventKind::Rotated, &key, at(1));
                let rotate = rotation(&key, &to, PreviousSecret::EndsAt(at(50)), &event);
                store.rotate(rotate).await
            }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let won = answers.iter().filter(|answer| **answer == RotateOutcome::Rotated).count();
        assert_eq!(won, 1, "rotations of one revision that won");
        for (task, answer) in (0..).zip(answers) {
            let leads = storage.holder(&secret(task)).await?.is_some();
            let won = answer == RotateOutcome::Rotated;
            assert_eq!(leads, won, "a secret leads to its key if its rotation won");
        }
        let former = storage.holder(&digest(round)).await?;
        assert_eq!(former, Some((issued.id, Some(at(50)))), "the secret before the race");
    }
    Ok(())
}
