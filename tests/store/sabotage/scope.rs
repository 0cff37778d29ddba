//! Stores that ignore owners or tenants.

use std::sync::Arc;

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, Owner, OwnerScope,
    store::{KeyQuery, KeyUse, RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome},
};

use super::wrapper::{Inner, Sabotage, StoreResult};

/// Ignores letter case, like some database collations.
#[derive(Default)]
pub struct IgnoresCase;

#[async_trait]
impl Sabotage for IgnoresCase {
    async fn get(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> StoreResult<Option<Arc<Key>>> {
        let owner = inner.owner_of(id);
        let same = |owner: &Owner| {
            let account = within.account().unwrap_or(owner.account());
            owner.tenant().eq_ignore_ascii_case(within.tenant())
                && owner.account().eq_ignore_ascii_case(account)
        };
        match owner.filter(same) {
            Some(owner) => inner.get((&owner).into(), id).await,
            None => Ok(None),
        }
    }
}

#[derive(Default)]
pub struct RejectsTenantScopes;

#[async_trait]
impl Sabotage for RejectsTenantScopes {
    async fn get(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> StoreResult<Option<Arc<Key>>> {
        match within {
            OwnerScope::Owner(_) => inner.get(within, id).await,
            OwnerScope::Tenant(_) => Ok(None),
        }
    }
}

/// Ignores the scope and uses only the id.
#[derive(Default)]
pub struct Unscoped;

#[async_trait]
impl Sabotage for Unscoped {
    async fn get(
        &self,
        inner: &Inner,
        _: OwnerScope<'_>,
        id: KeyId,
    ) -> StoreResult<Option<Arc<Key>>> {
        inner.get_unscoped(id).await
    }

    async fn list(&self, inner: &Inner, query: &KeyQuery<'_>) -> StoreResult<Vec<Arc<Key>>> {
        let mut keys = inner.all_keys().await?;
        keys.retain(|key| query.after.is_none_or(|after| key.id < after));
        Ok(keys)
    }

    async fn update(
        &self,
        inner: &Inner,
        key: &Key,
        event: &AuditEvent,
    ) -> StoreResult<UpdateOutcome> {
        inner.update(&with_real_owner(inner, key), event).await
    }

    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        let key = &with_real_owner(inner, rotate.key);
        inner.rotate(RotateSecret { key, ..rotate }).await
    }

    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        match inner.owner_of(id) {
            Some(owner) => inner.revoke((&owner).into(), id, event).await,
            None => inner.revoke(within, id, event).await,
        }
    }

    async fn revoke_all(
        &self,
        inner: &Inner,
        _: &Owner,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        let mut revoked = Vec::new();
        for key in inner.all_keys().await? {
            revoked.extend(inner.revoke_all(&key.owner, event).await?);
        }
        Ok(revoked)
    }

    async fn delete(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<bool> {
        match inner.owner_of(id) {
            Some(owner) => inner.delete((&owner).into(), id, event).await,
            None => inner.delete(within, id, event).await,
        }
    }

    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        let real = |used: &KeyUse| {
            let owner = inner.owner_of(used.key_id).unwrap_or(used.owner.clone());
            KeyUse { owner, ..used.clone() }
        };
        inner.record_uses(&uses.iter().map(real).collect::<Vec<_>>()).await
    }

    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let mut events = inner.events(query).await?;
        for key in inner.all_keys().await? {
            events
                .extend(inner.events(&AuditQuery { within: (&key.owner).into(), ..*query }).await?);
        }
        events.sort_by_key(|event| std::cmp::Reverse(event.id));
        events.dedup();
        Ok(events)
    }
}

/// Returns the key with its real owner.
fn with_real_owner(inner: &Inner, key: &Key) -> Key {
    let owner = inner.owner_of(key.id).unwrap_or(key.owner.clone());
    Key { owner, ..key.clone() }
}
