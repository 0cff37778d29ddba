use std::time::Duration;

use async_trait::async_trait;

use super::{
    RedisStore,
    commands::{Arguments, Reply},
    listener::{optional_entry_id, position},
    msgpack::damaged_record,
    records::{instant, unrevoked_prefix},
    scripts::{ANNOUNCE_ACCOUNT_CHANGE, CHANGES, PURGE_CHANGES},
};
use crate::{
    model::{KeyId, Owner, Timestamp},
    store::{ChangeBatch, ChangeFeed, FeedMode, StoreError, feed_position::FeedPosition},
};

/// Entries are read from a stream, and pub/sub wakes waiting calls.
#[async_trait]
impl ChangeFeed for RedisStore {
    async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        let after = after.map(FeedPosition::from_cursor);
        let reader = after.map_or_else(String::new, |after| after.number.to_string());
        let from = after.map_or_else(String::new, |after| (after.number + 1).to_string());
        let reply =
            self.database.read(&CHANGES, &[reader.as_bytes(), from.as_bytes()]).await?.list()?;
        let [last_number, last_tag, purged_number, purged_tag, at_reader, end, ids] = &reply[..]
        else {
            return Err(damaged_record());
        };
        let last = position(last_number.digits()?, last_tag.digits()?)?;
        let purged = position(purged_number.digits()?, purged_tag.digits()?)?;
        let cursor = optional_entry_id(end)?.unwrap_or(last);
        let at_reader = optional_entry_id(at_reader)?;
        let (ids, rest) = ids.bytes()?.as_chunks();
        if !rest.is_empty() {
            return Err(damaged_record());
        }
        Ok(ChangeBatch {
            keys: ids.iter().copied().map(KeyId::from_bytes).collect(),
            cursor: cursor.cursor(),
            missed: after
                .is_some_and(|after| ![Some(last), Some(purged), at_reader].contains(&Some(after))),
            more: cursor.number < last.number,
        })
    }

    async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.listener.wait_for_changes(&self.database, after, at_most).await
    }

    async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let arguments: Arguments<'_> =
            &[&self.database.tag()?, &unrevoked_prefix(owner), &instant(at)];
        let changed = |reply: &Reply| !matches!(reply.number(), Ok(0));
        self.database.write(&ANNOUNCE_ACCOUNT_CHANGE, arguments, changed).await?.number()
    }

    async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        let mut removed = 0u32;
        loop {
            let step = self
                .database
                .write(&PURGE_CHANGES, &[&instant(before)], |_| true)
                .await?
                .number()?;
            removed = removed.saturating_add(step);
            if step == 0 {
                return Ok(removed);
            }
        }
    }
}
