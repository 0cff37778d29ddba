use std::time::Duration;

use sqlx::Row;
use tokio::time::{Instant, sleep_until};

use super::{
    SqliteStore,
    change::Change,
    errors::Failure,
    rows::{bytes, impossible, number},
};
use crate::{
    model::{KeyId, Owner, Timestamp},
    store::{ChangeBatch, FeedMode, StoreError},
};

/// The change feed. It tells other processes on the same file, too, but cannot wake them.
impl SqliteStore {
    pub(super) async fn read_changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        self.read(async |connection, sql| {
            let rows = sqlx::query(sql.changes.clone())
                // SQLite has no larger number either: such a cursor is from the future.
                .bind(after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
                .bind(PER_PAGE)
                .fetch_all(connection)
                .await?;
            let ends = rows.first().ok_or_else(|| impossible("last"))?;
            let last: u64 = number(ends, "last")?;
            let first = match ends.try_get("first")? {
                None => last + 1,
                Some::<i64>(_) => number(ends, "first")?,
            };
            let (after, mut keys) = (after.unwrap_or(last), Vec::with_capacity(rows.len()));
            // With nothing behind it, a cursor goes to the end, from wherever it was.
            let mut cursor = last;
            for row in &rows {
                // The ends come also where there is nothing between them.
                let Some(id) = bytes(row, "key_id")? else { continue };
                keys.push(KeyId::from_bytes(id));
                cursor = number(row, "number")?;
            }
            // A cursor from the future is one of another file's life.
            let missed = after.saturating_add(1) < first || after > last;
            Ok(ChangeBatch { keys, cursor, missed, more: cursor < last })
        })
        .await
    }

    pub(super) async fn wait_for_change(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        let now = Instant::now();
        let end = now.checked_add(at_most).unwrap_or(now + A_LONG_TIME);
        loop {
            let last = self.last_change().await?;
            let now = Instant::now();
            if last != after || now >= end {
                return Ok(FeedMode::Polled);
            }
            sleep_until(end.min(now + INTERVAL)).await;
        }
    }

    async fn last_change(&self) -> Result<u64, StoreError> {
        self.read(async |connection, sql| {
            let last: i64 =
                sqlx::query_scalar(sql.last_change.clone()).fetch_one(connection).await?;
            u64::try_from(last).map_err(|_| impossible("seq"))
        })
        .await
    }
}

impl Change<'_> {
    pub(super) async fn announce_account_change(
        &mut self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, Failure> {
        let done = sqlx::query(self.sql.announce.clone())
            .bind(owner.tenant())
            .bind(owner.account())
            .bind(at.as_unix_micros())
            .execute(self.connection())
            .await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }

    pub(super) async fn purge_changes(&mut self, before: Timestamp) -> Result<u32, Failure> {
        let purge = sqlx::query(self.sql.purge_changes.clone()).bind(before.as_unix_micros());
        let done = purge.execute(self.connection()).await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }
}

const PER_PAGE: i64 = 1_000;
/// A look costs about as much as a verification that the cache does not answer.
const INTERVAL: Duration = Duration::from_millis(50);
const A_LONG_TIME: Duration = Duration::from_secs(365 * 86_400);
