use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use keyward::{
    AuditEvent, Key, KeyId, KeyStore, Owner, OwnerScope, SecretDigest, Status, Timestamp,
    model::Revocation,
    store::{
        FoundKey, InsertKey, InsertOutcome, PreviousSecret, RevokeOutcome, RotateOutcome,
        RotateSecret, UpdateOutcome,
    },
};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct UpdatesTheHint;

#[async_trait]
impl Sabotage for UpdatesTheHint {
    async fn update(
        &self,
        inside: &Inside,
        key: &Key,
        event: &AuditEvent,
    ) -> Answer<UpdateOutcome> {
        let hint = key.hint.clone();
        inside.forge(key.id, move |key| key.hint.clone_from(&hint));
        inside.update(key, event).await
    }
}

#[derive(Default)]
pub struct UpdatesAnyRevision;

#[async_trait]
impl Sabotage for UpdatesAnyRevision {
    async fn update(
        &self,
        inside: &Inside,
        key: &Key,
        event: &AuditEvent,
    ) -> Answer<UpdateOutcome> {
        loop {
            let Some(stored) = inside.any(key.id).await? else {
                return Ok(UpdateOutcome::NotFound);
            };
            let current = Key { revision: stored.revision, ..key.clone() };
            match inside.update(&current, event).await? {
                UpdateOutcome::Conflict if stored.revoked.is_none() => {}
                answer => return Ok(answer),
            }
        }
    }
}

#[derive(Default)]
pub struct UpdatesBringBackTheDead;

#[async_trait]
impl Sabotage for UpdatesBringBackTheDead {
    async fn update(
        &self,
        inside: &Inside,
        key: &Key,
        event: &AuditEvent,
    ) -> Answer<UpdateOutcome> {
        let stored = inside.any(key.id).await?;
        if stored.is_some_and(|stored| stored.revoked.is_some()) {
            inside.forge(key.id, |key| key.revoked = None);
            return Ok(UpdateOutcome::Updated);
        }
        inside.update(key, event).await
    }
}

/// One column for the end of the key and for the end of its former secret.
#[derive(Default)]
pub struct RotationsMoveTheExpiry;

#[async_trait]
impl Sabotage for RotationsMoveTheExpiry {
    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        if let PreviousSecret::EndsAt(ends_at) = rotate.previous {
            inside.forge(rotate.key.id, move |key| key.expires_at = Some(ends_at));
        }
        inside.rotate(rotate).await
    }
}

#[derive(Default)]
pub struct KeepsEverySecret {
    all: Mutex<HashMap<SecretDigest, (Owner, KeyId)>>,
}

#[async_trait]
impl Sabotage for KeepsEverySecret {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.remember(new.key, new.digest);
        inside.insert(new).await
    }

    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        self.remember(rotate.key, rotate.digest);
        inside.rotate(rotate).await
    }

    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        if let Some(found) = inside.find(digests).await? {
            return Ok(Some(found));
        }
        let known = |digest| self.all.lock().unwrap().get(digest).cloned();
        let Some((owner, id)) = digests.iter().find_map(known) else { return Ok(None) };
        let key = inside.get((&owner).into(), id).await?;
        Ok(key.map(|key| FoundKey { key, digest: digests[0], ends_at: None }))
    }
}

impl KeepsEverySecret {
    fn remember(&self, key: &Key, digest: &SecretDigest) {
        self.all.lock().unwrap().insert(*digest, (key.owner.clone(), key.id));
    }
}

/// Keeps the secret that nobody received and removes the one that is in use.
#[derive(Default)]
pub struct RemovesTheWrongSecret;

#[async_trait]
impl Sabotage for RemovesTheWrongSecret {
    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        inside
            .rotate(RotateSecret { previous: PreviousSecret::EndsAt(Timestamp::MAX), ..rotate })
            .await
    }
}

#[derive(Default)]
pub struct RotatesOverOthers;

#[async_trait]
impl Sabotage for RotatesOverOthers {
    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        if let Some(found) = inside.find(&[*rotate.digest]).await? {
            inside.delete((&found.key.owner).into(), found.key.id, rotate.event).await?;
        }
        inside.rotate(rotate).await
    }
}

#[derive(Default)]
pub struct RotatesAnyRevision;

#[async_trait]
impl Sabotage for RotatesAnyRevision {
    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        loop {
            let stored = inside.any(rotate.key.id).await?;
            let Some(stored) = stored else { return Ok(RotateOutcome::NotFound) };
            match inside.rotate(RotateSecret { key: &stored, ..rotate }).await? {
                RotateOutcome::Conflict if stored.revoked.is_none() => {}
                answer => return Ok(answer),
            }
        }
    }
}

#[derive(Default)]
pub struct LastRevocationStays;

#[async_trait]
impl Sabotage for LastRevocationStays {
    async fn revoke(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        let (at, reason) = (event.at, event.reason.clone().unwrap_or_default());
        inside.forge(id, move |key| key.revoked = Some(Revocation { at, reason: reason.clone() }));
        inside.revoke(within, id, event).await
    }
}

#[derive(Default)]
pub struct EveryRevocationIsTheFirst;

#[async_trait]
impl Sabotage for EveryRevocationIsTheFirst {
    async fn revoke(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        Ok(match inside.revoke(within, id, event).await? {
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
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        let key = inside.get(within, id).await?;
        match key.map(|key| key.status(event.at)) {
            Some(Status::Active) => inside.revoke(within, id, event).await,
            _ => Ok(RevokeOutcome::NotFound),
        }
    }
}

#[derive(Default)]
pub struct RehashKeepsTheFormerDigest {
    moved: Mutex<HashMap<SecretDigest, SecretDigest>>,
}

#[async_trait]
impl Sabotage for RehashKeepsTheFormerDigest {
    async fn rehash(
        &self,
        inside: &Inside,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Answer<bool> {
        let done = inside.rehash(from, to).await?;
        if done {
            self.moved.lock().unwrap().insert(*from, *to);
        }
        Ok(done)
    }

    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        let moved = |digest: &SecretDigest| {
            self.moved.lock().unwrap().get(digest).copied().unwrap_or(*digest)
        };
        inside.find(&digests.iter().map(moved).collect::<Vec<_>>()).await
    }
}

#[derive(Default)]
pub struct RehashIsAlwaysDone;

#[async_trait]
impl Sabotage for RehashIsAlwaysDone {
    async fn rehash(
        &self,
        inside: &Inside,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Answer<bool> {
        inside.rehash(from, to).await.map(|_| true)
    }
}
