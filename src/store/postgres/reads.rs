use std::sync::Arc;

use sqlx::{Row, postgres::PgRow};

use super::{
    PostgresStore,
    errors::Failure,
    rows::{event, event_uuid, key, uuid},
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{EventId, Key, KeyId, OwnerScope, Status, Timestamp},
    store::{KeyQuery, StoreError},
};

impl PostgresStore {
    pub(super) async fn read_key(
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
        Ok(rows.first().map(|row| key(row).map(Arc::new)).transpose()?)
    }

    pub(super) async fn read_keys(
        &self,
        query: &KeyQuery<'_>,
    ) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        // An equality that is always there, so that the index of the owner or tenant is used.
        let account =
            if within.account().is_some() { "k.account = $2" } else { "$2::text IS NULL" };
        let status = status.map_or("$5::bigint IS NOT NULL", condition);
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
        Ok(rows.iter().map(|row| key(row).map(Arc::new)).collect::<Result<_, Failure>>()?)
    }

    /// From one tenant to the next by the index, past all keys between.
    pub(super) async fn read_tenants(
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
        let tenant = |row: &PgRow| Ok(row.try_get("tenant")?);
        Ok(rows.iter().map(tenant).collect::<Result<_, Failure>>()?)
    }

    pub(super) async fn read_events(
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
        Ok(rows.iter().map(event).collect::<Result<_, Failure>>()?)
    }
}

/// [`Key::status`], as PostgreSQL has to say it; `$5` is the instant.
fn condition(status: Status) -> &'static str {
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
