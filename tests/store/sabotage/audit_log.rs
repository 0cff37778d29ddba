//! Broken audit logs.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, KeyStore,
    audit::EventKind,
    model::EventId,
    store::{InsertKey, InsertOutcome},
};
use tokio::task::yield_now;

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct DropsEvents;

#[async_trait]
impl Sabotage for DropsEvents {
    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let mut events = inner.events(query).await?;
        events.retain(|event| event.kind != EventKind::Rotated);
        Ok(events)
    }
}

#[derive(Default)]
pub struct LogsRefusedInserts;

#[async_trait]
impl Sabotage for LogsRefusedInserts {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        inner.record_events(std::slice::from_ref(new.event)).await?;
        inner.insert(new).await
    }
}

#[derive(Default)]
pub struct LosesTheCount;

#[async_trait]
impl Sabotage for LosesTheCount {
    async fn record_events(&self, inner: &Inner, events: &[AuditEvent]) -> StoreResult<u32> {
        let one = |event: &AuditEvent| {
            let mut event = event.clone();
            event.count = 1;
            event
        };
        inner.record_events(&events.iter().map(one).collect::<Vec<_>>()).await
    }
}

#[derive(Default)]
pub struct OverwritesEvents {
    last: Mutex<HashMap<EventId, AuditEvent>>,
}

#[async_trait]
impl Sabotage for OverwritesEvents {
    async fn record_events(&self, inner: &Inner, events: &[AuditEvent]) -> StoreResult<u32> {
        let last = events.iter().map(|event| (event.id, event.clone()));
        self.last.lock().unwrap().extend(last);
        inner.record_events(events).await
    }

    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let events = inner.events(query).await?;
        let last = self.last.lock().unwrap();
        Ok(events.into_iter().map(|event| last.get(&event.id).cloned().unwrap_or(event)).collect())
    }
}

/// Looks for the events, yields, and then counts those that were missing.
#[derive(Default)]
pub struct ReadsThenRecords {
    known: Mutex<HashSet<EventId>>,
}

#[async_trait]
impl Sabotage for ReadsThenRecords {
    async fn record_events(&self, inner: &Inner, events: &[AuditEvent]) -> StoreResult<u32> {
        let mut new: HashSet<EventId> = events.iter().map(|event| event.id).collect();
        new.retain(|id| !self.known.lock().unwrap().contains(id));
        yield_now().await;
        self.known.lock().unwrap().extend(new.iter().copied());
        inner.record_events(events).await?;
        Ok(new.len() as u32)
    }
}

#[derive(Default)]
pub struct UntilIsInclusive;

#[async_trait]
impl Sabotage for UntilIsInclusive {
    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let until = query.until.map(|until| until.after(Duration::from_micros(1)));
        inner.events(&AuditQuery { until, ..*query }).await
    }
}
