//! Updates: only over the revision they were based on, only what is theirs to write.

use super::{
    sample::{at, digest, event, key, name, owner, revocation},
    storage::{Checked, Storage, race},
    suite::checks,
    view::Watch,
};
use crate::{
    audit::EventKind,
    model::{Access, Key, KeyLimits, Metadata, Networks, Rate, Retiring, Revocation},
    store::{PreviousSecret, StoreError, UpdateOutcome},
};

checks![
    an_update_writes_its_fields_and_nothing_else,
    an_update_applies_only_to_the_revision_it_was_based_on,
    an_update_does_not_change_a_revoked_key,
    racing_updates_of_one_revision_have_one_winner,
];

async fn an_update_writes_its_fields_and_nothing_else(storage: Storage) -> Checked {
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
    // All that an update must not write differs as well.
    let given = Key {
        hint: "kw_forged".into(),
        retiring: Some(Retiring { hint: "kw_forged".into(), ends_at: at(999) }),
        created_at: at(999),
        expires_at: None,
        revoked: Some(Revocation { at: at(999), reason: "forged".into() }),
        rotated_at: Some(at(999)),
        rotation_token: Some([9; 32]),
        first_used_at: Some(at(999)),
        last_used_at: Some(at(999)),
        last_used_ip: Some([192, 0, 2, 9].into()),
        ..mine.clone()
    };
    storage.update(&given, at(8)).await?;
    let wanted = Key { revision: stored.revision + 1, ..mine };
    assert_eq!(storage.key(&issued).await?, wanted, "after the update");
    assert_eq!(storage.holder(&digest(1)).await?, Some((issued.id, Some(at(50)))));
    assert_eq!(storage.holder(&digest(2)).await?, Some((issued.id, None)));

    // And everything that it may set, it may take away again.
    let plain = Key { revision: wanted.revision, ..key(&ada, 1) };
    storage.update(&plain, at(9)).await?;
    let Key { name, access, limits, networks, metadata, disabled_at, .. } = plain;
    let revision = wanted.revision + 1;
    let wanted = Key { name, access, limits, networks, metadata, disabled_at, revision, ..wanted };
    assert_eq!(storage.key(&issued).await?, wanted, "after the update back");
    Ok(())
}

async fn an_update_applies_only_to_the_revision_it_was_based_on(storage: Storage) -> Checked {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.update(&issued, at(1)).await?;
    let current = storage.key(&issued).await?;

    let watch = Watch::begin(&storage, "acme", [digest(1)]).await?;
    let before = watch.look().await?;
    for revision in [current.revision - 1, current.revision + 1, i64::MAX as u64] {
        let based = Key { revision, name: name("stale"), ..current.clone() };
        let answer =
            storage.any().update(&based, &event(EventKind::Updated, &based, at(2))).await?;
        assert_eq!(
            answer,
            UpdateOutcome::Conflict,
            "revision {revision}, not {}",
            current.revision
        );
    }
    let absent = key(&owner(1), 2);
    let answer = storage.any().update(&absent, &event(EventKind::Updated, &absent, at(2))).await?;
    assert_eq!(answer, UpdateOutcome::NotFound, "there is no such key");
    assert_eq!(watch.look().await?, before, "an update that was refused changed something");
    storage.update(&current, at(3)).await
}

async fn an_update_does_not_change_a_revoked_key(storage: Storage) -> Checked {
    let issued = Key { disabled_at: Some(at(1)), ..key(&owner(1), 1) };
    storage.add(&issued, &digest(1)).await?;
    let by = revocation(&issued, at(2), "leaked");
    let _now = storage.any().revoke((&issued.owner).into(), issued.id, &by).await?;

    let watch = Watch::begin(&storage, "acme", [digest(1)]).await?;
    let before = watch.look().await?;
    let stored = storage.key(&issued).await?;
    for revision in [issued.revision, stored.revision] {
        let enabled = Key { disabled_at: None, revoked: None, revision, ..stored.clone() };
        let event = event(EventKind::Enabled, &enabled, at(3));
        let answer = storage.any().update(&enabled, &event).await?;
        assert_eq!(answer, UpdateOutcome::Conflict, "the key is revoked");
    }
    assert_eq!(watch.look().await?, before, "an update changed a revoked key");
    Ok(())
}

async fn racing_updates_of_one_revision_have_one_winner(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let issued = key(&owner(round), round);
        storage.add(&issued, &digest(round)).await?;
        let answers = race(8, |task| {
            let (store, mine) = (storage.any(), name(&format!("winner {task}")));
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
            "the winner's name, one revision on"
        );
        let log = storage.log((&issued.owner).into()).await?;
        let written = log.iter().filter(|event| event.kind == EventKind::Updated).count();
        assert_eq!(written, 1, "events of one update");
    }
    Ok(())
}
