use super::{
    SqliteStore,
    change::Change,
    errors::Failure,
    rows::{impossible, instant, number},
};
use crate::{
    model::{KeyId, OwnerScope, Timestamp},
    store::{HourlyUsage, StoreError},
};

impl SqliteStore {
    pub(super) async fn read_tallies(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.read(async |connection, sql| {
            let rows = sqlx::query(sql.tallies.clone())
                .bind(id.as_bytes().as_slice())
                .bind(within.tenant())
                .bind(within.account())
                .bind(from.as_unix_micros())
                .fetch_all(connection)
                .await?;
            let tally = |row| {
                Ok(HourlyUsage {
                    key_id: id,
                    hour: instant(row, "hour")?.ok_or_else(|| impossible("hour"))?,
                    accepted: number(row, "accepted")?,
                    denied: number(row, "denied")?,
                    limited: number(row, "limited")?,
                })
            };
            rows.iter().map(tally).collect()
        })
        .await
    }
}

impl Change<'_> {
    pub(super) async fn add_usage(&mut self, tallies: &[HourlyUsage]) -> Result<(), Failure> {
        for tally in tallies {
            let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
            sqlx::query(self.sql.tally.clone())
                .bind(tally.key_id.as_bytes().as_slice())
                .bind(tally.hour.as_unix_micros())
                .bind(count(tally.accepted))
                .bind(count(tally.denied))
                .bind(count(tally.limited))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}
