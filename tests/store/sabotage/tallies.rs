use std::sync::Mutex;

use async_trait::async_trait;
use keyward::{KeyId, KeyStore, Timestamp, Whose, store::Tally};
use tokio::task::yield_now;

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct CountsAnHourOnceACall;

#[async_trait]
impl Sabotage for CountsAnHourOnceACall {
    async fn tally(&self, inside: &Inside, tallies: &[Tally]) -> Answer<()> {
        let mut once: Vec<Tally> = Vec::new();
        for tally in tallies {
            if !once.iter().any(|it| (it.key_id, it.hour) == (tally.key_id, tally.hour)) {
                once.push(*tally);
            }
        }
        inside.tally(&once).await
    }
}

/// Everything that was not accepted was denied.
#[derive(Default)]
pub struct CountsLimitedAsDenied;

#[async_trait]
impl Sabotage for CountsLimitedAsDenied {
    async fn tally(&self, inside: &Inside, tallies: &[Tally]) -> Answer<()> {
        let denied = |it: &Tally| Tally { denied: it.denied + it.limited, limited: 0, ..*it };
        inside.tally(&tallies.iter().map(denied).collect::<Vec<_>>()).await
    }
}

/// Reads the sum, and writes what it should be then.
#[derive(Default)]
pub struct AddsToWhatItRead;

#[async_trait]
impl Sabotage for AddsToWhatItRead {
    async fn tally(&self, inside: &Inside, tallies: &[Tally]) -> Answer<()> {
        for tally in tallies {
            let Some(owner) = inside.owner_of(tally.key_id) else { continue };
            let read = async || inside.tallies((&owner).into(), tally.key_id, tally.hour).await;
            let accepted = |tallies: Vec<Tally>| tallies.first().map_or(0, |it| it.accepted);
            let wanted = accepted(read().await?) + tally.accepted;
            yield_now().await;
            let missing = wanted.saturating_sub(accepted(read().await?));
            inside.tally(&[Tally { accepted: missing, ..*tally }]).await?;
        }
        Ok(())
    }
}

/// Keeps what was counted before there was a key, or after.
#[derive(Default)]
pub struct CountsUnknownKeys {
    early: Mutex<Vec<Tally>>,
}

#[async_trait]
impl Sabotage for CountsUnknownKeys {
    async fn tally(&self, inside: &Inside, tallies: &[Tally]) -> Answer<()> {
        self.early.lock().unwrap().extend(tallies);
        inside.tally(tallies).await
    }

    async fn tallies(
        &self,
        inside: &Inside,
        whose: Whose<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Answer<Vec<Tally>> {
        let seen = inside.tallies(whose, id, from).await?;
        let early = self.early.lock().unwrap();
        let of_key = early.iter().filter(|tally| tally.key_id == id).copied();
        Ok(if seen.is_empty() { of_key.collect() } else { seen })
    }
}

#[derive(Default)]
pub struct ShowsCountsToAll;

#[async_trait]
impl Sabotage for ShowsCountsToAll {
    async fn tallies(
        &self,
        inside: &Inside,
        _: Whose<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Answer<Vec<Tally>> {
        let Some(owner) = inside.owner_of(id) else { return Ok(Vec::new()) };
        inside.tallies((&owner).into(), id, from).await
    }
}

#[derive(Default)]
pub struct PurgesCountsWithoutLimit;

#[async_trait]
impl Sabotage for PurgesCountsWithoutLimit {
    async fn purge_tallies(&self, inside: &Inside, before: Timestamp, _: u32) -> Answer<u32> {
        inside.purge_tallies(before, u32::MAX).await
    }
}
