use std::{collections::HashMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, KeyStore,
    audit::EventKind,
    model::EventId,
    store::{InsertKey, InsertOutcome},
};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct DropsEvents;

#[async_trait]
impl Sabotage for DropsEvents {
    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let mut events = inside.events(query).await?;
        events.retain(|event| event.kind != EventKind::Rotated);
        Ok(events)
    }
}

#[derive(Default)]
pub struct LogsAttempts;

#[async_trait]
impl Sabotage for LogsAttempts {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        inside.record_events(std::slice::from_ref(new.event)).await?;
        inside.insert(new).await
    }
}

#[derive(Default)]
pub struct LosesTheCount;

#[async_trait]
impl Sabotage for LosesTheCount {
    async fn record_events(&self, inside: &Inside, events: &[AuditEvent]) -> Answer<()> {
        let one = |event: &AuditEvent| {
            let mut event = event.clone();
            event.count = 1;
            event
        };
        inside.record_events(&events.iter().map(one).collect::<Vec<_>>()).await
    }
}

#[derive(Default)]
pub struct RecordsOver {
    last: Mutex<HashMap<EventId, AuditEvent>>,
}

#[async_trait]
impl Sabotage for RecordsOver {
    async fn record_events(&self, inside: &Inside, events: &[AuditEvent]) -> Answer<()> {
        let last = events.iter().map(|event| (event.id, event.clone()));
        self.last.lock().unwrap().extend(last);
        inside.record_events(events).await
    }

    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let events = inside.events(query).await?;
        let last = self.last.lock().unwrap();
        Ok(events.into_iter().map(|event| last.get(&event.id).cloned().unwrap_or(event)).collect())
    }
}

#[derive(Default)]
pub struct UntilAndIncluding;

#[async_trait]
impl Sabotage for UntilAndIncluding {
    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let until = query.until.map(|until| until.after(Duration::from_micros(1)));
        inside.events(&AuditQuery { until, ..*query }).await
    }
}
