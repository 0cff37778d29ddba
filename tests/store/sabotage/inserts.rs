use async_trait::async_trait;
use keyward::{
    KeyStore, OwnerScope, Status,
    store::{InsertKey, InsertOutcome, KeyQuery},
};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct IgnoresTheLimit;

#[async_trait]
impl Sabotage for IgnoresTheLimit {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        inside.insert(InsertKey { max_active: None, ..new }).await
    }
}

#[derive(Default)]
pub struct DisabledKeysDoNotCount;

#[async_trait]
impl Sabotage for DisabledKeysDoNotCount {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        let active = count(inside, new, Some(Status::Active)).await?;
        if new.max_active.is_some_and(|max| active >= max as usize) {
            return Ok(InsertOutcome::LimitReached);
        }
        inside.insert(InsertKey { max_active: None, ..new }).await
    }
}

#[derive(Default)]
pub struct CountsThenInserts;

#[async_trait]
impl Sabotage for CountsThenInserts {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        let keys = count(inside, new, None).await?;
        if new.max_active.is_some_and(|max| keys >= max as usize) {
            return Ok(InsertOutcome::LimitReached);
        }
        tokio::task::yield_now().await;
        inside.insert(InsertKey { max_active: None, ..new }).await
    }
}

/// Whoever has the digest makes way for the newcomer.
#[derive(Default)]
pub struct Upserts;

#[async_trait]
impl Sabotage for Upserts {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        if let Some(found) = inside.find(&[*new.digest]).await? {
            let within = OwnerScope::Owner(&found.key.owner);
            inside.delete(within, found.key.id, new.event).await?;
        }
        inside.insert(new).await
    }
}

async fn count(inside: &Inside, new: InsertKey<'_>, status: Option<Status>) -> Answer<usize> {
    let within = OwnerScope::Owner(&new.key.owner);
    let query = KeyQuery { within, status, after: None, limit: 1_000, now: new.event.at };
    Ok(inside.list(&query).await?.len())
}
