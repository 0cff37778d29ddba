//! Stores that lose what they acknowledged when they are opened again.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, KeyId, OwnerScope, Timestamp,
    model::EventId,
    store::{
        ChangeBatch, ChangeFeed, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge,
        HourlyUsage, KeyStore, OneTimeCodes, RevokeOutcome, UsageHistory,
    },
};

use super::wrapper::{Inner, Sabotage, StoreResult};

/// Writes revocations behind.
#[derive(Default)]
pub struct RevokesInMemory {
    revoked: Mutex<Vec<KeyId>>,
}

#[async_trait]
impl Sabotage for RevokesInMemory {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        self.revoked.lock().unwrap().push(id);
        inner.revoke(within, id, event).await
    }

    async fn reopened(&self, inner: &Inner) -> StoreResult<()> {
        for id in self.revoked.lock().unwrap().drain(..) {
            inner.modify_reads(id, |key| key.revoked = None);
        }
        Ok(())
    }
}

/// Buffers the events that belong to no change.
#[derive(Default)]
pub struct BuffersEvents {
    buffered: Mutex<Vec<EventId>>,
    lost: AtomicBool,
}

#[async_trait]
impl Sabotage for BuffersEvents {
    async fn record_events(&self, inner: &Inner, events: &[AuditEvent]) -> StoreResult<u32> {
        self.buffered.lock().unwrap().extend(events.iter().map(|event| event.id));
        inner.record_events(events).await
    }

    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let mut events = inner.events(query).await?;
        if self.lost.load(Ordering::Relaxed) {
            let buffered = self.buffered.lock().unwrap();
            events.retain(|event| !buffered.contains(&event.id));
        }
        Ok(events)
    }

    async fn reopened(&self, _: &Inner) -> StoreResult<()> {
        self.lost.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Keeps the feed in memory, and numbers its entries from the beginning after each start.
#[derive(Default)]
pub struct RestartsTheFeed {
    start: AtomicU64,
}

#[async_trait]
impl Sabotage for RestartsTheFeed {
    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        let start = self.start.load(Ordering::Relaxed);
        let batch = inner.changes(after.map(|after| after + start)).await?;
        Ok(ChangeBatch { cursor: batch.cursor - start, missed: false, ..batch })
    }

    async fn reopened(&self, inner: &Inner) -> StoreResult<()> {
        self.start.store(inner.changes(None).await?.cursor, Ordering::Relaxed);
        Ok(())
    }
}

/// Keeps counters, usage and codes in memory.
#[derive(Default)]
pub struct CountsInMemory {
    lost: AtomicBool,
}

#[async_trait]
impl Sabotage for CountsInMemory {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        match self.lost.load(Ordering::Relaxed) {
            true => Ok(ChargeOutcome::Granted(charges.iter().map(|charge| charge.uses).collect())),
            false => keyward::store::Counters::charge(&**inner, charges).await,
        }
    }

    async fn hourly_usage(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> StoreResult<Vec<HourlyUsage>> {
        match self.lost.load(Ordering::Relaxed) {
            true => Ok(Vec::new()),
            false => inner.hourly_usage(within, id, from).await,
        }
    }

    async fn try_code(&self, inner: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        match self.lost.load(Ordering::Relaxed) {
            true => Ok(CodeOutcome::NotFound),
            false => inner.try_code(attempt).await,
        }
    }

    async fn reopened(&self, _: &Inner) -> StoreResult<()> {
        self.lost.store(true, Ordering::Relaxed);
        Ok(())
    }
}
