//! Broken revocations, deletions and purges.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, Owner, OwnerScope, Status, Timestamp,
    audit::EventKind,
    model::Revocation,
    store::{ChangeBatch, ChangeFeed, KeyQuery, RevokeOutcome},
};

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct LaterRevocationsOverwrite;

#[async_trait]
impl Sabotage for LaterRevocationsOverwrite {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        let (at, reason) = (event.at, event.reason.clone().unwrap_or_default());
        inner.modify_reads(id, move |key| {
            key.revoked = Some(Revocation { at, reason: reason.clone() })
        });
        inner.revoke(within, id, event).await
    }
}

#[derive(Default)]
pub struct EveryRevocationReportsRevoked;

#[async_trait]
impl Sabotage for EveryRevocationReportsRevoked {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        Ok(match inner.revoke(within, id, event).await? {
            RevokeOutcome::AlreadyRevoked => RevokeOutcome::Revoked,
            answer => answer,
        })
    }
}

#[derive(Default)]
pub struct RevokesActiveKeysOnly;

#[async_trait]
impl Sabotage for RevokesActiveKeysOnly {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        let key = inner.get(within, id).await?;
        match key.map(|key| key.status(event.at)) {
            Some(Status::Active) => inner.revoke(within, id, event).await,
            _ => Ok(RevokeOutcome::NotFound),
        }
    }
}

/// Revokes only the first page of keys.
#[derive(Default)]
pub struct RevokesOnePage;

#[async_trait]
impl Sabotage for RevokesOnePage {
    async fn revoke_all(
        &self,
        inner: &Inner,
        owner: &Owner,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        let mut events = Vec::new();
        for (n, key) in (0..).zip(unrevoked_keys(inner, owner, 10).await?) {
            events.push(event.for_key(n, &key));
            let _revoked = inner.revoke(owner.into(), key.id, &events[n as usize]).await?;
        }
        Ok(events)
    }
}

#[derive(Default)]
pub struct RevokesOneByOne;

#[async_trait]
impl Sabotage for RevokesOneByOne {
    async fn revoke_all(
        &self,
        inner: &Inner,
        owner: &Owner,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        let mut events = Vec::new();
        for (n, key) in (0..).zip(unrevoked_keys(inner, owner, 1_000).await?) {
            events.push(event.for_key(n, &key));
            let _revoked = inner.revoke(owner.into(), key.id, &events[n as usize]).await?;
            tokio::task::yield_now().await;
        }
        Ok(events)
    }
}

/// Writes the audit event in a second transaction.
#[derive(Default)]
pub struct LogsRevocationsLater {
    pending: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for LogsRevocationsLater {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        self.pending.lock().unwrap().insert(id);
        let revoked = inner.revoke(within, id, event).await;
        tokio::task::yield_now().await;
        self.pending.lock().unwrap().remove(&id);
        revoked
    }

    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let pending = self.pending.lock().unwrap().clone();
        let mut events = inner.events(query).await?;
        events.retain(|event| {
            event.kind != EventKind::Revoked || event.key_id.is_none_or(|id| !pending.contains(&id))
        });
        Ok(events)
    }
}

/// Writes the feed entry in a second transaction.
#[derive(Default)]
pub struct AnnouncesRevocationsLater {
    pending: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for AnnouncesRevocationsLater {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        self.pending.lock().unwrap().insert(id);
        let revoked = inner.revoke(within, id, event).await;
        tokio::task::yield_now().await;
        self.pending.lock().unwrap().remove(&id);
        revoked
    }

    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        let pending = self.pending.lock().unwrap().clone();
        let mut changes = inner.changes(after).await?;
        changes.keys.retain(|id| !pending.contains(id));
        Ok(changes)
    }
}

/// Deletes the audit log with the key, like a cascading foreign key.
#[derive(Default)]
pub struct DeletesTheLogToo {
    gone: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for DeletesTheLogToo {
    async fn delete(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<bool> {
        self.gone.lock().unwrap().insert(id);
        inner.delete(within, id, event).await
    }

    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let mut events = inner.events(query).await?;
        let gone = self.gone.lock().unwrap();
        events.retain(|event| event.key_id.is_none_or(|id| !gone.contains(&id)));
        Ok(events)
    }
}

/// Treats a missing expiry as long past.
#[derive(Default)]
pub struct PurgesKeysWithoutExpiry;

#[async_trait]
impl Sabotage for PurgesKeysWithoutExpiry {
    async fn purge_keys(
        &self,
        inner: &Inner,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        let mut purged = inner.purge_keys(before, limit, event).await?;
        for key in inner.all_keys().await?.iter().filter(|key| key.dead_since().is_none()) {
            let event = event.for_key(1_000 + purged.len() as u32, key);
            inner.delete((&key.owner).into(), key.id, &event).await?;
            purged.push(event);
        }
        Ok(purged)
    }
}

#[derive(Default)]
pub struct PurgesWithoutLimit;

#[async_trait]
impl Sabotage for PurgesWithoutLimit {
    async fn purge_keys(
        &self,
        inner: &Inner,
        before: Timestamp,
        _: u32,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        inner.purge_keys(before, u32::MAX, event).await
    }

    async fn purge_events(&self, inner: &Inner, before: Timestamp, _: u32) -> StoreResult<u32> {
        inner.purge_events(before, u32::MAX).await
    }
}

#[derive(Default)]
pub struct SelectsThenPurges;

#[async_trait]
impl Sabotage for SelectsThenPurges {
    async fn purge_keys(
        &self,
        inner: &Inner,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        let dead = |key: &&Arc<Key>| key.dead_since().is_some_and(|since| since < before);
        let keys = inner.all_keys().await?;
        let keys = keys.iter().filter(dead).take(limit as usize);
        let events = (0..).zip(keys).map(|(n, key)| event.for_key(n, key)).collect();
        tokio::task::yield_now().await;
        inner.purge_keys(before, limit, event).await?;
        Ok(events)
    }
}

async fn unrevoked_keys(inner: &Inner, owner: &Owner, limit: u32) -> StoreResult<Vec<Arc<Key>>> {
    let query =
        KeyQuery { within: owner.into(), status: None, after: None, limit, now: Timestamp::MIN };
    let mut keys = inner.list(&query).await?;
    keys.retain(|key| key.revoked.is_none());
    Ok(keys)
}
