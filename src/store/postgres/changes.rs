use uuid::Uuid;

use super::{
    PostgresStore,
    errors::with_timeout,
    rows::{KEY, bind_key, uuid},
    steps::Locked,
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    store::{
        InsertKey, InsertOutcome, PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret,
        StoreError, UpdateOutcome, codec,
    },
};

impl PostgresStore {
    pub(super) async fn add(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        let InsertKey { key, digest, max_active, event } = new;
        let mut change = self.begin().await?;
        let outcome = with_timeout(change.left(), async {
            change.lock_owner(&key.owner).await?;
            if change.live_keys(&key.owner, event.at).await?
                >= max_active.map_or(i64::MAX, i64::from)
            {
                return Ok(InsertOutcome::LimitReached);
            }
            // Another transaction may be adding the same one: ON CONFLICT waits for it.
            let sql = "INSERT INTO {t}keys (".to_owned()
                + KEY
                + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
                $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) ON CONFLICT DO NOTHING";
            let added = bind_key(self.names.query(&sql), key).execute(&mut *change.tx).await?;
            if added.rows_affected() == 0 || !change.add_secret(digest, key.id).await? {
                return Ok(InsertOutcome::DigestTaken);
            }
            change.log(std::slice::from_ref(event)).await?;
            Ok(InsertOutcome::Inserted)
        });
        let outcome = outcome.await?;
        self.conclude(change, outcome == InsertOutcome::Inserted).await?;
        Ok(outcome)
    }

    pub(super) async fn write_key(
        &self,
        key: &Key,
        event: &AuditEvent,
    ) -> Result<UpdateOutcome, StoreError> {
        let mut change = self.begin().await?;
        let outcome = with_timeout(change.left(), async {
            match change.lock_revision(key).await? {
                Locked::AsRead => {}
                Locked::Changed => return Ok(UpdateOutcome::Conflict),
                Locked::Gone => return Ok(UpdateOutcome::NotFound),
            }
            let sql = "UPDATE {t}keys SET name = $2, access = $3, limits = $4, networks = $5, \
                metadata = $6, disabled_at = $7, revision = revision + 1 WHERE id = $1";
            self.names
                .query(sql)
                .bind(uuid(key.id))
                .bind(key.name.as_str())
                .bind(codec::access(&key.access))
                .bind(codec::limits(&key.limits))
                .bind(codec::networks(&key.networks))
                .bind(codec::metadata(&key.metadata))
                .bind(key.disabled_at.map(Timestamp::as_unix_micros))
                .execute(&mut *change.tx)
                .await?;
            change.log(std::slice::from_ref(event)).await?;
            Ok(UpdateOutcome::Updated)
        });
        let outcome = outcome.await?;
        self.conclude(change, outcome == UpdateOutcome::Updated).await?;
        Ok(outcome)
    }

    pub(super) async fn replace_secret(
        &self,
        rotate: RotateSecret<'_>,
    ) -> Result<RotateOutcome, StoreError> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let mut change = self.begin().await?;
        let outcome = with_timeout(change.left(), async {
            match change.lock_revision(key).await? {
                Locked::AsRead => {}
                Locked::Changed => return Ok(RotateOutcome::Conflict),
                Locked::Gone => return Ok(RotateOutcome::NotFound),
            }
            if change.has_secret(digest).await? {
                return Ok(RotateOutcome::DigestTaken);
            }
            let ends_at = match previous {
                PreviousSecret::EndsAt(ends_at) => {
                    change.remove_secret(key.id, true).await?;
                    change.retire_secret(key.id).await?;
                    Some(ends_at.as_unix_micros())
                }
                PreviousSecret::Replaced => {
                    change.remove_secret(key.id, false).await?;
                    None
                }
            };
            if !change.add_secret(digest, key.id).await? {
                return Ok(RotateOutcome::DigestTaken);
            }
            let sql = "UPDATE {t}keys SET \
                retiring_hint = CASE WHEN $5 IS NULL THEN retiring_hint ELSE hint END, \
                retiring_ends_at = coalesce($5, retiring_ends_at), \
                hint = $2, rotated_at = $3, rotation_token = $4, revision = revision + 1 WHERE id = $1";
            self.names
                .query(sql)
                .bind(uuid(key.id))
                .bind(hint)
                .bind(event.at.as_unix_micros())
                .bind(token.as_ref().map(|token| token.as_slice()))
                .bind(ends_at)
                .execute(&mut *change.tx)
                .await?;
            change.log(std::slice::from_ref(event)).await?;
            Ok(RotateOutcome::Rotated)
        });
        let outcome = outcome.await?;
        self.conclude(change, outcome == RotateOutcome::Rotated).await?;
        Ok(outcome)
    }

    pub(super) async fn revoke_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        let mut change = self.begin().await?;
        let outcome = with_timeout(change.left(), async {
            let sql = "SELECT revoked_at IS NOT NULL FROM {t}keys \
                WHERE id = $1 AND tenant = $2 AND account = coalesce($3, account) FOR UPDATE";
            let revoked: Option<bool> = self
                .names
                .query_scalar(sql)
                .bind(uuid(id))
                .bind(within.tenant())
                .bind(within.account())
                .fetch_optional(&mut *change.tx)
                .await?;
            match revoked {
                None => Ok(RevokeOutcome::NotFound),
                Some(true) => Ok(RevokeOutcome::AlreadyRevoked),
                Some(false) => {
                    change.revoke(&[id], std::slice::from_ref(event)).await?;
                    Ok(RevokeOutcome::Revoked)
                }
            }
        });
        let outcome = outcome.await?;
        self.conclude(change, outcome == RevokeOutcome::Revoked).await?;
        Ok(outcome)
    }

    pub(super) async fn revoke_keys(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let mut change = self.begin().await?;
        let events = with_timeout(change.left(), async {
            // Whoever is adding a key finishes first, and is revoked as well.
            change.lock_owner(owner).await?;
            let keys = change.lock_keys(
                "tenant = $1 AND account = $2 AND revoked_at IS NULL ORDER BY id",
                |q| q.bind(owner.tenant().to_owned()).bind(owner.account().to_owned()),
            );
            let keys = keys.await?;
            let events: Vec<_> = (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
            change.revoke(&ids, &events).await?;
            Ok(events)
        });
        let events = events.await?;
        self.conclude(change, !events.is_empty()).await?;
        Ok(events)
    }

    pub(super) async fn announce_keys(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let mut change = self.begin().await?;
        let ids = with_timeout(change.left(), async {
            let sql = "SELECT id FROM {t}keys \
                WHERE tenant = $1 AND account = $2 AND revoked_at IS NULL";
            let ids: Vec<Uuid> = self
                .names
                .query_scalar(sql)
                .bind(owner.tenant())
                .bind(owner.account())
                .fetch_all(&mut *change.tx)
                .await?;
            change.feed(&ids, at).await?;
            Ok(ids)
        });
        let ids = ids.await?;
        self.conclude(change, !ids.is_empty()).await?;
        Ok(u32::try_from(ids.len()).unwrap_or(u32::MAX))
    }

    pub(super) async fn delete_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut change = self.begin().await?;
        let deleted = with_timeout(change.left(), async {
            let sql = "DELETE FROM {t}keys \
                WHERE id = $1 AND tenant = $2 AND account = coalesce($3, account)";
            let deleted = self
                .names
                .query(sql)
                .bind(uuid(id))
                .bind(within.tenant())
                .bind(within.account())
                .execute(&mut *change.tx)
                .await?;
            if deleted.rows_affected() > 0 {
                change.forget_counters([id].into_iter()).await?;
                change.log(std::slice::from_ref(event)).await?;
            }
            Ok(deleted.rows_affected() > 0)
        });
        let deleted = deleted.await?;
        self.conclude(change, deleted).await?;
        Ok(deleted)
    }

    pub(super) async fn delete_dead_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let mut change = self.begin().await?;
        let events = with_timeout(change.left(), async {
            let dead = "(revoked_at IS NOT NULL OR expires_at IS NOT NULL) \
                AND LEAST(revoked_at, expires_at) < $1 ORDER BY id LIMIT $2";
            let keys =
                change.lock_keys(dead, |q| q.bind(before.as_unix_micros()).bind(i64::from(limit)));
            let keys = keys.await?;
            let ids: Vec<_> = keys.iter().map(|key| uuid(key.id)).collect();
            self.names
                .query("DELETE FROM {t}keys WHERE id = ANY($1)")
                .bind(ids)
                .execute(&mut *change.tx)
                .await?;
            change.forget_counters(keys.iter().map(|key| key.id)).await?;
            let events: Vec<_> = (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            change.log(&events).await?;
            Ok(events)
        });
        let events = events.await?;
        self.conclude(change, !events.is_empty()).await?;
        Ok(events)
    }
}
