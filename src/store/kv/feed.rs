use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::{
    KvError, KvOrder, KvStore, Work,
    layout::{damaged, instant, join, last, number, read_instant, take},
};
use crate::{
    model::{KeyId, Owner, Timestamp},
    store::{ChangeBatch, ChangeFeed, FeedMode, StoreError},
};

#[async_trait]
impl ChangeFeed for KvStore {
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.read(async |work| {
            let (end, purged) = (work.position(LAST).await?, work.position(PURGED).await?);
            let after = after.unwrap_or(end);
            let page = match after.checked_add(1) {
                Some(first) => work.entries_from(first).await?,
                None => Vec::new(),
            };
            let cursor = page.last().map_or(end, |entry| entry.number);
            Ok(ChangeBatch {
                keys: page.into_iter().map(|entry| entry.key_id).collect(),
                cursor,
                // A cursor past the end was read before an older copy of the engine was restored.
                missed: after < purged || after > end,
                more: cursor < end,
            })
        })
        .await
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        let mut commits = self.commits.subscribe();
        let now = Instant::now();
        let end = now.checked_add(at_most).unwrap_or(now + ONE_YEAR);
        loop {
            // Read after subscribing: a later change of this process wakes this call.
            let last = self.read(async |work| work.position(LAST).await).await?;
            let now = Instant::now();
            if last != after || now >= end {
                return Ok(FeedMode::Polled);
            }
            let _ = timeout_at(end.min(now + POLL_INTERVAL), commits.changed()).await;
        }
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        self.write(async |work| {
            let mut announced = 0;
            for state in work.states(owner).await?.into_iter().filter(|state| !state.is_revoked) {
                work.append_to_feed(state.id, at).await?;
                announced += 1;
            }
            Ok(announced)
        })
        .await
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        let mut purged = 0u32;
        loop {
            let step = self.write(async |work| {
                let page = work.entries_from(0).await?;
                let old: Vec<_> = page.into_iter().take_while(|entry| entry.at < before).collect();
                for entry in &old {
                    work.delete(entry_key(entry.number));
                    work.set_position(PURGED, entry.number);
                }
                Ok(old.len())
            });
            match step.await? {
                0 => return Ok(purged),
                step => purged = purged.saturating_add(step as u32),
            }
        }
    }
}

/// An entry of the feed.
pub(super) struct Entry {
    number: u64,
    at: Timestamp,
    key_id: KeyId,
}

impl Work {
    pub(super) async fn append_to_feed(&mut self, id: KeyId, at: Timestamp) -> Result<(), KvError> {
        let number = self.position(LAST).await? + 1;
        self.set_position(LAST, number);
        self.put(entry_key(number), [&instant(at)[..], id.as_bytes()].concat());
        Ok(())
    }

    async fn entries_from(&mut self, first: u64) -> Result<Vec<Entry>, KvError> {
        let (from, end) = (entry_key(first), [b'f' + 1]);
        let page = self.scan(&from..&end, KvOrder::Ascending, PAGE_SIZE).await?;
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let mut rest = &value[..];
            let (at, key_id) = (read_instant(take(&mut rest)?)?, KeyId::from_bytes(last(rest)?));
            Ok(Entry { number: u64::from_be_bytes(last(&key)?), at, key_id })
        };
        page.into_iter().map(read).collect()
    }

    async fn position(&mut self, name: &[u8]) -> Result<u64, KvError> {
        let stored = self.get(&join(b'm', &[name])).await?;
        Ok(stored.as_deref().map_or(Ok(0), number).map_err(|_| damaged())?)
    }

    fn set_position(&mut self, name: &[u8], number: u64) {
        self.put(join(b'm', &[name]), number.to_be_bytes().into());
    }
}

fn entry_key(number: u64) -> Vec<u8> {
    join(b'f', &[&number.to_be_bytes()])
}

const LAST: &[u8] = b"last";
const PURGED: &[u8] = b"purged";
const PAGE_SIZE: usize = 1_000;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const ONE_YEAR: Duration = Duration::from_secs(365 * 86_400);
