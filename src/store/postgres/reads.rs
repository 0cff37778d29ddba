use std::{sync::Arc, time::Duration};

use sqlx::{Row, SqlStr, postgres::PgRow};

use super::{
    connections::Connections,
    records::{digest, event_uuid, key_id, read_event, read_found_key, read_key, uuid},
    transaction::{PostgresDatabase, on_primary},
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{EventId, Key, KeyId, OwnerScope, Status, Timestamp},
    secret::SecretDigest,
    store::{
        KeyQuery, StoreError,
        coalesced::{LookupRecord, LookupSource},
    },
};

/// The query that finds keys by digests.
pub(super) struct KeyLookup {
    connections: Connections,
    sql: SqlStr,
}

impl KeyLookup {
    pub(super) fn new(database: &PostgresDatabase) -> Self {
        // The array is wrapped in a subquery: with a plain parameter, the server plans every call
        // for the array's values, which takes longer than the lookup (360 µs instead of 110 µs).
        let digests = on_primary("$1", "bytea[]");
        let sql = format!(
            "SELECT k.*, s.digest, s.former FROM {{t}}secrets s \
             JOIN {{t}}keys k ON k.id = s.key_id WHERE s.digest = ANY((SELECT {digests})::bytea[])"
        );
        Self { connections: database.reserved.clone(), sql: database.sql(&sql) }
    }
}

impl LookupSource for KeyLookup {
    const NAME: &'static str = "PostgreSQL";
    const MAX_IN_FLIGHT: usize = 4;

    fn timeout(&self) -> Duration {
        self.connections.limit
    }

    async fn look_up(&self, digests: &[SecretDigest]) -> Result<Vec<LookupRecord>, StoreError> {
        let digests: Vec<Vec<u8>> =
            digests.iter().map(|digest| digest.to_bytes().to_vec()).collect();
        let rows = self.connections.rows(|| sqlx::query(self.sql.clone()).bind(&digests)).await?;
        // A row without a readable digest fails all callers; any other damage fails its own caller.
        let record = |row: &PgRow| {
            let digest = digest(row)?;
            let found = read_found_key(row).map(Some);
            Ok((digest, found.map_err(|failure| self.connections.classify(failure))))
        };
        self.connections.decode(&rows, record)
    }
}

/// Reads of keys, of the audit log and of hourly usage.
impl PostgresDatabase {
    pub(super) async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let micros = on_primary("(extract(epoch FROM clock_timestamp()) * 1000000)", "bigint");
        let sql = self.sql(&format!("SELECT {micros}"));
        let rows = self.reserved.rows(|| sqlx::query(sql.clone())).await?;
        let time = |row: &PgRow| Ok(Timestamp::from_unix_micros(row.try_get(0)?));
        let times = self.reserved.decode(&rows, time)?;
        let missing = || StoreError::corrupt("PostgreSQL returned no time");
        times.into_iter().next().ok_or_else(missing)
    }

    pub(super) async fn get_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<Arc<Key>>, StoreError> {
        let sql = "SELECT * FROM {t}keys WHERE id = $1 AND tenant = $2 AND account = coalesce($3, account)";
        let sql = self.sql(sql);
        let read = || {
            let statement = sqlx::query(sql.clone());
            statement.bind(uuid(id)).bind(within.tenant()).bind(within.account())
        };
        let rows = self.connections.rows(read).await?;
        let keys = self.connections.decode(&rows, |row| read_key(row).map(Arc::new))?;
        Ok(keys.into_iter().next())
    }

    pub(super) async fn list_keys(
        &self,
        query: &KeyQuery<'_>,
    ) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        // Always an equality, so that the index of the owner or of the tenant is used.
        let account =
            if within.account().is_some() { "k.account = $2" } else { "$2::text IS NULL" };
        let status = status.map_or("$5::bigint IS NOT NULL", status_condition);
        let sql = format!(
            "SELECT * FROM {{t}}keys k WHERE k.tenant = $1 AND {account} \
             AND k.id < coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) AND {status} \
             ORDER BY k.id DESC LIMIT $4"
        );
        let sql = self.sql(&sql);
        let read = || {
            sqlx::query(sql.clone())
                .bind(within.tenant())
                .bind(within.account())
                .bind(after.map(uuid))
                .bind(i64::from(limit))
                .bind(now.as_unix_micros())
        };
        let rows = self.connections.rows(read).await?;
        let ids = self.connections.decode(&rows, |row: &PgRow| Ok(key_id(row.try_get("id")?)))?;
        let classify = |failure| self.connections.classify(failure);
        let keys = rows.iter().map(|row| read_key(row).map_err(classify));
        StoreError::page(ids.into_iter().zip(keys))
    }

    /// Lists tenants by jumping from one to the next by index, past all keys between them.
    pub(super) async fn list_tenants(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let sql = "WITH RECURSIVE found (tenant) AS (SELECT CASE WHEN $1::text IS NULL \
                THEN (SELECT min(tenant) FROM {t}keys) \
                ELSE (SELECT min(tenant) FROM {t}keys WHERE tenant > $1) END \
            UNION ALL SELECT (SELECT min(k.tenant) FROM {t}keys k WHERE k.tenant > found.tenant) \
                FROM found WHERE found.tenant IS NOT NULL) \
            SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT $2";
        let sql = self.sql(sql);
        let read = || sqlx::query(sql.clone()).bind(after).bind(i64::from(limit));
        let rows = self.connections.rows(read).await?;
        self.connections.decode(&rows, |row: &PgRow| Ok(row.try_get("tenant")?))
    }

    pub(super) async fn list_events(
        &self,
        query: &AuditQuery<'_>,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = *query;
        let account = if within.account().is_some() { "account = $2" } else { "$2::text IS NULL" };
        let key_condition = if key_id.is_some() { "key_id = $3" } else { "$3::uuid IS NULL" };
        let sql = format!(
            "SELECT * FROM {{t}}audit WHERE tenant = $1 AND {account} AND {key_condition} \
             AND kind = coalesce($4, kind) AND at >= $5 AND at < $6 AND id < $7 \
             ORDER BY id DESC LIMIT $8"
        );
        let sql = self.sql(&sql);
        let read = || {
            sqlx::query(sql.clone())
                .bind(within.tenant())
                .bind(within.account())
                .bind(key_id.map(uuid))
                .bind(kind.map(|kind| kind.as_str()))
                .bind(from.map_or(0, Timestamp::as_unix_micros))
                .bind(until.map_or(i64::MAX, Timestamp::as_unix_micros))
                .bind(event_uuid(after.unwrap_or(EventId::from_bytes([0xff; 16]))))
                .bind(i64::from(limit))
        };
        let rows = self.connections.rows(read).await?;
        self.connections.decode(&rows, read_event)
    }
}

/// [`Key::status`] in SQL; `$5` is the instant.
fn status_condition(status: Status) -> &'static str {
    match status {
        Status::Revoked => "k.revoked_at IS NOT NULL AND $5::bigint IS NOT NULL",
        Status::Expired => "k.revoked_at IS NULL AND k.expires_at <= $5",
        Status::Disabled => {
            "k.revoked_at IS NULL AND (k.expires_at > $5) IS NOT FALSE AND k.disabled_at IS NOT NULL"
        }
        Status::Active => {
            "k.revoked_at IS NULL AND (k.expires_at > $5) IS NOT FALSE AND k.disabled_at IS NULL"
        }
    }
}
