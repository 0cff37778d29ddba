use std::time::Duration;

use sqlx::Row;
use tokio::time::{Instant, sleep_until};

use super::{
    connections::SqliteDatabase,
    records::{bytes, number},
};
use crate::{
    model::KeyId,
    store::{ChangeBatch, FeedMode, StoreError, sql::corrupt_column},
};

/// The change feed. Other processes on the same file see its entries, but cannot be woken: the feed
/// is polled.
impl SqliteDatabase {
    pub(super) async fn changes_after(
        &self,
        after: Option<u64>,
    ) -> Result<ChangeBatch, StoreError> {
        self.read(async |connection, sql| {
            let rows = sqlx::query(sql.changes.clone())
                // SQLite has no larger numbers: such a cursor is past the end of any feed.
                .bind(after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
                .bind(PAGE_SIZE)
                .fetch_all(connection)
                .await?;
            // Every row has the numbers of the first and last entry.
            let bounds = rows.first().ok_or_else(|| corrupt_column("last"))?;
            let last: u64 = number(bounds, "last")?;
            let first = match bounds.try_get("first")? {
                None => last + 1,
                Some::<i64>(_) => number(bounds, "first")?,
            };
            let (after, mut keys) = (after.unwrap_or(last), Vec::with_capacity(rows.len()));
            // Without newer entries, the cursor moves to the end of the feed.
            let mut cursor = last;
            for row in &rows {
                // Without newer entries, there is one row, which has the bounds only.
                let Some(id) = bytes(row, "key_id")? else { continue };
                keys.push(KeyId::from_bytes(id));
                cursor = number(row, "number")?;
            }
            // A cursor past the end was read before an older copy of the file was restored.
            let missed = after.saturating_add(1) < first || after > last;
            Ok(ChangeBatch { keys, cursor, missed, more: cursor < last })
        })
        .await
    }

    pub(super) async fn poll_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        let now = Instant::now();
        let end = now.checked_add(at_most).unwrap_or(now + ONE_YEAR);
        loop {
            let last = self.last_change().await?;
            let now = Instant::now();
            if last != after || now >= end {
                return Ok(FeedMode::Polled);
            }
            sleep_until(end.min(now + POLL_INTERVAL)).await;
        }
    }

    async fn last_change(&self) -> Result<u64, StoreError> {
        self.read(async |connection, sql| {
            let last: i64 =
                sqlx::query_scalar(sql.last_change.clone()).fetch_one(connection).await?;
            u64::try_from(last).map_err(|_| corrupt_column("seq").into())
        })
        .await
    }
}

const PAGE_SIZE: i64 = 1_000;
/// A poll costs about as much as a verification that misses the cache.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const ONE_YEAR: Duration = Duration::from_secs(365 * 86_400);
