use sqlx::{Row, postgres::PgRow};

use super::{
    PostgresStore,
    errors::{Failure, with_timeout},
    rows::{corrupt, uuid},
};
use crate::{
    model::{KeyId, OwnerScope, Timestamp},
    store::{HourlyUsage, StoreError},
};

/// What is counted of keys. None of it enters the change feed.
impl PostgresStore {
    pub(super) async fn add_tallies(&self, tallies: &[HourlyUsage]) -> Result<(), StoreError> {
        fn all<T>(tallies: &[HourlyUsage], field: impl Fn(&HourlyUsage) -> T) -> Vec<T> {
            tallies.iter().map(field).collect()
        }
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut change = self.begin().await?;
        with_timeout(change.left(), async {
            // Locked, so that no key goes away meanwhile, and in the order of their ids.
            let sql = "WITH known AS (SELECT id FROM {t}keys WHERE id = ANY($1) ORDER BY id FOR KEY SHARE) \
                INSERT INTO {t}tallies AS t (key_id, hour, accepted, denied, limited) \
                SELECT id, hour, sum(accepted), sum(denied), sum(limited) FROM unnest($1::uuid[], \
                $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
                AS u (id, hour, accepted, denied, limited) JOIN known USING (id) \
                GROUP BY id, hour ORDER BY id, hour \
                ON CONFLICT (key_id, hour) DO UPDATE SET \
                accepted = t.accepted + excluded.accepted, denied = t.denied + excluded.denied, \
                limited = t.limited + excluded.limited";
            self.names
                .query(sql)
                .bind(all(tallies, |tally| uuid(tally.key_id)))
                .bind(all(tallies, |tally| tally.hour.as_unix_micros()))
                .bind(all(tallies, |tally| count(tally.accepted)))
                .bind(all(tallies, |tally| count(tally.denied)))
                .bind(all(tallies, |tally| count(tally.limited)))
                .execute(&mut *change.tx)
                .await?;
            Ok(())
        })
        .await?;
        self.conclude(change, true).await
    }

    pub(super) async fn read_tallies(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        let sql = "SELECT hour, accepted, denied, limited FROM {t}tallies JOIN {t}keys ON id = key_id \
            WHERE key_id = $1 AND tenant = $2 AND account = coalesce($3, account) AND hour >= $4 \
            ORDER BY hour";
        let sql = self.sql(sql);
        let read = || {
            let statement = sqlx::query(sql.clone()).bind(uuid(id)).bind(within.tenant());
            statement.bind(within.account()).bind(from.as_unix_micros())
        };
        let tally = |row: &PgRow| {
            let count = |column| {
                let stored: i64 = row.try_get(column)?;
                u64::try_from(stored).map_err(|_| Failure::from(corrupt(column)))
            };
            Ok(HourlyUsage {
                key_id: id,
                hour: Timestamp::from_unix_micros(row.try_get("hour")?),
                accepted: count("accepted")?,
                denied: count("denied")?,
                limited: count("limited")?,
            })
        };
        let rows = self.connections.rows(read).await?;
        Ok(rows.iter().map(tally).collect::<Result<_, Failure>>()?)
    }

    pub(super) async fn delete_tallies(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let sql = "DELETE FROM {t}tallies WHERE (key_id, hour) IN (SELECT key_id, hour \
            FROM {t}tallies WHERE hour < $1 ORDER BY hour LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.delete_old(sql, before, limit).await
    }
}
