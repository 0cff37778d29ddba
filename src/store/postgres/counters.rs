use async_trait::async_trait;

use super::{
    PostgresStore,
    errors::SqlFailure,
    records::{hourly_usage, uuid},
    transaction::Transaction,
};
use crate::{
    model::{KeyId, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey, Counters,
        HourlyUsage, OneTimeCode, OneTimeCodes, StoreError, UsageHistory,
        sql::{checked_instant, checked_number, corrupt_column},
    },
};

/// A counter is locked from its read to the commit.
#[async_trait]
impl Counters for PostgresStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        let charge = async |transaction: &mut Transaction<'_>| {
            let stored = transaction.lock_counters(charges).await?;
            let (outcome, after) = CounterCharge::charge_all(charges, &stored);
            if let Some(after) = &after {
                transaction.set_counters(charges, after).await?;
            }
            Ok(outcome)
        };
        self.database.write(charge, |outcome| matches!(outcome, ChargeOutcome::Granted(_))).await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        let refund = async |transaction: &mut Transaction<'_>| {
            let stored = transaction.lock_counters(charges).await?;
            let pairs = charges.iter().zip(stored);
            let after: Vec<_> = pairs.map(|(charge, stored)| charge.refund(stored)).collect();
            transaction.set_counters(charges, &after).await
        };
        self.database.write(refund, |()| true).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let sql = "DELETE FROM {t}counters WHERE (counter_key, period) IN \
            (SELECT counter_key, period FROM {t}counters \
            WHERE counter_key >= '\\x03' AND counter_key < '\\x04' AND window_start < $1 \
            ORDER BY window_start LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.database.delete_old(sql, before, limit).await
    }
}

impl Transaction<'_> {
    /// Reads and locks counters, and creates missing ones. All calls lock in the same order, so
    /// that two calls cannot deadlock. An `UPDATE` that changes nothing is the lock.
    async fn lock_counters(
        &mut self,
        charges: &[CounterCharge<'_>],
    ) -> Result<Vec<Counter>, SqlFailure> {
        let sql = "WITH locked AS (\
                INSERT INTO {t}counters AS c (counter_key, period, window_start, used) \
                SELECT counter_key, period, 0, 0 \
                FROM unnest($1::bytea[], $2::text[]) AS s (counter_key, period) \
                ORDER BY counter_key, period \
                ON CONFLICT (counter_key, period) DO UPDATE SET used = c.used \
                RETURNING counter_key, period, window_start, used) \
            SELECT window_start, used FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY \
                AS s (counter_key, period, n) JOIN locked USING (counter_key, period) ORDER BY n";
        let (keys, periods) = primary_keys(charges);
        let query = self.tables.query_as(sql).bind(keys).bind(periods);
        let stored: Vec<(i64, i64)> = query.fetch_all(&mut *self.connection).await?;
        let counter = |(window_start, used)| {
            let window = checked_instant("window_start", window_start)?;
            Ok(Counter { window, used: checked_number("used", used)? })
        };
        stored.into_iter().map(counter).collect()
    }

    async fn set_counters(
        &mut self,
        charges: &[CounterCharge<'_>],
        after: &[Counter],
    ) -> Result<(), SqlFailure> {
        let sql = "UPDATE {t}counters c SET window_start = s.window_start, used = s.used \
            FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::bigint[]) \
            AS s (counter_key, period, window_start, used) \
            WHERE c.counter_key = s.counter_key AND c.period = s.period";
        let (keys, periods) = primary_keys(charges);
        let windows: Vec<_> = after.iter().map(|after| after.window.as_unix_micros()).collect();
        let used = after.iter().map(|after| i64::try_from(after.used).unwrap_or(i64::MAX));
        self.tables
            .query(sql)
            .bind(keys)
            .bind(periods)
            .bind(windows)
            .bind(used.collect::<Vec<_>>())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    pub(super) async fn delete_counters(
        &mut self,
        ids: impl Iterator<Item = KeyId>,
    ) -> Result<(), SqlFailure> {
        let keys: Vec<_> = ids.map(|id| CounterKey::Key(id).to_bytes()).collect();
        let sql = "DELETE FROM {t}counters WHERE counter_key = ANY($1)";
        self.tables.query(sql).bind(keys).execute(&mut *self.connection).await?;
        Ok(())
    }
}

fn primary_keys(charges: &[CounterCharge<'_>]) -> (Vec<Vec<u8>>, Vec<&'static str>) {
    charges.iter().map(|charge| (charge.counter_key.to_bytes(), charge.period.as_str())).unzip()
}

/// It does not enter the change feed.
#[async_trait]
impl UsageHistory for PostgresStore {
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError> {
        fn all<T>(usage: &[HourlyUsage], field: impl Fn(&HourlyUsage) -> T) -> Vec<T> {
            usage.iter().map(field).collect()
        }
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let add = async |transaction: &mut Transaction<'_>| {
            // Keys are locked against deletion, in the order of their ids.
            let sql = "WITH known AS (SELECT id FROM {t}keys WHERE id = ANY($1) ORDER BY id FOR KEY SHARE) \
                INSERT INTO {t}hourly_usage AS t (key_id, hour, accepted, denied, limited) \
                SELECT id, hour, sum(accepted), sum(denied), sum(limited) FROM unnest($1::uuid[], \
                $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
                AS u (id, hour, accepted, denied, limited) JOIN known USING (id) \
                GROUP BY id, hour ORDER BY id, hour \
                ON CONFLICT (key_id, hour) DO UPDATE SET \
                accepted = t.accepted + excluded.accepted, denied = t.denied + excluded.denied, \
                limited = t.limited + excluded.limited";
            self.database
                .tables
                .query(sql)
                .bind(all(usage, |hour| uuid(hour.key_id)))
                .bind(all(usage, |hour| hour.hour.as_unix_micros()))
                .bind(all(usage, |hour| count(hour.accepted)))
                .bind(all(usage, |hour| count(hour.denied)))
                .bind(all(usage, |hour| count(hour.limited)))
                .execute(&mut *transaction.connection)
                .await?;
            Ok(())
        };
        self.database.write(add, |()| true).await
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        let sql = "SELECT hour, accepted, denied, limited FROM {t}hourly_usage JOIN {t}keys ON id = key_id \
            WHERE key_id = $1 AND tenant = $2 AND account = coalesce($3, account) AND hour >= $4 \
            ORDER BY hour";
        let sql = self.database.sql(sql);
        let read = || {
            let statement = sqlx::query(sql.clone()).bind(uuid(id)).bind(within.tenant());
            statement.bind(within.account()).bind(from.as_unix_micros())
        };
        let rows = self.database.connections.rows(read).await?;
        self.database.connections.decode(&rows, |row| hourly_usage(row, id))
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let sql = "DELETE FROM {t}hourly_usage WHERE (key_id, hour) IN (SELECT key_id, hour \
            FROM {t}hourly_usage WHERE hour < $1 ORDER BY hour LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.database.delete_old(sql, before, limit).await
    }
}

/// A code is locked from its read to the commit.
#[async_trait]
impl OneTimeCodes for PostgresStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        let replace = async |transaction: &mut Transaction<'_>| {
            let sql = "INSERT INTO {t}codes (address, digest, ends_at, tries) VALUES ($1, $2, $3, $4) \
                ON CONFLICT (address) DO UPDATE SET \
                digest = excluded.digest, ends_at = excluded.ends_at, tries = excluded.tries";
            self.database
                .tables
                .query(sql)
                .bind(address.to_bytes().to_vec())
                .bind(code.digest.to_bytes().to_vec())
                .bind(code.ends_at.as_unix_micros())
                .bind(i64::from(code.tries))
                .execute(&mut *transaction.connection)
                .await?;
            Ok(())
        };
        self.database.write(replace, |()| true).await
    }

    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        let check = async |transaction: &mut Transaction<'_>| {
            let Some(code) = transaction.lock_code(&attempt.address).await? else {
                return Ok(CodeOutcome::NotFound);
            };
            let outcome = attempt.check(&code);
            transaction.use_code(&attempt.address, outcome).await?;
            Ok(outcome)
        };
        self.database
            .write(check, |outcome| matches!(outcome, CodeOutcome::Accepted | CodeOutcome::Wrong))
            .await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let sql = "DELETE FROM {t}codes WHERE address IN (SELECT address FROM {t}codes \
            WHERE ends_at < $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.database.delete_old(sql, before, limit).await
    }
}

impl Transaction<'_> {
    async fn lock_code(
        &mut self,
        address: &SecretDigest,
    ) -> Result<Option<OneTimeCode>, SqlFailure> {
        let sql = "SELECT digest, ends_at, tries FROM {t}codes WHERE address = $1 FOR UPDATE";
        let stored: Option<(Vec<u8>, i64, i64)> = self
            .tables
            .query_as(sql)
            .bind(address.to_bytes().to_vec())
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some((digest, ends_at, tries)) = stored else { return Ok(None) };
        Ok(Some(OneTimeCode {
            digest: SecretDigest::from_bytes(&digest).ok_or_else(|| corrupt_column("digest"))?,
            ends_at: checked_instant("ends_at", ends_at)?,
            tries: checked_number("tries", tries)?,
        }))
    }

    /// Deletes a locked code that was accepted, or takes one of its tries.
    async fn use_code(
        &mut self,
        address: &SecretDigest,
        outcome: CodeOutcome,
    ) -> Result<(), SqlFailure> {
        let sql = match outcome {
            CodeOutcome::Accepted => "DELETE FROM {t}codes WHERE address = $1",
            CodeOutcome::Wrong => "UPDATE {t}codes SET tries = tries - 1 WHERE address = $1",
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {
                return Ok(());
            }
        };
        let address = address.to_bytes().to_vec();
        self.tables.query(sql).bind(address).execute(&mut *self.connection).await?;
        Ok(())
    }
}
