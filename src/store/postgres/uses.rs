use std::collections::HashSet;

use uuid::Uuid;

use super::{PostgresStore, errors::with_timeout, rows::uuid};
use crate::{
    audit::AuditEvent,
    model::Timestamp,
    secret::SecretDigest,
    store::{KeyUse, StoreError},
};

/// What is written behind verifications. None of it enters the change feed.
impl PostgresStore {
    pub(super) async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let mut change = self.begin().await?;
        let events = with_timeout(change.left(), async {
            fn all<'a, T>(uses: &'a [KeyUse], field: impl Fn(&'a KeyUse) -> T) -> Vec<T> {
                uses.iter().map(field).collect()
            }
            // Locked in the order of their ids: two batches cannot wait for each other.
            let lock = "SELECT u.n, k.first_used_at IS NULL FROM {t}keys k \
                JOIN unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY \
                AS u (id, tenant, account, n) \
                ON k.id = u.id AND k.tenant = u.tenant AND k.account = u.account \
                ORDER BY k.id, u.n FOR UPDATE OF k";
            let ids = all(uses, |used| uuid(used.key_id));
            let tenants = all(uses, |used| used.owner.tenant());
            let accounts = all(uses, |used| used.owner.account());
            let known: Vec<(i64, bool)> = self
                .names
                .query_as(lock)
                .bind(&ids)
                .bind(&tenants)
                .bind(&accounts)
                .fetch_all(&mut *change.tx)
                .await?;
            let update = "UPDATE {t}keys k SET \
                first_used_at = coalesce(k.first_used_at, u.first_at), \
                last_used_ip = CASE WHEN k.last_used_at >= u.last_at THEN k.last_used_ip ELSE u.ip END, \
                last_used_at = greatest(k.last_used_at, u.last_at) \
                FROM (SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], \
                $5::bigint[], $6::text[]) AS u (id, tenant, account, first_at, last_at, ip)) u \
                WHERE k.id = u.id AND k.tenant = u.tenant AND k.account = u.account";
            self.names
                .query(update)
                .bind(&ids)
                .bind(&tenants)
                .bind(&accounts)
                .bind(all(uses, |used| used.first_at.as_unix_micros()))
                .bind(all(uses, |used| used.last_at.as_unix_micros()))
                .bind(all(uses, |used| used.ip.map(|ip| ip.to_string())))
                .execute(&mut *change.tx)
                .await?;
            let mut seen = HashSet::new();
            let new = known.into_iter().filter(|(_, new)| *new).map(|(n, _)| &uses[n as usize - 1]);
            let first = new.filter(|used| seen.insert(used.key_id));
            let events: Vec<AuditEvent> = first.map(KeyUse::first_use).collect();
            change.record_events(&events).await?;
            Ok(events)
        });
        let events = events.await?;
        self.conclude(change, true).await?;
        Ok(events)
    }

    pub(super) async fn replace_digest(
        &self,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Result<bool, StoreError> {
        let mut change = self.begin().await?;
        let replaced = with_timeout(change.left(), async {
            // A rotation of the same key waits, or is waited for.
            let lock = "SELECT k.id FROM {t}keys k JOIN {t}secrets s ON s.key_id = k.id \
                WHERE s.digest = $1 FOR UPDATE OF k";
            self.names.query(lock).bind(from.to_bytes().to_vec()).execute(&mut *change.tx).await?;
            // A row of its own for the new digest: unlike an UPDATE, it can step back before one
            // that is there.
            let sql = "DELETE FROM {t}secrets WHERE digest = $1 RETURNING key_id, former";
            let gone: Option<(Uuid, bool)> = self
                .names
                .query_as(sql)
                .bind(from.to_bytes().to_vec())
                .fetch_optional(&mut *change.tx)
                .await?;
            let Some((key_id, former)) = gone else { return Ok(false) };
            let sql = "INSERT INTO {t}secrets (digest, key_id, former) VALUES ($1, $2, $3) \
                ON CONFLICT (digest) DO NOTHING";
            let added = self
                .names
                .query(sql)
                .bind(to.to_bytes().to_vec())
                .bind(key_id)
                .bind(former)
                .execute(&mut *change.tx)
                .await?;
            Ok(added.rows_affected() > 0)
        });
        let replaced = replaced.await?;
        self.conclude(change, replaced).await?;
        Ok(replaced)
    }

    pub(super) async fn record_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut change = self.begin().await?;
        let left = change.left();
        with_timeout(left, change.record_events(events)).await?;
        self.conclude(change, true).await
    }

    pub(super) async fn delete_events(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let sql = "DELETE FROM {t}audit WHERE id IN (SELECT id FROM {t}audit WHERE at < $1 \
            ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.delete_old(sql, before, limit).await
    }

    /// Deletes rows that are older than `$1`, up to `$2` of them.
    pub(super) async fn delete_old(
        &self,
        sql: &str,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let mut change = self.begin().await?;
        let deleted = with_timeout(change.left(), async {
            let deleted = self
                .names
                .query(sql)
                .bind(before.as_unix_micros())
                .bind(i64::from(limit))
                .execute(&mut *change.tx)
                .await?;
            Ok(deleted.rows_affected() as u32)
        });
        let deleted = deleted.await?;
        self.conclude(change, deleted > 0).await?;
        Ok(deleted)
    }
}
