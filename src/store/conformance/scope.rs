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
    let fixture = Fixture::new(&storage).await?;
    for other in fixture.other_scopes() {
        let read = storage.handle().get(other, fixture.key.id).await?;
        assert_eq!(read, None, "read by {other:?}");
    }
    assert_eq!(storage.key(&fixture.key).await?, fixture.key, "read by its owner");
    Ok(())
}

async fn another_owners_key_cannot_be_listed(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    let [same_account, same_tenant, other_tenant, keyless] = fixture.other_scopes();
    for (other, own) in [(same_account, 2), (same_tenant, 3), (other_tenant, 2)] {
        let listed = storage.keys(other).await?;
        let listed: Vec<_> = listed.iter().map(|listed| listed.id).collect();
        assert_eq!(listed, [key(&fixture.key.owner, own).id], "listed by {other:?}");
    }
    assert_eq!(storage.keys(keyless).await?, [], "listed by {keyless:?}");

    // Another owner's key as the cursor must not reveal that owner's keys.
    for other in [same_account, same_tenant] {
        let query = KeyQuery { after: Some(key(&fixture.key.owner, 2).id), ..all_keys(other) };
        let listed = storage.handle().list(&query).await?;
        assert!(!listed.iter().any(|it| it.id == fixture.key.id), "paged by {other:?}");
    }
    Ok(())
}

async fn another_owners_key_cannot_be_updated(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    for forged in fixture.forged_keys() {
        let event = event(EventKind::Updated, &forged, at(1));
        let answer = storage.handle().update(&forged, &event).await?;
        assert_eq!(answer, UpdateOutcome::NotFound, "updated as if of {:?}", forged.owner);
    }
    fixture.assert_untouched().await
}

async fn another_owners_key_cannot_be_rotated(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    for forged in fixture.forged_keys() {
        let event = event(EventKind::Rotated, &forged, at(1));
        let to = digest(9);
        let rotate = rotation(&forged, &to, PreviousSecret::EndsAt(at(5)), &event);
        let answer = storage.handle().rotate(rotate).await?;
        assert_eq!(answer, RotateOutcome::NotFound, "rotated as if of {:?}", forged.owner);
    }
    fixture.assert_untouched().await
}

async fn another_owners_key_cannot_be_revoked(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    for other in fixture.other_scopes() {
        let event = revocation(&fixture.key, at(1), "forged");
        let answer = storage.handle().revoke(other, fixture.key.id, &event).await?;
        assert_eq!(answer, RevokeOutcome::NotFound, "revoked by {other:?}");
    }
    fixture.assert_untouched().await
}

async fn another_owners_keys_are_not_revoked_by_revoke_all(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    for owner in [owner(7), owner_of("unknown", "account-1"), owner_of("", "account-1")] {
        let event = revocation(&fixture.key, at(1), "forged");
        let revoked = storage.handle().revoke_all(&owner, &event).await?;
        assert_eq!(revoked, [], "revoked for {owner:?}, an owner without keys");
    }
    fixture.assert_untouched().await
}

async fn another_owners_key_cannot_be_deleted(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    for other in fixture.other_scopes() {
        let event = event(EventKind::Deleted, &fixture.key, at(1));
        let deleted = storage.handle().delete(other, fixture.key.id, &event).await?;
        assert!(!deleted, "deleted by {other:?}");
    }
    fixture.assert_untouched().await
}

async fn another_owners_key_records_no_uses(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    for forged in fixture.forged_keys() {
        let written = storage.handle().record_uses(&[key_use(&forged, at(1), at(2))]).await?;
        assert_eq!(written, [], "used as if of {:?}", forged.owner);
    }
    fixture.assert_untouched().await
}

async fn another_owners_events_cannot_be_read(storage: TestStorage) -> CheckResult {
    let fixture = Fixture::new(&storage).await?;
    let own = |event: &AuditEvent| event.key_id == Some(fixture.key.id);
    for other in fixture.other_scopes() {
        let log = storage.log(other).await?;
        assert!(!log.iter().any(own), "{other:?} reads {log:?}");
        let query = AuditQuery::new(other).key(fixture.key.id).kind(EventKind::Created);
        assert_eq!(storage.handle().events(&query).await?, [], "asked for by {other:?}");
    }
    for within in
        [OwnerScope::Owner(&fixture.key.owner), OwnerScope::Tenant(fixture.key.owner.tenant())]
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
        assert_eq!(
            storage.keys(within).await?.len(),
            2,
            "listed by the administrator of {tenant:?}"
        );
        let by = revocation(&keys[0], at(1), "");
        assert_eq!(storage.handle().revoke(within, keys[0].id, &by).await?, RevokeOutcome::Revoked);
        let by = event(EventKind::Deleted, &keys[1], at(1));
        assert!(storage.handle().delete(within, keys[1].id, &by).await?);
    }
    Ok(())
}

/// A key of one owner, and keys of similar owners.
struct Fixture<'a> {
    key: Key,
    /// The same account in another tenant, another account in the same tenant, and an owner without
    /// keys.
    others: [Owner; 3],
    watch: Watch<'a>,
    before: Snapshot,
}

impl<'a> Fixture<'a> {
    async fn new(storage: &'a TestStorage) -> Result<Self, StoreError> {
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

    /// Scopes that must not reach the key.
    fn other_scopes(&self) -> [OwnerScope<'_>; 4] {
        let [same_account, same_tenant, keyless] = &self.others;
        [
            same_account.into(),
            same_tenant.into(),
            OwnerScope::Tenant(same_account.tenant()),
            keyless.into(),
        ]
    }

    /// The key with changes, and with the ids of the other owners.
    fn forged_keys(&self) -> impl Iterator<Item = Key> {
        let forged = |owner: &Owner| Key {
            owner: owner.clone(),
            disabled_at: Some(at(1)),
            ..self.key.clone()
        };
        self.others.iter().map(forged)
    }

    async fn assert_untouched(&self) -> CheckResult {
        assert_eq!(
            self.watch.snapshot().await?,
            self.before,
            "a key outside the scope was changed"
        );
        Ok(())
    }
}
