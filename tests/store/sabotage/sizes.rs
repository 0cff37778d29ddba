//! Stores whose columns are too short.

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyStore, Owner,
    model::Metadata,
    store::{
        ChargeOutcome, CounterCharge, CounterKey, Counters, InsertKey, InsertOutcome, UpdateOutcome,
    },
};

use super::wrapper::{Inner, Sabotage, StoreResult};

/// Keeps the first 255 characters.
#[derive(Default)]
pub struct TruncatesMetadata;

fn truncated(text: &str) -> String {
    text.chars().take(255).collect()
}

fn truncate_metadata(key: &mut Key) {
    let pairs = key.metadata.iter().map(|(key, value)| (key.to_owned(), truncated(value)));
    key.metadata = Metadata::new(pairs.collect::<Vec<_>>()).unwrap();
}

#[async_trait]
impl Sabotage for TruncatesMetadata {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        inner.modify_reads(new.key.id, truncate_metadata);
        inner.insert(new).await
    }

    async fn update(
        &self,
        inner: &Inner,
        key: &Key,
        event: &AuditEvent,
    ) -> StoreResult<UpdateOutcome> {
        inner.modify_reads(key.id, truncate_metadata);
        inner.update(key, event).await
    }
}

/// Keeps the first 255 characters.
#[derive(Default)]
pub struct TruncatesUserAgents;

#[async_trait]
impl Sabotage for TruncatesUserAgents {
    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let mut events = inner.events(query).await?;
        for event in &mut events {
            event.user_agent = event.user_agent.as_deref().map(truncated);
        }
        Ok(events)
    }
}

/// Counts owners by the beginning of their ids.
#[derive(Default)]
pub struct TruncatesCounterKeys;

#[async_trait]
impl Sabotage for TruncatesCounterKeys {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let begin = |id: &str| id.chars().take(100).collect::<String>();
        let owners = charges.iter().map(|charge| match charge.counter_key {
            CounterKey::Owner(owner) => {
                Some(Owner::from_parts(&begin(owner.tenant()), &begin(owner.account())).unwrap())
            }
            _ => None,
        });
        let owners: Vec<_> = owners.collect();
        let charges = charges.iter().zip(&owners).map(|(charge, owner)| match owner {
            Some(owner) => CounterCharge { counter_key: CounterKey::Owner(owner), ..*charge },
            None => *charge,
        });
        inner.charge(&charges.collect::<Vec<_>>()).await
    }
}
