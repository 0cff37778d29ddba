use async_trait::async_trait;
use keyward::{AuditEvent, KeyStore, OwnerScope, store::KeyUse};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct LastWriteIsTheLastUse;

#[async_trait]
impl Sabotage for LastWriteIsTheLastUse {
    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        for used in uses {
            let last_at = used.last_at;
            inside.forge(used.key_id, move |key| key.last_used_at = Some(last_at));
        }
        inside.record_uses(uses).await
    }
}

#[derive(Default)]
pub struct EveryUseIsTheFirst;

#[async_trait]
impl Sabotage for EveryUseIsTheFirst {
    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        inside.record_uses(uses).await?;
        let firsts: Vec<_> = uses.iter().map(KeyUse::first_use).collect();
        inside.record_events(&firsts).await?;
        Ok(firsts)
    }
}

#[derive(Default)]
pub struct LooksThenRecordsTheFirstUse;

#[async_trait]
impl Sabotage for LooksThenRecordsTheFirstUse {
    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        let mut firsts = Vec::new();
        for used in uses {
            let key = inside.get(OwnerScope::Owner(&used.owner), used.key_id).await?;
            if key.is_some_and(|key| key.first_used_at.is_none()) {
                firsts.push(used.first_use());
            }
        }
        tokio::task::yield_now().await;
        inside.record_uses(uses).await?;
        inside.record_events(&firsts).await?;
        Ok(firsts)
    }
}

#[derive(Default)]
pub struct StopsAtAnUnknownKey;

#[async_trait]
impl Sabotage for StopsAtAnUnknownKey {
    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        let unknown = |used: &KeyUse| inside.owner_of(used.key_id).as_ref() != Some(&used.owner);
        let stop = uses.iter().position(unknown);
        inside.record_uses(&uses[..stop.unwrap_or(uses.len())]).await
    }
}

#[derive(Default)]
pub struct CountsUsesAsRevisions;

#[async_trait]
impl Sabotage for CountsUsesAsRevisions {
    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        for used in uses {
            inside.forge(used.key_id, |key| key.revision += 1);
        }
        inside.record_uses(uses).await
    }
}

/// Reads a key, changes it, and writes all of it back, as it was before somebody revoked it.
#[derive(Default)]
pub struct WritesBackWhatItRead;

#[async_trait]
impl Sabotage for WritesBackWhatItRead {
    async fn record_uses(&self, inside: &Inside, uses: &[KeyUse]) -> Answer<Vec<AuditEvent>> {
        let mut read = Vec::new();
        for used in uses {
            read.extend(inside.get(OwnerScope::Owner(&used.owner), used.key_id).await?);
        }
        tokio::task::yield_now().await;
        let written = inside.record_uses(uses).await?;
        for key in read {
            let now = inside.get(OwnerScope::Owner(&key.owner), key.id).await?;
            if key.revoked.is_none() && now.is_some_and(|now| now.revoked.is_some()) {
                inside.forge(key.id, |key| key.revoked = None);
            }
        }
        Ok(written)
    }
}
