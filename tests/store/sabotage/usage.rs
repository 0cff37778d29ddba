use async_trait::async_trait;
use keyward::{AuditEvent, KeyStore, Whose, store::Use};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct LastWriteIsTheLastUse;

#[async_trait]
impl Sabotage for LastWriteIsTheLastUse {
    async fn touch(&self, inside: &Inside, uses: &[Use]) -> Answer<Vec<AuditEvent>> {
        for used in uses {
            let last_at = used.last_at;
            inside.forge(used.key_id, move |key| key.last_used_at = Some(last_at));
        }
        inside.touch(uses).await
    }
}

#[derive(Default)]
pub struct EveryUseIsTheFirst;

#[async_trait]
impl Sabotage for EveryUseIsTheFirst {
    async fn touch(&self, inside: &Inside, uses: &[Use]) -> Answer<Vec<AuditEvent>> {
        inside.touch(uses).await?;
        let firsts: Vec<_> = uses.iter().map(Use::first_use).collect();
        inside.record(&firsts).await?;
        Ok(firsts)
    }
}

#[derive(Default)]
pub struct LooksThenRecordsTheFirstUse;

#[async_trait]
impl Sabotage for LooksThenRecordsTheFirstUse {
    async fn touch(&self, inside: &Inside, uses: &[Use]) -> Answer<Vec<AuditEvent>> {
        let mut firsts = Vec::new();
        for used in uses {
            let key = inside.get(Whose::Owner(&used.owner), used.key_id).await?;
            if key.is_some_and(|key| key.first_used_at.is_none()) {
                firsts.push(used.first_use());
            }
        }
        tokio::task::yield_now().await;
        inside.touch(uses).await?;
        inside.record(&firsts).await?;
        Ok(firsts)
    }
}

#[derive(Default)]
pub struct StopsAtAnUnknownKey;

#[async_trait]
impl Sabotage for StopsAtAnUnknownKey {
    async fn touch(&self, inside: &Inside, uses: &[Use]) -> Answer<Vec<AuditEvent>> {
        let unknown = |used: &Use| inside.owner_of(used.key_id).as_ref() != Some(&used.owner);
        let stop = uses.iter().position(unknown);
        inside.touch(&uses[..stop.unwrap_or(uses.len())]).await
    }
}

#[derive(Default)]
pub struct CountsUsesAsRevisions;

#[async_trait]
impl Sabotage for CountsUsesAsRevisions {
    async fn touch(&self, inside: &Inside, uses: &[Use]) -> Answer<Vec<AuditEvent>> {
        for used in uses {
            inside.forge(used.key_id, |key| key.revision += 1);
        }
        inside.touch(uses).await
    }
}

/// Reads a key, changes it, and writes all of it back, as it was before somebody revoked it.
#[derive(Default)]
pub struct WritesBackWhatItRead;

#[async_trait]
impl Sabotage for WritesBackWhatItRead {
    async fn touch(&self, inside: &Inside, uses: &[Use]) -> Answer<Vec<AuditEvent>> {
        let mut read = Vec::new();
        for used in uses {
            read.extend(inside.get(Whose::Owner(&used.owner), used.key_id).await?);
        }
        tokio::task::yield_now().await;
        let written = inside.touch(uses).await?;
        for key in read {
            let now = inside.get(Whose::Owner(&key.owner), key.id).await?;
            if key.revoked.is_none() && now.is_some_and(|now| now.revoked.is_some()) {
                inside.forge(key.id, |key| key.revoked = None);
            }
        }
        Ok(written)
    }
}
