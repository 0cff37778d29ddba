use std::sync::Arc;

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, Owner, OwnerScope,
    store::{KeyQuery, KeyUse, RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome},
};

use super::wrapper::{Answer, Inside, Sabotage};

/// As a database whose collation does, in one direction.
#[derive(Default)]
pub struct IgnoresCase;

#[async_trait]
impl Sabotage for IgnoresCase {
    async fn get(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Answer<Option<Arc<Key>>> {
        let owner = inside.owner_of(id);
        let same = |owner: &Owner| {
            let account = within.account().unwrap_or(owner.account());
            owner.tenant().eq_ignore_ascii_case(within.tenant())
                && owner.account().eq_ignore_ascii_case(account)
        };
        match owner.filter(same) {
            Some(owner) => inside.get((&owner).into(), id).await,
            None => Ok(None),
        }
    }
}

#[derive(Default)]
pub struct KnowsNoAdministrators;

#[async_trait]
impl Sabotage for KnowsNoAdministrators {
    async fn get(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Answer<Option<Arc<Key>>> {
        match within {
            OwnerScope::Owner(_) => inside.get(within, id).await,
            OwnerScope::Tenant(_) => Ok(None),
        }
    }
}

/// Goes by the id alone.
#[derive(Default)]
pub struct Unscoped;

#[async_trait]
impl Sabotage for Unscoped {
    async fn get(&self, inside: &Inside, _: OwnerScope<'_>, id: KeyId) -> Answer<Option<Arc<Key>>> {
        inside.any(id).await
    }

    async fn list(&self, inside: &Inside, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        let mut keys = inside.all().await?;
        keys.retain(|key| query.after.is_none_or(|after| key.id < after));
        Ok(keys)
    }

    async fn update(
        &self,
        inside: &Inside,
        key: &Key,
        event: &AuditEvent,
    ) -> Answer<UpdateOutcome> {
        inside.update(&real(inside, key), event).await
    }

    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        let key = &real(inside, rotate.key);
        inside.rotate(RotateSecret { key, ..rotate }).await
    }

    async fn revoke(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        match inside.owner_of(id) {
            Some(owner) => inside.revoke((&owner).into(), id, event).await,
            None => inside.revoke(within, id, event).await,
        }
    }

    async fn revoke_all(
        &self,
        inside: &Inside,
        _: &Owner,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        let mut revoked = Vec::new();
        for key in inside.all().await? {
            revoked.extend(inside.revoke_all(&key.owner, event).await?);
        }
        Ok(revoked)
    }

    async fn delete(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<bool> {
        match inside.owner_of(id) {
            Some(owner) => inside.delete((&owner).into(), id, event).await,
            None => inside.delete(within, id, event).await,
        }
    }

    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        let real = |used: &KeyUse| {
            let owner = inside.owner_of(used.key_id).unwrap_or(used.owner.clone());
            KeyUse { owner, ..used.clone() }
        };
        inside.record_uses(&uses.iter().map(real).collect::<Vec<_>>()).await
    }

    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let mut events = inside.events(query).await?;
        for key in inside.all().await? {
            events.extend(
                inside.events(&AuditQuery { within: (&key.owner).into(), ..*query }).await?,
            );
        }
        events.sort_by_key(|event| std::cmp::Reverse(event.id));
        events.dedup();
        Ok(events)
    }
}

/// The key under the name of its real owner.
fn real(inside: &Inside, key: &Key) -> Key {
    let owner = inside.owner_of(key.id).unwrap_or(key.owner.clone());
    Key { owner, ..key.clone() }
}
