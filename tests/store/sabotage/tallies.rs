use std::sync::Mutex;

use async_trait::async_trait;
use keyward::{KeyId, KeyStore, OwnerScope, Timestamp, store::HourlyUsage};
use tokio::task::yield_now;

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct CountsAnHourOnceACall;

#[async_trait]
impl Sabotage for CountsAnHourOnceACall {
    async fn add_usage(&self, inside: &Inside, tallies: &[HourlyUsage]) -> Answer<()> {
        let mut once: Vec<HourlyUsage> = Vec::new();
        for tally in tallies {
            if !once.iter().any(|it| (it.key_id, it.hour) == (tally.key_id, tally.hour)) {
                once.push(*tally);
            }
        }
        inside.add_usage(&once).await
    }
}

/// Everything that was not accepted was denied.
#[derive(Default)]
pub struct CountsLimitedAsDenied;

#[async_trait]
impl Sabotage for CountsLimitedAsDenied {
    async fn add_usage(&self, inside: &Inside, tallies: &[HourlyUsage]) -> Answer<()> {
        let denied =
            |it: &HourlyUsage| HourlyUsage { denied: it.denied + it.limited, limited: 0, ..*it };
        inside.add_usage(&tallies.iter().map(denied).collect::<Vec<_>>()).await
    }
}

/// Reads the sum, and writes what it should be then.
#[derive(Default)]
pub struct AddsToWhatItRead;

#[async_trait]
impl Sabotage for AddsToWhatItRead {
    async fn add_usage(&self, inside: &Inside, tallies: &[HourlyUsage]) -> Answer<()> {
        for tally in tallies {
            let Some(owner) = inside.owner_of(tally.key_id) else { continue };
            let read =
                async || inside.usage_history((&owner).into(), tally.key_id, tally.hour).await;
            let accepted = |tallies: Vec<HourlyUsage>| tallies.first().map_or(0, |it| it.accepted);
            let wanted = accepted(read().await?) + tally.accepted;
            yield_now().await;
            let missing = wanted.saturating_sub(accepted(read().await?));
            inside.add_usage(&[HourlyUsage { accepted: missing, ..*tally }]).await?;
        }
        Ok(())
    }
}

/// Keeps what was counted before there was a key, or after.
#[derive(Default)]
pub struct CountsUnknownKeys {
    early: Mutex<Vec<HourlyUsage>>,
}

#[async_trait]
impl Sabotage for CountsUnknownKeys {
    async fn add_usage(&self, inside: &Inside, tallies: &[HourlyUsage]) -> Answer<()> {
        self.early.lock().unwrap().extend(tallies);
        inside.add_usage(tallies).await
    }

    async fn usage_history(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Answer<Vec<HourlyUsage>> {
        let seen = inside.usage_history(within, id, from).await?;
        let early = self.early.lock().unwrap();
        let of_key = early.iter().filter(|tally| tally.key_id == id).copied();
        Ok(if seen.is_empty() { of_key.collect() } else { seen })
    }
}

#[derive(Default)]
pub struct ShowsCountsToAll;

#[async_trait]
impl Sabotage for ShowsCountsToAll {
    async fn usage_history(
        &self,
        inside: &Inside,
        _: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Answer<Vec<HourlyUsage>> {
        let Some(owner) = inside.owner_of(id) else { return Ok(Vec::new()) };
        inside.usage_history((&owner).into(), id, from).await
    }
}

#[derive(Default)]
pub struct PurgesCountsWithoutLimit;

#[async_trait]
impl Sabotage for PurgesCountsWithoutLimit {
    async fn purge_usage(&self, inside: &Inside, before: Timestamp, _: u32) -> Answer<u32> {
        inside.purge_usage(before, u32::MAX).await
    }
}
