use std::collections::HashSet;

use uuid::Uuid;

use super::{
    errors::PostgresFailure,
    records::{Statement, bind_key, key_id, read_key, uuid},
    transaction::{PostgresDatabase, Transaction},
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        InsertKey, InsertOutcome, KeyUse, PreviousSecret, RevokeOutcome, RotateOutcome,
        RotateSecret, StoreError, UpdateOutcome, codec,
        sql::{KEY, checked_number, corrupt_column},
    },
};

/// Writes of keys. Each enters its keys into the change feed.
impl PostgresDatabase {
    pub(super) async fn insert_key(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        let insert = async |transaction: &mut Transaction<'_>| {
            transaction.lock_owner(&key.owner).await?;
            if let Some(token) = &key.issue_token
                && let Some(id) = transaction.issued(&key.owner, token, token_since).await?
            {
                return Ok(InsertOutcome::TokenTaken(id));
            }
            if transaction.live_keys(&key.owner, event.at).await?
                >= max_active.map_or(i64::MAX, i64::from)
            {
                return Ok(InsertOutcome::LimitReached);
            }
            // ON CONFLICT waits for a concurrent transaction that inserts the same id.
            let sql = "INSERT INTO {t}keys (".to_owned()
                + KEY
                + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
                $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24) ON CONFLICT DO NOTHING";
            let insert = bind_key(self.tables.query(&sql), key);
            let inserted = insert.execute(&mut *transaction.connection).await?;
            if inserted.rows_affected() == 0 || !transaction.insert_secret(digest, key.id).await? {
                return Ok(InsertOutcome::DigestTaken);
            }
            transaction.log(std::slice::from_ref(event)).await?;
            Ok(InsertOutcome::Inserted)
        };
        self.write(insert, |outcome| *outcome == InsertOutcome::Inserted).await
    }

    pub(super) async fn update_key(
        &self,
        key: &Key,
        event: &AuditEvent,
    ) -> Result<UpdateOutcome, StoreError> {
        let update = async |transaction: &mut Transaction<'_>| {
            match transaction.lock_revision(key).await? {
                LockedKey::Unchanged { .. } => {}
                LockedKey::Changed => return Ok(UpdateOutcome::Conflict),
                LockedKey::NotFound => return Ok(UpdateOutcome::NotFound),
            }
            let sql = "UPDATE {t}keys SET name = $2, access = $3, limits = $4, networks = $5, \
                metadata = $6, disabled_at = $7, revision = revision + 1 WHERE id = $1";
            self.tables
                .query(sql)
                .bind(uuid(key.id))
                .bind(key.name.as_str())
                .bind(codec::access(&key.access))
                .bind(codec::limits(&key.limits))
                .bind(codec::networks(&key.networks))
                .bind(codec::metadata(&key.metadata))
                .bind(key.disabled_at.map(Timestamp::as_unix_micros))
                .execute(&mut *transaction.connection)
                .await?;
            transaction.log(std::slice::from_ref(event)).await?;
            Ok(UpdateOutcome::Updated)
        };
        self.write(update, |outcome| *outcome == UpdateOutcome::Updated).await
    }

    pub(super) async fn rotate_key(
        &self,
        rotate: RotateSecret<'_>,
    ) -> Result<RotateOutcome, StoreError> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let rotate = async |transaction: &mut Transaction<'_>| {
            match transaction.lock_revision(key).await? {
                LockedKey::Unchanged { is_secret_used: true }
                    if previous == PreviousSecret::Replaced =>
                {
                    return Ok(RotateOutcome::SecretUsed);
                }
                LockedKey::Unchanged { .. } => {}
                LockedKey::Changed => return Ok(RotateOutcome::Conflict),
                LockedKey::NotFound => return Ok(RotateOutcome::NotFound),
            }
            if transaction.has_secret(digest).await? {
                return Ok(RotateOutcome::DigestTaken);
            }
            let ends_at = match previous {
                PreviousSecret::EndsAt(ends_at) => {
                    transaction.delete_secret(key.id, true).await?;
                    transaction.retire_current_secret(key.id).await?;
                    Some(ends_at.as_unix_micros())
                }
                PreviousSecret::Replaced => {
                    transaction.delete_secret(key.id, false).await?;
                    None
                }
            };
            if !transaction.insert_secret(digest, key.id).await? {
                return Ok(RotateOutcome::DigestTaken);
            }
            let sql = "UPDATE {t}keys SET \
                retiring_hint = CASE WHEN $5 IS NULL THEN retiring_hint ELSE hint END, \
                retiring_ends_at = coalesce($5, retiring_ends_at), \
                hint = $2, rotated_at = $3, rotation_token = $4, secret_first_used_at = NULL, \
                revision = revision + 1 WHERE id = $1";
            self.tables
                .query(sql)
                .bind(uuid(key.id))
                .bind(hint)
                .bind(event.at.as_unix_micros())
                .bind(token.as_ref().map(|token| token.as_slice()))
                .bind(ends_at)
                .execute(&mut *transaction.connection)
                .await?;
            transaction.log(std::slice::from_ref(event)).await?;
            Ok(RotateOutcome::Rotated)
        };
        self.write(rotate, |outcome| *outcome == RotateOutcome::Rotated).await
    }

    pub(super) async fn revoke_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        let revoke = async |transaction: &mut Transaction<'_>| {
            let sql = "SELECT revoked_at IS NOT NULL FROM {t}keys \
                WHERE id = $1 AND tenant = $2 AND account = coalesce($3, account) FOR UPDATE";
            let is_revoked: Option<bool> = self
                .tables
                .query_scalar(sql)
                .bind(uuid(id))
                .bind(within.tenant())
                .bind(within.account())
                .fetch_optional(&mut *transaction.connection)
                .await?;
            match is_revoked {
                None => Ok(RevokeOutcome::NotFound),
                Some(true) => Ok(RevokeOutcome::AlreadyRevoked),
                Some(false) => {
                    transaction.revoke(&[id], std::slice::from_ref(event)).await?;
                    Ok(RevokeOutcome::Revoked)
                }
            }
        };
        self.write(revoke, |outcome| *outcome == RevokeOutcome::Revoked).await
    }

    pub(super) async fn revoke_all_keys(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let revoke = async |transaction: &mut Transaction<'_>| {
            // A concurrent insert commits first, and its key is revoked as well.
            transaction.lock_owner(owner).await?;
            let keys = transaction.lock_keys(
                "tenant = $1 AND account = $2 AND revoked_at IS NULL ORDER BY id",
                |query| query.bind(owner.tenant().to_owned()).bind(owner.account().to_owned()),
            );
            let keys = keys.await?;
            let events: Vec<_> = (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
            transaction.revoke(&ids, &events).await?;
            Ok(events)
        };
        self.write(revoke, |events| !events.is_empty()).await
    }

    pub(super) async fn announce_keys(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let announce = async |transaction: &mut Transaction<'_>| {
            let sql = "SELECT id FROM {t}keys \
                WHERE tenant = $1 AND account = $2 AND revoked_at IS NULL";
            let ids: Vec<Uuid> = self
                .tables
                .query_scalar(sql)
                .bind(owner.tenant())
                .bind(owner.account())
                .fetch_all(&mut *transaction.connection)
                .await?;
            transaction.append_to_feed(&ids, at).await?;
            Ok(u32::try_from(ids.len()).unwrap_or(u32::MAX))
        };
        self.write(announce, |announced| *announced > 0).await
    }

    pub(super) async fn delete_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        let delete = async |transaction: &mut Transaction<'_>| {
            let sql = "DELETE FROM {t}keys \
                WHERE id = $1 AND tenant = $2 AND account = coalesce($3, account)";
            let deleted = self
                .tables
                .query(sql)
                .bind(uuid(id))
                .bind(within.tenant())
                .bind(within.account())
                .execute(&mut *transaction.connection)
                .await?;
            if deleted.rows_affected() == 0 {
                return Ok(false);
            }
            transaction.delete_counters([id].into_iter()).await?;
            transaction.log(std::slice::from_ref(event)).await?;
            Ok(true)
        };
        self.write(delete, |deleted| *deleted).await
    }

    pub(super) async fn delete_dead_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let delete = async |transaction: &mut Transaction<'_>| {
            let dead = "(revoked_at IS NOT NULL OR expires_at IS NOT NULL) \
                AND LEAST(revoked_at, expires_at) < $1 ORDER BY id LIMIT $2";
            let keys = transaction.lock_keys(dead, |query| {
                query.bind(before.as_unix_micros()).bind(i64::from(limit))
            });
            let keys = keys.await?;
            let ids: Vec<_> = keys.iter().map(|key| uuid(key.id)).collect();
            self.tables
                .query("DELETE FROM {t}keys WHERE id = ANY($1)")
                .bind(ids)
                .execute(&mut *transaction.connection)
                .await?;
            transaction.delete_counters(keys.iter().map(|key| key.id)).await?;
            let events: Vec<_> = (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            transaction.log(&events).await?;
            Ok(events)
        };
        self.write(delete, |events| !events.is_empty()).await
    }
}

/// Writes that do not enter the change feed: uses, rehashed digests, and events of no change.
impl PostgresDatabase {
    pub(super) async fn write_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        fn all<'a, T>(uses: &'a [KeyUse], field: impl Fn(&'a KeyUse) -> T) -> Vec<T> {
            uses.iter().map(field).collect()
        }
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let record = async |transaction: &mut Transaction<'_>| {
            // Rows are locked in the order of their ids, so that two batches cannot deadlock.
            let lock = "SELECT u.n, k.first_used_at IS NULL FROM {t}keys k \
                JOIN unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY \
                AS u (id, tenant, account, first_at, n) \
                ON k.id = u.id AND k.tenant = u.tenant AND k.account = u.account \
                ORDER BY k.id, u.first_at, u.n FOR UPDATE OF k";
            let ids = all(uses, |used| uuid(used.key_id));
            let tenants = all(uses, |used| used.owner.tenant());
            let accounts = all(uses, |used| used.owner.account());
            let first_at = all(uses, |used| used.first_at.as_unix_micros());
            let known: Vec<(i64, bool)> = self
                .tables
                .query_as(lock)
                .bind(&ids)
                .bind(&tenants)
                .bind(&accounts)
                .bind(&first_at)
                .fetch_all(&mut *transaction.connection)
                .await?;
            // A key that was used by both of its secrets has two elements: its row is updated once.
            let update = "UPDATE {t}keys k SET \
                first_used_at = coalesce(k.first_used_at, u.first_at), \
                secret_first_used_at = coalesce(k.secret_first_used_at, u.secret_first_at), \
                last_used_ip = CASE WHEN k.last_used_at >= u.last_at THEN k.last_used_ip ELSE u.ip END, \
                last_used_at = greatest(k.last_used_at, u.last_at) \
                FROM (SELECT u.id, u.tenant, u.account, min(u.first_at) AS first_at, \
                    min(u.first_at) FILTER (WHERE s.key_id IS NOT NULL) AS secret_first_at, \
                    max(u.last_at) AS last_at, (array_agg(u.ip ORDER BY u.last_at DESC))[1] AS ip \
                    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], \
                    $6::text[], $7::bytea[]) AS u (id, tenant, account, first_at, last_at, ip, digest) \
                    LEFT JOIN {t}secrets s \
                    ON s.digest = u.digest AND s.key_id = u.id AND NOT s.former \
                    GROUP BY u.id, u.tenant, u.account) u \
                WHERE k.id = u.id AND k.tenant = u.tenant AND k.account = u.account";
            self.tables
                .query(update)
                .bind(&ids)
                .bind(&tenants)
                .bind(&accounts)
                .bind(&first_at)
                .bind(all(uses, |used| used.last_at.as_unix_micros()))
                .bind(all(uses, |used| used.ip.map(|ip| ip.to_string())))
                .bind(all(uses, |used| used.digest.to_bytes().to_vec()))
                .execute(&mut *transaction.connection)
                .await?;
            let mut seen = HashSet::new();
            let events: Vec<AuditEvent> = known
                .into_iter()
                .filter(|(_, is_unused)| *is_unused)
                .map(|(ordinal, _)| &uses[ordinal as usize - 1])
                .filter(|used| seen.insert(used.key_id))
                .map(KeyUse::first_use)
                .collect();
            transaction.record_events(&events).await?;
            Ok(events)
        };
        self.write(record, |_| true).await
    }

    pub(super) async fn replace_digest(
        &self,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Result<bool, StoreError> {
        let replace = async |transaction: &mut Transaction<'_>| {
            // The lock orders this write and a concurrent rotation of the same key.
            let lock = "SELECT k.id FROM {t}keys k JOIN {t}secrets s ON s.key_id = k.id \
                WHERE s.digest = $1 FOR UPDATE OF k";
            let lock = self.tables.query(lock).bind(from.to_bytes().to_vec());
            lock.execute(&mut *transaction.connection).await?;
            // Deletes and inserts: unlike an UPDATE, an INSERT can skip a digest that exists.
            let sql = "DELETE FROM {t}secrets WHERE digest = $1 RETURNING key_id, former";
            let deleted: Option<(Uuid, bool)> = self
                .tables
                .query_as(sql)
                .bind(from.to_bytes().to_vec())
                .fetch_optional(&mut *transaction.connection)
                .await?;
            let Some((key_id, former)) = deleted else { return Ok(false) };
            let sql = "INSERT INTO {t}secrets (digest, key_id, former) VALUES ($1, $2, $3) \
                ON CONFLICT (digest) DO NOTHING";
            let inserted = self
                .tables
                .query(sql)
                .bind(to.to_bytes().to_vec())
                .bind(key_id)
                .bind(former)
                .execute(&mut *transaction.connection)
                .await?;
            Ok(inserted.rows_affected() > 0)
        };
        self.write(replace, |replaced| *replaced).await
    }

    pub(super) async fn write_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        if events.is_empty() {
            return Ok(0);
        }
        let record =
            async |transaction: &mut Transaction<'_>| transaction.record_events(events).await;
        self.write(record, |added| *added > 0).await
    }

    /// Runs a `DELETE` of rows that are older than `$1`, up to `$2` of them.
    pub(super) async fn delete_old(
        &self,
        sql: &str,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let delete = async |transaction: &mut Transaction<'_>| {
            let deleted = self
                .tables
                .query(sql)
                .bind(before.as_unix_micros())
                .bind(i64::from(limit))
                .execute(&mut *transaction.connection)
                .await?;
            Ok(u32::try_from(deleted.rows_affected()).unwrap_or(limit))
        };
        self.write(delete, |deleted| *deleted > 0).await
    }
}

/// A key that was locked, compared with the key that was read.
enum LockedKey {
    /// Has the revision that was read, and is not revoked.
    Unchanged {
        is_secret_used: bool,
    },
    /// Has another revision, or is revoked.
    Changed,
    NotFound,
}

/// Steps of the writes above.
impl Transaction<'_> {
    /// Returns the key of an owner that was issued with a token since an instant.
    async fn issued(
        &mut self,
        owner: &Owner,
        token: &[u8; 32],
        since: Timestamp,
    ) -> Result<Option<KeyId>, PostgresFailure> {
        let sql = "SELECT id FROM {t}keys WHERE tenant = $1 AND account = $2 AND issue_token = $3 \
            AND created_at >= $4 LIMIT 1";
        let id: Option<Uuid> = self
            .tables
            .query_scalar(sql)
            .bind(owner.tenant())
            .bind(owner.account())
            .bind(token.as_slice())
            .bind(since.as_unix_micros())
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(id.map(key_id))
    }

    async fn live_keys(&mut self, owner: &Owner, now: Timestamp) -> Result<i64, PostgresFailure> {
        let sql = "SELECT count(*) FROM {t}keys WHERE tenant = $1 AND account = $2 \
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)";
        let count = self
            .tables
            .query_scalar(sql)
            .bind(owner.tenant())
            .bind(owner.account())
            .bind(now.as_unix_micros())
            .fetch_one(&mut *self.connection);
        Ok(count.await?)
    }

    /// Locks a key until the commit, and compares it with the key that was read.
    async fn lock_revision(&mut self, read: &Key) -> Result<LockedKey, PostgresFailure> {
        let sql = "SELECT revision, revoked_at IS NOT NULL, revoked_reason IS NOT NULL, \
            secret_first_used_at IS NOT NULL FROM {t}keys \
            WHERE id = $1 AND tenant = $2 AND account = $3 FOR UPDATE";
        let stored: Option<(i64, bool, bool, bool)> = self
            .tables
            .query_as(sql)
            .bind(uuid(read.id))
            .bind(read.owner.tenant())
            .bind(read.owner.account())
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some((revision, has_revoked_at, has_revoked_reason, is_secret_used)) = stored else {
            return Ok(LockedKey::NotFound);
        };
        let revision: u64 = checked_number("revision", revision)?;
        if has_revoked_at != has_revoked_reason {
            return Err(corrupt_column("revoked_at").into());
        }
        match !has_revoked_at && revision == read.revision {
            true => Ok(LockedKey::Unchanged { is_secret_used }),
            false => Ok(LockedKey::Changed),
        }
    }

    /// Locks keys until the commit. `condition` must order them by id, so that two writes cannot
    /// deadlock.
    async fn lock_keys<'q>(
        &mut self,
        condition: &str,
        bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<Vec<Key>, PostgresFailure> {
        let sql = format!("SELECT * FROM {{t}}keys WHERE {condition} FOR UPDATE");
        let rows = bind(self.tables.query(&sql)).fetch_all(&mut *self.connection).await?;
        rows.iter().map(read_key).collect()
    }

    async fn revoke(
        &mut self,
        ids: &[KeyId],
        events: &[AuditEvent],
    ) -> Result<(), PostgresFailure> {
        let Some(event) = events.first() else { return Ok(()) };
        let sql = "UPDATE {t}keys SET revoked_at = $2, revoked_reason = $3, revision = revision + 1 \
            WHERE id = ANY($1)";
        self.tables
            .query(sql)
            .bind(ids.iter().copied().map(uuid).collect::<Vec<_>>())
            .bind(event.at.as_unix_micros())
            .bind(event.reason.as_deref().unwrap_or_default())
            .execute(&mut *self.connection)
            .await?;
        self.log(events).await
    }

    async fn has_secret(&mut self, digest: &SecretDigest) -> Result<bool, PostgresFailure> {
        let sql = "SELECT EXISTS (SELECT 1 FROM {t}secrets WHERE digest = $1)";
        let digest = digest.to_bytes().to_vec();
        Ok(self.tables.query_scalar(sql).bind(digest).fetch_one(&mut *self.connection).await?)
    }

    /// Inserts a current secret; false if the digest exists.
    async fn insert_secret(
        &mut self,
        digest: &SecretDigest,
        id: KeyId,
    ) -> Result<bool, PostgresFailure> {
        let sql = "INSERT INTO {t}secrets (digest, key_id, former) VALUES ($1, $2, false) \
            ON CONFLICT (digest) DO NOTHING";
        let inserted = self
            .tables
            .query(sql)
            .bind(digest.to_bytes().to_vec())
            .bind(uuid(id))
            .execute(&mut *self.connection)
            .await?;
        Ok(inserted.rows_affected() > 0)
    }

    /// Turns the current secret into the former one.
    async fn retire_current_secret(&mut self, id: KeyId) -> Result<(), PostgresFailure> {
        let sql = "UPDATE {t}secrets SET former = true WHERE key_id = $1";
        self.tables.query(sql).bind(uuid(id)).execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn delete_secret(&mut self, id: KeyId, former: bool) -> Result<(), PostgresFailure> {
        let sql = "DELETE FROM {t}secrets WHERE key_id = $1 AND former = $2";
        let delete = self.tables.query(sql).bind(uuid(id)).bind(former);
        delete.execute(&mut *self.connection).await?;
        Ok(())
    }
}
