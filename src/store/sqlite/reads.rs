use std::sync::Arc;

use super::{
    connections::SqliteDatabase,
    errors::{SqlFailure, before_commit},
    records::{hourly_usage, key_id, read_event, read_found_key, read_key},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, OwnerScope, Status, Timestamp},
    secret::SecretDigest,
    store::{FoundKey, HourlyUsage, KeyQuery, StoreError, sql::micros},
};

/// Reads of keys, of the audit log and of hourly usage. Each is one statement.
impl SqliteDatabase {
    /// Finds a key by one statement for all digests: between two statements, a secret could move
    /// from a digest not yet looked up to one already looked up.
    pub(super) async fn find_key(
        &self,
        digests: &[SecretDigest],
    ) -> Result<Option<FoundKey>, StoreError> {
        self.read(async |connection, sql| {
            let find = match digests {
                [digest] => sqlx::query(sql.find_one.clone()).bind(digest.to_bytes().to_vec()),
                _ => sqlx::query(sql.find_any.clone()).bind(hex_list(digests)),
            };
            let mut first: Option<FoundKey> = None;
            let rank = |found: &FoundKey| digests.iter().position(|digest| *digest == found.digest);
            for row in find.fetch_all(connection).await? {
                let found = read_found_key(&row)?;
                if first.as_ref().is_none_or(|first| rank(&found) < rank(first)) {
                    first = Some(found);
                }
            }
            Ok(first)
        })
        .await
    }

    pub(super) async fn get_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<Arc<Key>>, StoreError> {
        self.read(async |connection, sql| {
            let row = sqlx::query(sql.get.clone())
                .bind(id.as_bytes().as_slice())
                .bind(within.tenant())
                .bind(within.account())
                .fetch_optional(connection)
                .await?;
            row.map(|row| read_key(&row).map(Arc::new)).transpose()
        })
        .await
    }

    pub(super) async fn list_keys(
        &self,
        query: &KeyQuery<'_>,
    ) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let rows = self.read(async |connection, sql| {
            let list = match within {
                OwnerScope::Owner(_) => &sql.list_of_owner,
                OwnerScope::Tenant(_) => &sql.list_of_tenant,
            };
            let rows = sqlx::query(list.clone())
                .bind(within.tenant())
                .bind(within.account())
                .bind(after.as_ref().map_or(AFTER_ALL_IDS, |after| after.as_bytes()))
                .bind(status.map(Status::as_str))
                .bind(now.as_unix_micros())
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            let with_id = |row| Ok::<_, SqlFailure>((key_id(&row)?, row));
            rows.into_iter().map(with_id).collect::<Result<Vec<_>, _>>()
        });
        let key = |row| read_key(&row).map_err(|failure| before_commit(failure, &self.path));
        StoreError::page(rows.await?.into_iter().map(|(id, row)| (id, key(row))))
    }

    pub(super) async fn list_tenants(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(async |connection, sql| {
            let list = sqlx::query_scalar(sql.tenants.clone()).bind(after).bind(i64::from(limit));
            Ok(list.fetch_all(connection).await?)
        })
        .await
    }

    pub(super) async fn list_events(
        &self,
        query: &AuditQuery<'_>,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = *query;
        self.read(async |connection, sql| {
            let list = match (key_id, within.account()) {
                (Some(_), _) => &sql.events_of_key,
                (None, Some(_)) => &sql.events_of_owner,
                (None, None) => &sql.events_of_tenant,
            };
            let rows = sqlx::query(list.clone())
                .bind(within.tenant())
                .bind(within.account())
                .bind(key_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(kind.map(EventKind::as_str))
                .bind(micros(from))
                .bind(micros(until))
                .bind(after.as_ref().map_or(AFTER_ALL_IDS, |after| after.as_bytes()))
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(read_event).collect()
        })
        .await
    }

    pub(super) async fn read_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.read(async |connection, sql| {
            let rows = sqlx::query(sql.usage_history.clone())
                .bind(id.as_bytes().as_slice())
                .bind(within.tenant())
                .bind(within.account())
                .bind(from.as_unix_micros())
                .fetch_all(connection)
                .await?;
            rows.iter().map(|row| hourly_usage(row, id)).collect()
        })
        .await
    }
}

/// Returns the digests as a JSON list, so that one parameter takes any number of them.
fn hex_list(digests: &[SecretDigest]) -> String {
    let all: Vec<_> =
        digests.iter().map(|d| format!("\"{}\"", hex::encode(d.to_bytes()))).collect();
    format!("[{}]", all.join(","))
}

/// Longer than an identifier, and all ones: sorts after every identifier.
const AFTER_ALL_IDS: &[u8] = &[0xff; 17];
