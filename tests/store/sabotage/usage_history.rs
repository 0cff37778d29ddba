//! Broken records of first and last uses, and of usage by hour.

use std::sync::Mutex;

use async_trait::async_trait;
use keyward::{
    AuditEvent, KeyId, KeyStore, OwnerScope, Timestamp,
    store::{HourlyUsage, KeyUse, UsageHistory},
};
use tokio::task::yield_now;

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct LastWriteWins;

#[async_trait]
impl Sabotage for LastWriteWins {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        for used in uses {
            let last_at = used.last_at;
            inner.modify_reads(used.key_id, move |key| key.last_used_at = Some(last_at));
        }
        inner.record_uses(uses).await
    }
}

#[derive(Default)]
pub struct EveryUseIsTheFirst;

#[async_trait]
impl Sabotage for EveryUseIsTheFirst {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        inner.record_uses(uses).await?;
        let firsts: Vec<_> = uses.iter().map(KeyUse::first_use).collect();
        inner.record_events(&firsts).await?;
        Ok(firsts)
    }
}

#[derive(Default)]
pub struct ReadsThenRecordsTheFirstUse;

#[async_trait]
impl Sabotage for ReadsThenRecordsTheFirstUse {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        let mut firsts = Vec::new();
        for used in uses {
            let key = inner.get(OwnerScope::Owner(&used.owner), used.key_id).await?;
            if key.is_some_and(|key| key.first_used_at.is_none()) {
                firsts.push(used.first_use());
            }
        }
        tokio::task::yield_now().await;
        inner.record_uses(uses).await?;
        inner.record_events(&firsts).await?;
        Ok(firsts)
    }
}

/// Records only the last of several uses of one key.
#[derive(Default)]
pub struct RecordsOneUsePerKey;

#[async_trait]
impl Sabotage for RecordsOneUsePerKey {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        let mut last: Vec<KeyUse> = Vec::new();
        for used in uses {
            last.retain(|it| it.key_id != used.key_id);
            last.push(used.clone());
        }
        inner.record_uses(&last).await
    }
}

#[derive(Default)]
pub struct StopsAtAnUnknownKey;

#[async_trait]
impl Sabotage for StopsAtAnUnknownKey {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        let unknown = |used: &KeyUse| inner.owner_of(used.key_id).as_ref() != Some(&used.owner);
        let stop = uses.iter().position(unknown);
        inner.record_uses(&uses[..stop.unwrap_or(uses.len())]).await
    }
}

#[derive(Default)]
pub struct UsesIncrementTheRevision;

#[async_trait]
impl Sabotage for UsesIncrementTheRevision {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        for used in uses {
            inner.modify_reads(used.key_id, |key| key.revision += 1);
        }
        inner.record_uses(uses).await
    }
}

/// Reads a key, changes it and writes all of it back, which undoes a concurrent revocation.
#[derive(Default)]
pub struct WritesBackStaleKeys;

#[async_trait]
impl Sabotage for WritesBackStaleKeys {
    async fn record_uses(&self, inner: &Inner, uses: &[KeyUse]) -> StoreResult<Vec<AuditEvent>> {
        let mut read = Vec::new();
        for used in uses {
            read.extend(inner.get(OwnerScope::Owner(&used.owner), used.key_id).await?);
        }
        tokio::task::yield_now().await;
        let written = inner.record_uses(uses).await?;
        for key in read {
            let now = inner.get(OwnerScope::Owner(&key.owner), key.id).await?;
            if key.revoked.is_none() && now.is_some_and(|now| now.revoked.is_some()) {
                inner.modify_reads(key.id, |key| key.revoked = None);
            }
        }
        Ok(written)
    }
}

#[derive(Default)]
pub struct AddsAnHourOncePerCall;

#[async_trait]
impl Sabotage for AddsAnHourOncePerCall {
    async fn add_usage(&self, inner: &Inner, usage: &[HourlyUsage]) -> StoreResult<()> {
        let mut once: Vec<HourlyUsage> = Vec::new();
        for hour in usage {
            if !once.iter().any(|it| (it.key_id, it.hour) == (hour.key_id, hour.hour)) {
                once.push(*hour);
            }
        }
        inner.add_usage(&once).await
    }
}

/// Counts limited requests as denied.
#[derive(Default)]
pub struct CountsLimitedAsDenied;

#[async_trait]
impl Sabotage for CountsLimitedAsDenied {
    async fn add_usage(&self, inner: &Inner, usage: &[HourlyUsage]) -> StoreResult<()> {
        let denied =
            |it: &HourlyUsage| HourlyUsage { denied: it.denied + it.limited, limited: 0, ..*it };
        inner.add_usage(&usage.iter().map(denied).collect::<Vec<_>>()).await
    }
}

/// Reads the sum, adds to it and writes it back.
#[derive(Default)]
pub struct ReadsThenAdds;

#[async_trait]
impl Sabotage for ReadsThenAdds {
    async fn add_usage(&self, inner: &Inner, usage: &[HourlyUsage]) -> StoreResult<()> {
        for hour in usage {
            let Some(owner) = inner.owner_of(hour.key_id) else { continue };
            let read = async || inner.hourly_usage((&owner).into(), hour.key_id, hour.hour).await;
            let accepted = |usage: Vec<HourlyUsage>| usage.first().map_or(0, |it| it.accepted);
            let wanted = accepted(read().await?) + hour.accepted;
            yield_now().await;
            let missing = wanted.saturating_sub(accepted(read().await?));
            inner.add_usage(&[HourlyUsage { accepted: missing, ..*hour }]).await?;
        }
        Ok(())
    }
}

/// Keeps usage from before a key existed and after it was deleted.
#[derive(Default)]
pub struct KeepsUsageOfUnknownKeys {
    early: Mutex<Vec<HourlyUsage>>,
}

#[async_trait]
impl Sabotage for KeepsUsageOfUnknownKeys {
    async fn add_usage(&self, inner: &Inner, usage: &[HourlyUsage]) -> StoreResult<()> {
        self.early.lock().unwrap().extend(usage);
        inner.add_usage(usage).await
    }

    async fn hourly_usage(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> StoreResult<Vec<HourlyUsage>> {
        let seen = inner.hourly_usage(within, id, from).await?;
        let early = self.early.lock().unwrap();
        let of_key = early.iter().filter(|hour| hour.key_id == id).copied();
        Ok(if seen.is_empty() { of_key.collect() } else { seen })
    }
}

#[derive(Default)]
pub struct ShowsUsageToAllOwners;

#[async_trait]
impl Sabotage for ShowsUsageToAllOwners {
    async fn hourly_usage(
        &self,
        inner: &Inner,
        _: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> StoreResult<Vec<HourlyUsage>> {
        let Some(owner) = inner.owner_of(id) else { return Ok(Vec::new()) };
        inner.hourly_usage((&owner).into(), id, from).await
    }
}

#[derive(Default)]
pub struct PurgesUsageWithoutLimit;

#[async_trait]
impl Sabotage for PurgesUsageWithoutLimit {
    async fn purge_usage(&self, inner: &Inner, before: Timestamp, _: u32) -> StoreResult<u32> {
        inner.purge_usage(before, u32::MAX).await
    }
}

#[derive(Default)]
pub struct CountsIn32Bits;

#[async_trait]
impl Sabotage for CountsIn32Bits {
    async fn add_usage(&self, inner: &Inner, usage: &[HourlyUsage]) -> StoreResult<()> {
        let low = |count: u64| u64::from(count as u32);
        let low = |hour: &HourlyUsage| HourlyUsage {
            accepted: low(hour.accepted),
            denied: low(hour.denied),
            ..*hour
        };
        inner.add_usage(&usage.iter().map(low).collect::<Vec<_>>()).await
    }
}
