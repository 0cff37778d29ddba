use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, Owner, OwnerScope, Timestamp, store::KeyQuery,
};

use super::wrapper::{Answer, Inside, Sabotage};

/// Revokes what its list shows on the first page.
#[derive(Default)]
pub struct RevokesOnePage;

#[async_trait]
impl Sabotage for RevokesOnePage {
    async fn revoke_all(
        &self,
        inside: &Inside,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        let mut events = Vec::new();
        for (n, key) in (0..).zip(open_keys(inside, owner, 10).await?) {
            events.push(event.for_key(n, &key));
            let _now = inside.revoke(owner.into(), key.id, &events[n as usize]).await?;
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
        inside: &Inside,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        let mut events = Vec::new();
        for (n, key) in (0..).zip(open_keys(inside, owner, 1_000).await?) {
            events.push(event.for_key(n, &key));
            let _now = inside.revoke(owner.into(), key.id, &events[n as usize]).await?;
            tokio::task::yield_now().await;
        }
        Ok(events)
    }
}

/// As a foreign key that cascades.
#[derive(Default)]
pub struct DeletesTheLogAsWell {
    gone: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for DeletesTheLogAsWell {
    async fn delete(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<bool> {
        self.gone.lock().unwrap().insert(id);
        inside.delete(within, id, event).await
    }

    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let mut events = inside.events(query).await?;
        let gone = self.gone.lock().unwrap();
        events.retain(|event| event.key_id.is_none_or(|id| !gone.contains(&id)));
        Ok(events)
    }
}

/// Takes a missing expiry for one long ago.
#[derive(Default)]
pub struct PurgesWhatNeverExpires;

#[async_trait]
impl Sabotage for PurgesWhatNeverExpires {
    async fn purge_keys(
        &self,
        inside: &Inside,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        let mut purged = inside.purge_keys(before, limit, event).await?;
        for key in inside.all().await?.iter().filter(|key| key.dead_since().is_none()) {
            let event = event.for_key(1_000 + purged.len() as u32, key);
            inside.delete((&key.owner).into(), key.id, &event).await?;
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
        inside: &Inside,
        before: Timestamp,
        _: u32,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        inside.purge_keys(before, u32::MAX, event).await
    }

    async fn purge_events(&self, inside: &Inside, before: Timestamp, _: u32) -> Answer<u32> {
        inside.purge_events(before, u32::MAX).await
    }
}

#[derive(Default)]
pub struct CountsThenPurges;

#[async_trait]
impl Sabotage for CountsThenPurges {
    async fn purge_keys(
        &self,
        inside: &Inside,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Answer<Vec<AuditEvent>> {
        let dead = |key: &&Arc<Key>| key.dead_since().is_some_and(|since| since < before);
        let keys = inside.all().await?;
        let keys = keys.iter().filter(dead).take(limit as usize);
        let told = (0..).zip(keys).map(|(n, key)| event.for_key(n, key)).collect();
        tokio::task::yield_now().await;
        inside.purge_keys(before, limit, event).await?;
        Ok(told)
    }
}

async fn open_keys(inside: &Inside, owner: &Owner, limit: u32) -> Answer<Vec<Arc<Key>>> {
    let query =
        KeyQuery { within: owner.into(), status: None, after: None, limit, now: Timestamp::MIN };
    let mut keys = inside.list(&query).await?;
    keys.retain(|key| key.revoked.is_none());
    Ok(keys)
}
