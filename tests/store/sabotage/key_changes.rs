//! Broken inserts, updates, rotations and rehashes.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use keyward::{
    AuditEvent, Key, KeyId, KeyStore, Owner, OwnerScope, SecretDigest, Status, Timestamp,
    store::{
        FoundKey, InsertKey, InsertOutcome, KeyQuery, PreviousSecret, RotateOutcome, RotateSecret,
        UpdateOutcome,
    },
};

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct IgnoresTheLimit;

#[async_trait]
impl Sabotage for IgnoresTheLimit {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        inner.insert(InsertKey { max_active: None, ..new }).await
    }
}

#[derive(Default)]
pub struct DisabledKeysDoNotCount;

#[async_trait]
impl Sabotage for DisabledKeysDoNotCount {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        let active = count(inner, new, Some(Status::Active)).await?;
        if new.max_active.is_some_and(|max| active >= max as usize) {
            return Ok(InsertOutcome::LimitReached);
        }
        inner.insert(InsertKey { max_active: None, ..new }).await
    }
}

#[derive(Default)]
pub struct CountsThenInserts;

#[async_trait]
impl Sabotage for CountsThenInserts {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        let keys = count(inner, new, None).await?;
        if new.max_active.is_some_and(|max| keys >= max as usize) {
            return Ok(InsertOutcome::LimitReached);
        }
        tokio::task::yield_now().await;
        inner.insert(InsertKey { max_active: None, ..new }).await
    }
}

/// Deletes an existing key with the same digest.
#[derive(Default)]
pub struct Upserts;

#[async_trait]
impl Sabotage for Upserts {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        if let Some(found) = inner.find(&[*new.digest]).await? {
            let within = OwnerScope::Owner(&found.key.owner);
            inner.delete(within, found.key.id, new.event).await?;
        }
        inner.insert(new).await
    }
}

#[derive(Default)]
pub struct IgnoresTokens;

#[async_trait]
impl Sabotage for IgnoresTokens {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        inner.insert(InsertKey { token_since: Timestamp::MAX, ..new }).await
    }
}

#[derive(Default)]
pub struct ChecksTheTokenThenInserts;

#[async_trait]
impl Sabotage for ChecksTheTokenThenInserts {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        let within = OwnerScope::Owner(&new.key.owner);
        let query = KeyQuery { within, status: None, after: None, limit: 1_000, now: new.event.at };
        let keys = inner.list(&query).await?;
        let has_token = |key: &&std::sync::Arc<Key>| {
            key.issue_token.is_some()
                && key.issue_token == new.key.issue_token
                && key.created_at >= new.token_since
        };
        if let Some(key) = keys.iter().find(has_token) {
            return Ok(InsertOutcome::TokenTaken(key.id));
        }
        tokio::task::yield_now().await;
        inner.insert(InsertKey { token_since: Timestamp::MAX, ..new }).await
    }
}

async fn count(inner: &Inner, new: InsertKey<'_>, status: Option<Status>) -> StoreResult<usize> {
    let within = OwnerScope::Owner(&new.key.owner);
    let query = KeyQuery { within, status, after: None, limit: 1_000, now: new.event.at };
    Ok(inner.list(&query).await?.len())
}

#[derive(Default)]
pub struct UpdatesTheHint;

#[async_trait]
impl Sabotage for UpdatesTheHint {
    async fn update(
        &self,
        inner: &Inner,
        key: &Key,
        event: &AuditEvent,
    ) -> StoreResult<UpdateOutcome> {
        let hint = key.hint.clone();
        inner.modify_reads(key.id, move |key| key.hint.clone_from(&hint));
        inner.update(key, event).await
    }
}

#[derive(Default)]
pub struct UpdatesAnyRevision;

#[async_trait]
impl Sabotage for UpdatesAnyRevision {
    async fn update(
        &self,
        inner: &Inner,
        key: &Key,
        event: &AuditEvent,
    ) -> StoreResult<UpdateOutcome> {
        loop {
            let Some(stored) = inner.get_unscoped(key.id).await? else {
                return Ok(UpdateOutcome::NotFound);
            };
            let current = Key { revision: stored.revision, ..key.clone() };
            match inner.update(&current, event).await? {
                UpdateOutcome::Conflict if stored.revoked.is_none() => {}
                answer => return Ok(answer),
            }
        }
    }
}

#[derive(Default)]
pub struct UpdatesReviveRevokedKeys;

#[async_trait]
impl Sabotage for UpdatesReviveRevokedKeys {
    async fn update(
        &self,
        inner: &Inner,
        key: &Key,
        event: &AuditEvent,
    ) -> StoreResult<UpdateOutcome> {
        let stored = inner.get_unscoped(key.id).await?;
        if stored.is_some_and(|stored| stored.revoked.is_some()) {
            inner.modify_reads(key.id, |key| key.revoked = None);
            return Ok(UpdateOutcome::Updated);
        }
        inner.update(key, event).await
    }
}

/// Stores the expiry of the key and the end of the retiring secret in one column.
#[derive(Default)]
pub struct RotationsMoveTheExpiry;

#[async_trait]
impl Sabotage for RotationsMoveTheExpiry {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        if let PreviousSecret::EndsAt(ends_at) = rotate.previous {
            inner.modify_reads(rotate.key.id, move |key| key.expires_at = Some(ends_at));
        }
        inner.rotate(rotate).await
    }
}

#[derive(Default)]
pub struct KeepsEverySecret {
    all: Mutex<HashMap<SecretDigest, (Owner, KeyId)>>,
}

#[async_trait]
impl Sabotage for KeepsEverySecret {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.remember(new.key, new.digest);
        inner.insert(new).await
    }

    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        self.remember(rotate.key, rotate.digest);
        inner.rotate(rotate).await
    }

    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        if let Some(found) = inner.find(digests).await? {
            return Ok(Some(found));
        }
        let known = |digest| self.all.lock().unwrap().get(digest).cloned();
        let Some((owner, id)) = digests.iter().find_map(known) else { return Ok(None) };
        let key = inner.get((&owner).into(), id).await?;
        Ok(key.map(|key| FoundKey { key, digest: digests[0], ends_at: None }))
    }
}

impl KeepsEverySecret {
    fn remember(&self, key: &Key, digest: &SecretDigest) {
        self.all.lock().unwrap().insert(*digest, (key.owner.clone(), key.id));
    }
}

/// Retires the secret that should be removed, and removes the one that is in use.
#[derive(Default)]
pub struct RemovesTheWrongSecret;

#[async_trait]
impl Sabotage for RemovesTheWrongSecret {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        inner
            .rotate(RotateSecret { previous: PreviousSecret::EndsAt(Timestamp::MAX), ..rotate })
            .await
    }
}

#[derive(Default)]
pub struct ReplacesUsedSecrets;

#[async_trait]
impl Sabotage for ReplacesUsedSecrets {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        match inner.rotate(rotate).await? {
            RotateOutcome::SecretUsed => retire(inner, rotate).await,
            answer => Ok(answer),
        }
    }
}

#[derive(Default)]
pub struct ChecksTheUseThenRotates;

#[async_trait]
impl Sabotage for ChecksTheUseThenRotates {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        if rotate.previous != PreviousSecret::Replaced {
            return inner.rotate(rotate).await;
        }
        let stored = inner.get_unscoped(rotate.key.id).await?;
        if stored.is_some_and(|stored| stored.secret_first_used_at.is_some()) {
            return Ok(RotateOutcome::SecretUsed);
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        retire(inner, rotate).await
    }
}

/// Rotates whether the secret was used or not.
async fn retire(inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
    inner.rotate(RotateSecret { previous: PreviousSecret::EndsAt(Timestamp::MIN), ..rotate }).await
}

#[derive(Default)]
pub struct RotationsOverwriteOtherKeys;

#[async_trait]
impl Sabotage for RotationsOverwriteOtherKeys {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        if let Some(found) = inner.find(&[*rotate.digest]).await? {
            inner.delete((&found.key.owner).into(), found.key.id, rotate.event).await?;
        }
        inner.rotate(rotate).await
    }
}

#[derive(Default)]
pub struct RotatesAnyRevision;

#[async_trait]
impl Sabotage for RotatesAnyRevision {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        loop {
            let stored = inner.get_unscoped(rotate.key.id).await?;
            let Some(stored) = stored else { return Ok(RotateOutcome::NotFound) };
            match inner.rotate(RotateSecret { key: &stored, ..rotate }).await? {
                RotateOutcome::Conflict if stored.revoked.is_none() => {}
                answer => return Ok(answer),
            }
        }
    }
}

#[derive(Default)]
pub struct RehashKeepsTheOldDigest {
    moved: Mutex<HashMap<SecretDigest, SecretDigest>>,
}

#[async_trait]
impl Sabotage for RehashKeepsTheOldDigest {
    async fn rehash(
        &self,
        inner: &Inner,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> StoreResult<bool> {
        let done = inner.rehash(from, to).await?;
        if done {
            self.moved.lock().unwrap().insert(*from, *to);
        }
        Ok(done)
    }

    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let moved = |digest: &SecretDigest| {
            self.moved.lock().unwrap().get(digest).copied().unwrap_or(*digest)
        };
        inner.find(&digests.iter().map(moved).collect::<Vec<_>>()).await
    }
}

#[derive(Default)]
pub struct RehashAlwaysReportsSuccess;

#[async_trait]
impl Sabotage for RehashAlwaysReportsSuccess {
    async fn rehash(
        &self,
        inner: &Inner,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> StoreResult<bool> {
        inner.rehash(from, to).await.map(|_| true)
    }
}

/// A rotation without a token keeps the token of the rotation before.
#[derive(Default)]
pub struct KeepsTheToken;

#[async_trait]
impl Sabotage for KeepsTheToken {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        let token = rotate.token.or(rotate.key.rotation_token);
        inner.rotate(RotateSecret { token, ..rotate }).await
    }
}
