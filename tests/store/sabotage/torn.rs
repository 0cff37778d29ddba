//! Writes in two steps, with a place between them where a client may hang up.

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

use super::wrapper::{Answer, Inside, Sabotage};

/// The change first, its event in a transaction of its own.
#[derive(Default)]
pub struct LogsAfterwards {
    unwritten: Mutex<HashSet<[u8; 12]>>,
}

impl LogsAfterwards {
    async fn late<T>(&self, event: EventId, change: impl Future<Output = T>) -> T {
        self.unwritten.lock().unwrap().insert(group(event));
        let answer = change.await;
        tokio::task::yield_now().await;
        self.unwritten.lock().unwrap().remove(&group(event));
        answer
    }
}

#[async_trait]
impl Sabotage for LogsAfterwards {
    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let mut events = inside.events(query).await?;
        let unwritten = self.unwritten.lock().unwrap();
        events.retain(|event| !unwritten.contains(&group(event.id)));
        Ok(events)
    }

    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.late(new.event.id, inside.insert(new)).await
    }

    async fn update(
        &self,
        inside: &Inside,
        key: &Key,
        event: &AuditEvent,
    ) -> Answer<UpdateOutcome> {
        self.late(event.id, inside.update(key, event)).await
    }

    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        self.late(rotate.event.id, inside.rotate(rotate)).await
    }

    async fn revoke(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        self.late(event.id, inside.revoke(within, id, event)).await
    }

    async fn revoke_all(
        &self,
        inside: &Inside,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        self.late(event.id, inside.revoke_all(owner, event)).await
    }

    async fn delete(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<bool> {
        self.late(event.id, inside.delete(within, id, event)).await
    }

    async fn purge_keys(
        &self,
        inside: &Inside,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        self.late(event.id, inside.purge_keys(before, limit, event)).await
    }

    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        match uses.first() {
            Some(first) => self.late(first.event_id, inside.record_uses(uses)).await,
            None => inside.record_uses(uses).await,
        }
    }
}

/// What the events of one change have in common.
fn group(id: EventId) -> [u8; 12] {
    let (group, _) = id.as_bytes().split_first_chunk().unwrap();
    *group
}

/// Removes one digest, then adds the other.
#[derive(Default)]
pub struct RehashesInTwoSteps {
    unwritten: Mutex<HashSet<SecretDigest>>,
}

#[async_trait]
impl Sabotage for RehashesInTwoSteps {
    async fn rehash(
        &self,
        inside: &Inside,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Answer<bool> {
        self.unwritten.lock().unwrap().insert(*to);
        let done = inside.rehash(from, to).await;
        tokio::task::yield_now().await;
        self.unwritten.lock().unwrap().remove(to);
        done
    }

    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        let found = inside.find(digests).await?;
        let unwritten = self.unwritten.lock().unwrap();
        Ok(found.filter(|found| !unwritten.contains(&found.digest)))
    }
}
