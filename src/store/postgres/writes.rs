use std::collections::HashSet;

use sqlx::Row;
use uuid::Uuid;

use super::{
    errors::SqlFailure,
    records::{Statement, bind_key, key_id, owner, uuid},
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
            let (issued, live) = transaction.keys_of_owner(key, token_since, event.at).await?;
            if let Some(id) = issued {
                return Ok(InsertOutcome::TokenTaken(key_id(id)));
            }
            if live >= max_active.map_or(i64::MAX, i64::from) {
                return Ok(InsertOutcome::LimitReached);
            }
            // ON CONFLICT waits for a concurrent transaction that inserts the same id.
            let step = format!(
                "key AS (INSERT INTO {{t}}keys ({KEY}) VALUES ($14, $15, $16, $17, $18, $19, $20, \
                 $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, \
                 $37) ON CONFLICT DO NOTHING RETURNING id), {INSERT_SECRET}"
            );
            match transaction
                .change(&step, std::slice::from_ref(event), |statement| {
                    bind_key(statement.bind(digest.to_bytes().to_vec()), key)
                })
                .await?
            {
                true => Ok(InsertOutcome::Inserted),
                false => Ok(InsertOutcome::DigestTaken),
            }
        };
        self.write_of_owner(&key.owner, insert, |outcome| *outcome == InsertOutcome::Inserted).await
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
            let step = "changed AS (UPDATE {t}keys SET name = $14, access = $15, limits = $16, \
                networks = $17, metadata = $18, disabled_at = $19, revision = revision + 1 \
                WHERE id = $13 RETURNING id)";
            transaction
                .change(step, std::slice::from_ref(event), |statement| {
                    statement
                        .bind(uuid(key.id))
                        .bind(key.name.as_str())
                        .bind(codec::access(&key.access))
                        .bind(codec::limits(&key.limits))
                        .bind(codec::networks(&key.networks))
                        .bind(codec::metadata(&key.metadata))
                        .bind(key.disabled_at.map(Timestamp::as_unix_micros))
                })
                .await?;
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
            let step = format!(
                "key AS (UPDATE {{t}}keys SET \
                 retiring_hint = CASE WHEN $18 IS NULL THEN retiring_hint ELSE hint END, \
                 retiring_ends_at = coalesce($18, retiring_ends_at), \
                 hint = $15, rotated_at = $16, rotation_token = $17, secret_first_used_at = NULL, \
                 revision = revision + 1 WHERE id = $14 RETURNING id), {INSERT_SECRET}"
            );
            match transaction
                .change(&step, std::slice::from_ref(event), |statement| {
                    statement
                        .bind(digest.to_bytes().to_vec())
                        .bind(uuid(key.id))
                        .bind(hint)
                        .bind(event.at.as_unix_micros())
                        .bind(token.as_ref().map(|token| token.as_slice()))
                        .bind(ends_at)
                })
                .await?
            {
                true => Ok(RotateOutcome::Rotated),
                false => Ok(RotateOutcome::DigestTaken),
            }
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
            let step = format!(
                "changed AS (UPDATE {{t}}keys SET {REVOKE} WHERE id = $15 AND tenant = $16 \
                 AND account = coalesce($17, account) AND revoked_at IS NULL RETURNING id)"
            );
            if transaction
                .change(&step, std::slice::from_ref(event), |statement| {
                    let statement = bind_revocation(statement, event).bind(uuid(id));
                    statement.bind(within.tenant()).bind(within.account())
                })
                .await?
            {
                return Ok(RevokeOutcome::Revoked);
            }
            let sql = "SELECT EXISTS (SELECT FROM {t}keys WHERE id = $1 AND tenant = $2 \
                AND account = coalesce($3, account) AND revoked_at IS NOT NULL)";
            let is_revoked: bool = self
                .tables
                .query_scalar(sql)
                .bind(uuid(id))
                .bind(within.tenant())
                .bind(within.account())
                .fetch_one(&mut *transaction.connection)
                .await?;
            match is_revoked {
                true => Ok(RevokeOutcome::AlreadyRevoked),
                false => Ok(RevokeOutcome::NotFound),
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
            let keys = transaction.lock_keys(
                "tenant = $1 AND account = $2 AND revoked_at IS NULL ORDER BY id",
                |query| query.bind(owner.tenant().to_owned()).bind(owner.account().to_owned()),
            );
            let keys = keys.await?;
            let events = (0..).zip(&keys).map(|(n, (id, owner))| event.for_key_of(n, *id, owner));
            let events: Vec<_> = events.collect();
            let ids: Vec<_> = keys.iter().map(|(id, _)| uuid(*id)).collect();
            let step = format!(
                "changed AS (UPDATE {{t}}keys SET {REVOKE} WHERE id = ANY($15) RETURNING id)"
            );
            transaction
                .change(&step, &events, |statement| bind_revocation(statement, event).bind(ids))
                .await?;
            Ok(events)
        };
        // A concurrent insert commits before, and its key is revoked as well.
        self.write_of_owner(owner, revoke, |events| !events.is_empty()).await
    }

    pub(super) async fn announce_keys(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let announce =
            async |transaction: &mut Transaction<'_>| transaction.announce(owner, at).await;
        let announced = self.write(announce, |announced| *announced > 0).await?;
        Ok(u32::try_from(announced).unwrap_or(u32::MAX))
    }

    pub(super) async fn delete_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        let delete = async |transaction: &mut Transaction<'_>| {
            let step = "changed AS (DELETE FROM {t}keys WHERE id = $13 AND tenant = $14 \
                AND account = coalesce($15, account) RETURNING id)";
            if !transaction
                .change(step, std::slice::from_ref(event), |statement| {
                    statement.bind(uuid(id)).bind(within.tenant()).bind(within.account())
                })
                .await?
            {
                return Ok(false);
            }
            transaction.delete_counters([id].into_iter()).await?;
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
            let ids: Vec<_> = keys.iter().map(|(id, _)| uuid(*id)).collect();
            let events = (0..).zip(&keys).map(|(n, (id, owner))| event.for_key_of(n, *id, owner));
            let events: Vec<_> = events.collect();
            let step = "changed AS (DELETE FROM {t}keys WHERE id = ANY($13) RETURNING id)";
            transaction.change(step, &events, |statement| statement.bind(ids)).await?;
            transaction.delete_counters(keys.iter().map(|(id, _)| *id)).await?;
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
    /// Returns the key of the owner that was issued with the same token since an instant, and the number
    /// of the owner's live keys.
    async fn keys_of_owner(
        &mut self,
        key: &Key,
        token_since: Timestamp,
        now: Timestamp,
    ) -> Result<(Option<Uuid>, i64), SqlFailure> {
        let sql = "SELECT (SELECT id FROM {t}keys WHERE tenant = $1 AND account = $2 \
            AND issue_token = $3 AND created_at >= $4 LIMIT 1), \
            (SELECT count(*) FROM {t}keys WHERE tenant = $1 AND account = $2 \
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $5))";
        let query = self.tables.query_as(sql).bind(key.owner.tenant()).bind(key.owner.account());
        let query = query.bind(key.issue_token.as_ref().map(|token| token.as_slice()));
        let query = query.bind(token_since.as_unix_micros()).bind(now.as_unix_micros());
        Ok(query.fetch_one(&mut *self.connection).await?)
    }

    /// Locks a key until the commit, and compares it with the key that was read.
    async fn lock_revision(&mut self, read: &Key) -> Result<LockedKey, SqlFailure> {
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

    /// Locks keys until the commit, and returns them without their records: one may be damaged.
    /// `condition` must order them by id, so that two writes cannot deadlock.
    async fn lock_keys<'q>(
        &mut self,
        condition: &str,
        bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<Vec<(KeyId, Owner)>, SqlFailure> {
        let sql = format!("SELECT id, tenant, account FROM {{t}}keys WHERE {condition} FOR UPDATE");
        let rows = bind(self.tables.query(&sql)).fetch_all(&mut *self.connection).await?;
        rows.iter().map(|row| Ok((key_id(row.try_get("id")?), owner(row)?))).collect()
    }

    async fn has_secret(&mut self, digest: &SecretDigest) -> Result<bool, SqlFailure> {
        let sql = "SELECT EXISTS (SELECT 1 FROM {t}secrets WHERE digest = $1)";
        let digest = digest.to_bytes().to_vec();
        Ok(self.tables.query_scalar(sql).bind(digest).fetch_one(&mut *self.connection).await?)
    }

    /// Turns the current secret into the former one.
    async fn retire_current_secret(&mut self, id: KeyId) -> Result<(), SqlFailure> {
        let sql = "UPDATE {t}secrets SET former = true WHERE key_id = $1";
        self.tables.query(sql).bind(uuid(id)).execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn delete_secret(&mut self, id: KeyId, former: bool) -> Result<(), SqlFailure> {
        let sql = "DELETE FROM {t}secrets WHERE key_id = $1 AND former = $2";
        let delete = self.tables.query(sql).bind(uuid(id)).bind(former);
        delete.execute(&mut *self.connection).await?;
        Ok(())
    }
}

/// Binds the parameters of [`REVOKE`].
fn bind_revocation<'q>(statement: Statement<'q>, event: &'q AuditEvent) -> Statement<'q> {
    let reason = event.reason.as_deref().unwrap_or_default();
    statement.bind(event.at.as_unix_micros()).bind(reason)
}

const REVOKE: &str = "revoked_at = $13, revoked_reason = $14, revision = revision + 1";
/// Inserts the current secret of the row of `key`, unless the digest exists.
const INSERT_SECRET: &str = "changed AS (INSERT INTO {t}secrets (digest, key_id, former) \
    SELECT $13, id, false FROM key ON CONFLICT (digest) DO NOTHING RETURNING key_id)";
