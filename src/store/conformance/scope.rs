//! Isolation: a key or event outside `within` is *not found* by every method, and does not change.

use super::{
    check::{CheckResult, Snapshot, TestStorage, Watch, checks},
    fixtures::{all_keys, at, digest, event, key, key_use, owner, owner_of, revocation, rotation},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, Owner, OwnerScope},
    store::{KeyQuery, PreviousSecret, RevokeOutcome, RotateOutcome, StoreError, UpdateOutcome},
};

checks![
    another_owners_key_cannot_be_read,
    another_owners_key_cannot_be_listed,
    another_owners_key_cannot_be_updated,
    another_owners_key_cannot_be_rotated,
    another_owners_key_cannot_be_revoked,
    another_owners_keys_are_not_revoked_by_revoke_all,
    another_owners_key_cannot_be_deleted,
    another_owners_key_records_no_uses,
    another_owners_events_cannot_be_read,
    an_administrator_reaches_every_key_of_the_tenant,
];

async fn another_owners_key_cannot_be_read(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for stranger in scene.strangers() {
        let read = storage.handle().get(stranger, scene.key.id).await?;
        assert_eq!(read, None, "read by {stranger:?}");
    }
    assert_eq!(storage.key(&scene.key).await?, scene.key, "read by its owner");
    Ok(())
}

async fn another_owners_key_cannot_be_listed(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    let [namesake, colleague, tenant, nobody] = scene.strangers();
    for (stranger, own) in [(namesake, 2), (colleague, 3), (tenant, 2)] {
        let listed = storage.keys(stranger).await?;
        let listed: Vec<_> = listed.iter().map(|listed| listed.id).collect();
        assert_eq!(listed, [key(&scene.key.owner, own).id], "listed by {stranger:?}");
    }
    assert_eq!(storage.keys(nobody).await?, [], "listed by {nobody:?}");

    // Also behind a cursor: another owner's key may serve as one, and opens no door.
    for stranger in [namesake, colleague] {
        let query = KeyQuery { after: Some(key(&scene.key.owner, 2).id), ..all_keys(stranger) };
        let listed = storage.handle().list(&query).await?;
        assert!(!listed.iter().any(|it| it.id == scene.key.id), "paged by {stranger:?}");
    }
    Ok(())
}

async fn another_owners_key_cannot_be_updated(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for forged in scene.forgeries() {
        let event = event(EventKind::Updated, &forged, at(1));
        let answer = storage.handle().update(&forged, &event).await?;
        assert_eq!(answer, UpdateOutcome::NotFound, "updated as if of {:?}", forged.owner);
    }
    scene.assert_untouched().await
}

async fn another_owners_key_cannot_be_rotated(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for forged in scene.forgeries() {
        let event = event(EventKind::Rotated, &forged, at(1));
        let to = digest(9);
        let rotate = rotation(&forged, &to, PreviousSecret::EndsAt(at(5)), &event);
        let answer = storage.handle().rotate(rotate).await?;
        assert_eq!(answer, RotateOutcome::NotFound, "rotated as if of {:?}", forged.owner);
    }
    scene.assert_untouched().await
}

async fn another_owners_key_cannot_be_revoked(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for stranger in scene.strangers() {
        let event = revocation(&scene.key, at(1), "forged");
        let answer = storage.handle().revoke(stranger, scene.key.id, &event).await?;
        assert_eq!(answer, RevokeOutcome::NotFound, "revoked by {stranger:?}");
    }
    scene.assert_untouched().await
}

async fn another_owners_keys_are_not_revoked_by_revoke_all(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for owner in [owner(7), owner_of("nobody", "account-1"), owner_of("", "account-1")] {
        let event = revocation(&scene.key, at(1), "forged");
        let revoked = storage.handle().revoke_all(&owner, &event).await?;
        assert_eq!(revoked, [], "revoked for {owner:?}, who has no keys");
    }
    scene.assert_untouched().await
}

async fn another_owners_key_cannot_be_deleted(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for stranger in scene.strangers() {
        let event = event(EventKind::Deleted, &scene.key, at(1));
        let deleted = storage.handle().delete(stranger, scene.key.id, &event).await?;
        assert!(!deleted, "deleted by {stranger:?}");
    }
    scene.assert_untouched().await
}

async fn another_owners_key_records_no_uses(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    for forged in scene.forgeries() {
        let written = storage.handle().record_uses(&[key_use(&forged, at(1), at(2))]).await?;
        assert_eq!(written, [], "used as if of {:?}", forged.owner);
    }
    scene.assert_untouched().await
}

async fn another_owners_events_cannot_be_read(storage: TestStorage) -> CheckResult {
    let scene = Scene::build(&storage).await?;
    let own = |event: &AuditEvent| event.key_id == Some(scene.key.id);
    for stranger in scene.strangers() {
        let log = storage.log(stranger).await?;
        assert!(!log.iter().any(own), "{stranger:?} reads {log:?}");
        let query = AuditQuery::new(stranger).key(scene.key.id).kind(EventKind::Created);
        assert_eq!(storage.handle().events(&query).await?, [], "asked for by {stranger:?}");
    }
    for within in
        [OwnerScope::Owner(&scene.key.owner), OwnerScope::Tenant(scene.key.owner.tenant())]
    {
        let log = storage.log(within).await?;
        assert_eq!(log.iter().filter(|event| own(event)).count(), 1, "read by {within:?}");
    }
    Ok(())
}

async fn an_administrator_reaches_every_key_of_the_tenant(storage: TestStorage) -> CheckResult {
    for (n, tenant) in [(0, "acme"), (10, "")] {
        let within = OwnerScope::Tenant(tenant);
        let keys = [1, 2].map(|i| key(&owner_of(tenant, &format!("account-{i}")), n + i));
        for (i, key) in (n + 1..).zip(&keys) {
            storage.add(key, &digest(i)).await?;
            let read = storage.handle().get(within, key.id).await?;
            assert_eq!(read.as_deref(), Some(key), "read by the administrator of {tenant:?}");
        }
        assert_eq!(storage.keys(within).await?.len(), 2, "listed by that of {tenant:?}");
        let by = revocation(&keys[0], at(1), "");
        assert_eq!(storage.handle().revoke(within, keys[0].id, &by).await?, RevokeOutcome::Revoked);
        let by = event(EventKind::Deleted, &keys[1], at(1));
        assert!(storage.handle().delete(within, keys[1].id, &by).await?);
    }
    Ok(())
}

/// A key of one owner, and others around it whose owners are nearly the same.
struct Scene<'a> {
    key: Key,
    /// The same account of another tenant, another account of the tenant, and one without keys.
    others: [Owner; 3],
    watch: Watch<'a>,
    before: Snapshot,
}

impl<'a> Scene<'a> {
    async fn build(storage: &'a TestStorage) -> Result<Self, StoreError> {
        let ada = owner(1);
        let others = [owner_of("other", ada.account()), owner(2), owner_of("", ada.account())];
        let own = key(&ada, 1);
        storage.add(&own, &digest(1)).await?;
        for (n, other) in (2..).zip(&others[..2]) {
            storage.add(&key(other, n), &digest(n)).await?;
        }
        let watch = Watch::start(storage, "acme", [digest(1), digest(9)]).await?;
        let before = watch.snapshot().await?;
        Ok(Self { key: own, others, watch, before })
    }

    /// Who must not reach the key: its namesake, its colleague, another tenant, and nobody.
    fn strangers(&self) -> [OwnerScope<'_>; 4] {
        let [namesake, colleague, nobody] = &self.others;
        [namesake.into(), colleague.into(), OwnerScope::Tenant(namesake.tenant()), nobody.into()]
    }

    /// The key, changed, as those would write it who do not own it.
    fn forgeries(&self) -> impl Iterator<Item = Key> {
        let forged = |owner: &Owner| Key {
            owner: owner.clone(),
            disabled_at: Some(at(1)),
            ..self.key.clone()
        };
        self.others.iter().map(forged)
    }

    async fn assert_untouched(&self) -> CheckResult {
        assert_eq!(self.watch.snapshot().await?, self.before, "what was not found was changed");
        Ok(())
    }
}
