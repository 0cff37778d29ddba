//! Writes in two steps, with an await point between them at which the future may be dropped.

use std::{collections::HashSet, sync::Mutex};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, Owner, OwnerScope, SecretDigest, Timestamp,
    model::EventId,
    store::{
        FoundKey, InsertKey, InsertOutcome, KeyUse, RevokeOutcome, RotateOutcome, RotateSecret,
        UpdateOutcome,
    },
};

use super::wrapper::{Inner, Sabotage, StoreResult};

/// Writes the change first, and its event in a second transaction.
#[derive(Default)]
pub struct LogsInASecondTransaction {
    unwritten: Mutex<HashSet<[u8; 12]>>,
}

impl LogsInASecondTransaction {
    async fn late<T>(&self, event: EventId, change: impl Future<Output = T>) -> T {
        self.unwritten.lock().unwrap().insert(group(event));
        let answer = change.await;
        tokio::task::yield_now().await;
        self.unwritten.lock().unwrap().remove(&group(event));
        answer
    }
}

#[async_trait]
impl Sabotage for LogsInASecondTransaction {
    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let mut events = inner.events(query).await?;
        let unwritten = self.unwritten.lock().unwrap();
        events.retain(|event| !unwritten.contains(&group(event.id)));
        Ok(events)
    }

    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.late(new.event.id, inner.insert(new)).await
    }

    async fn update(
        &self,
        inner: &Inner,
        key: &Key,
        event: &AuditEvent,
    ) -> StoreResult<UpdateOutcome> {
        self.late(event.id, inner.update(key, event)).await
    }

    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        self.late(rotate.event.id, inner.rotate(rotate)).await
    }

    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        self.late(event.id, inner.revoke(within, id, event)).await
    }

    async fn revoke_all(
        &self,
        inner: &Inner,
        owner: &Owner,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        self.late(event.id, inner.revoke_all(owner, event)).await
    }

    async fn delete(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<bool> {
        self.late(event.id, inner.delete(within, id, event)).await
    }

    async fn purge_keys(
        &self,
        inner: &Inner,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> StoreResult<Vec<AuditEvent>> {
        self.late(event.id, inner.purge_keys(before, limit, event)).await
    }

    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        match uses.first() {
            Some(first) => self.late(first.event_id, inner.record_uses(uses)).await,
            None => inner.record_uses(uses).await,
        }
    }
}

/// The part of the id that all events of one change share.
fn group(id: EventId) -> [u8; 12] {
    let (group, _) = id.as_bytes().split_first_chunk().unwrap();
    *group
}

/// Removes the old digest, then adds the new one in a second step.
#[derive(Default)]
pub struct RehashesInTwoSteps {
    unwritten: Mutex<HashSet<SecretDigest>>,
}

#[async_trait]
impl Sabotage for RehashesInTwoSteps {
    async fn rehash(
        &self,
        inner: &Inner,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> StoreResult<bool> {
        self.unwritten.lock().unwrap().insert(*to);
        let done = inner.rehash(from, to).await;
        tokio::task::yield_now().await;
        self.unwritten.lock().unwrap().remove(to);
        done
    }

    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let found = inner.find(digests).await?;
        let unwritten = self.unwritten.lock().unwrap();
        Ok(found.filter(|found| !unwritten.contains(&found.digest)))
    }
}
