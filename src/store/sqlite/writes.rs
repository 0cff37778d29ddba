use sqlx::{Row, SqlStr};

use super::{
    connections::{SqliteDatabase, Transaction},
    errors::SqlFailure,
    records::{Statement, bind_event, bind_key, bytes, key_id, number, owner},
    statements::Statements,
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        InsertKey, InsertOutcome, KeyUse, PreviousSecret, RevokeOutcome, RotateOutcome,
        RotateSecret, StoreError, UpdateOutcome, codec,
        sql::{corrupt_column, micros},
    },
};

/// Writes of keys.
impl Transaction<'_> {
    pub(super) async fn insert(&mut self, new: InsertKey<'_>) -> Result<InsertOutcome, SqlFailure> {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        let check = sqlx::query(self.sql.insert_check.clone())
            .bind(key.id.as_bytes().as_slice())
            .bind(digest.to_bytes().to_vec())
            .bind(key.owner.tenant())
            .bind(key.owner.account())
            .bind(event.at.as_unix_micros())
            .bind(key.issue_token.as_ref().map(|token| token.as_slice()))
            .bind(token_since.as_unix_micros())
            .fetch_one(self.connection())
            .await?;
        if let Some(id) = bytes(&check, "same_token")? {
            return Ok(InsertOutcome::TokenTaken(KeyId::from_bytes(id)));
        }
        if check.try_get("taken")? {
            return Ok(InsertOutcome::DigestTaken);
        }
        let live: u64 = number(&check, "live")?;
        if max_active.is_some_and(|max| live >= u64::from(max)) {
            return Ok(InsertOutcome::LimitReached);
        }
        let insert = sqlx::query(self.sql.insert_key.clone());
        bind_key(insert, key).execute(self.connection()).await?;
        self.insert_secret(digest, key.id).await?;
        self.log(event, key.id).await?;
        Ok(InsertOutcome::Inserted)
    }

    pub(super) async fn update(
        &mut self,
        key: &Key,
        event: &AuditEvent,
    ) -> Result<UpdateOutcome, SqlFailure> {
        match self.state((&key.owner).into(), key.id).await? {
            None => return Ok(UpdateOutcome::NotFound),
            Some(state) if !state.is_unchanged(key)? => return Ok(UpdateOutcome::Conflict),
            Some(_) => {}
        }
        sqlx::query(self.sql.update.clone())
            .bind(key.id.as_bytes().as_slice())
            .bind(key.name.as_str())
            .bind(codec::access(&key.access))
            .bind(codec::limits(&key.limits))
            .bind(codec::networks(&key.networks))
            .bind(codec::metadata(&key.metadata))
            .bind(micros(key.disabled_at))
            .execute(self.connection())
            .await?;
        self.log(event, key.id).await?;
        Ok(UpdateOutcome::Updated)
    }

    pub(super) async fn rotate(
        &mut self,
        rotate: RotateSecret<'_>,
    ) -> Result<RotateOutcome, SqlFailure> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        match self.state((&key.owner).into(), key.id).await? {
            None => return Ok(RotateOutcome::NotFound),
            Some(state) if !state.is_unchanged(key)? => return Ok(RotateOutcome::Conflict),
            Some(state) if state.is_secret_used && previous == PreviousSecret::Replaced => {
                return Ok(RotateOutcome::SecretUsed);
            }
            Some(_) => {}
        }
        let taken = sqlx::query_scalar(self.sql.digest_exists.clone())
            .bind(digest.to_bytes().to_vec())
            .fetch_one(self.connection());
        if taken.await? {
            return Ok(RotateOutcome::DigestTaken);
        }
        self.retire_or_remove_current(key.id, previous).await?;
        self.insert_secret(digest, key.id).await?;
        sqlx::query(self.sql.rotate.clone())
            .bind(key.id.as_bytes().as_slice())
            .bind(hint)
            .bind(token.as_ref().map(|token| token.as_slice()))
            .bind(event.at.as_unix_micros())
            .execute(self.connection())
            .await?;
        self.log(event, key.id).await?;
        Ok(RotateOutcome::Rotated)
    }

    pub(super) async fn revoke(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, SqlFailure> {
        match self.state(within, id).await? {
            None => return Ok(RevokeOutcome::NotFound),
            Some(state) if state.has_revoked_at => return Ok(RevokeOutcome::AlreadyRevoked),
            Some(_) => {}
        }
        self.revoke_one(id, event).await?;
        Ok(RevokeOutcome::Revoked)
    }

    pub(super) async fn revoke_all(
        &mut self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, SqlFailure> {
        let unrevoked = sqlx::query(self.sql.unrevoked.clone());
        let keys = self.keys(unrevoked.bind(owner.tenant()).bind(owner.account())).await?;
        let mut events = Vec::with_capacity(keys.len());
        for (n, (id, owner)) in (0..).zip(&keys) {
            let event = event.for_key_of(n, *id, owner);
            self.revoke_one(*id, &event).await?;
            events.push(event);
        }
        Ok(events)
    }

    pub(super) async fn delete(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, SqlFailure> {
        let exists = self.state(within, id).await?.is_some();
        if exists {
            self.delete_one(id, event).await?;
        }
        Ok(exists)
    }

    pub(super) async fn purge_keys(
        &mut self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, SqlFailure> {
        let dead = sqlx::query(self.sql.dead_keys.clone());
        let keys = self.keys(dead.bind(before.as_unix_micros()).bind(i64::from(limit))).await?;
        let mut events = Vec::with_capacity(keys.len());
        for (n, (id, owner)) in (0..).zip(&keys) {
            let event = event.for_key_of(n, *id, owner);
            self.delete_one(*id, &event).await?;
            events.push(event);
        }
        Ok(events)
    }

    pub(super) async fn rehash(
        &mut self,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Result<bool, SqlFailure> {
        let done = sqlx::query(self.sql.rehash.clone())
            .bind(from.to_bytes().to_vec())
            .bind(to.to_bytes().to_vec())
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn record_uses(
        &mut self,
        uses: &[KeyUse],
    ) -> Result<Vec<AuditEvent>, SqlFailure> {
        let mut first_uses = Vec::new();
        for used in uses {
            let key_id = used.key_id.as_bytes().as_slice();
            let first = sqlx::query(self.sql.first_use.clone())
                .bind(key_id)
                .bind(used.owner.tenant())
                .bind(used.owner.account())
                .bind(used.first_at.as_unix_micros())
                .execute(self.connection())
                .await?;
            if first.rows_affected() == 1 {
                let event = used.first_use();
                self.record_event(&event).await?;
                first_uses.push(event);
            }
            sqlx::query(self.sql.secret_use.clone())
                .bind(key_id)
                .bind(used.owner.tenant())
                .bind(used.owner.account())
                .bind(used.first_at.as_unix_micros())
                .bind(used.digest.to_bytes().to_vec())
                .execute(self.connection())
                .await?;
            sqlx::query(self.sql.last_use.clone())
                .bind(key_id)
                .bind(used.owner.tenant())
                .bind(used.owner.account())
                .bind(used.last_at.as_unix_micros())
                .bind(used.ip.map(|ip| ip.to_string()))
                .execute(self.connection())
                .await?;
        }
        Ok(first_uses)
    }

    pub(super) async fn record_events(&mut self, events: &[AuditEvent]) -> Result<u32, SqlFailure> {
        let mut added = 0;
        for event in events {
            added += self.record_event(event).await?;
        }
        Ok(added)
    }

    pub(super) async fn announce_account_change(
        &mut self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, SqlFailure> {
        let done = sqlx::query(self.sql.announce.clone())
            .bind(owner.tenant())
            .bind(owner.account())
            .bind(at.as_unix_micros())
            .execute(self.connection())
            .await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }

    pub(super) async fn purge_changes(&mut self, before: Timestamp) -> Result<u32, SqlFailure> {
        let purge = sqlx::query(self.sql.purge_changes.clone()).bind(before.as_unix_micros());
        let done = purge.execute(self.connection()).await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }

    /// Returns the current state of a key inside `within`. No other write can change it until the
    /// commit.
    async fn state(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<KeyState>, SqlFailure> {
        let row = sqlx::query(self.sql.state.clone())
            .bind(id.as_bytes().as_slice())
            .bind(within.tenant())
            .bind(within.account())
            .fetch_optional(self.connection())
            .await?;
        let state = |row| {
            Ok(KeyState {
                revision: number(&row, "revision")?,
                has_revoked_at: row.try_get("has_revoked_at")?,
                has_revoked_reason: row.try_get("has_revoked_reason")?,
                is_secret_used: row.try_get("is_secret_used")?,
            })
        };
        row.map(state).transpose()
    }

    /// Retires or removes the current secret, so that a new one can be inserted.
    async fn retire_or_remove_current(
        &mut self,
        id: KeyId,
        previous: PreviousSecret,
    ) -> Result<(), SqlFailure> {
        let id = id.as_bytes().as_slice();
        let PreviousSecret::EndsAt(ends_at) = previous else {
            let remove = sqlx::query(self.sql.remove_current.clone()).bind(id);
            remove.execute(self.connection()).await?;
            return Ok(());
        };
        let remove = sqlx::query(self.sql.remove_former.clone()).bind(id);
        remove.execute(self.connection()).await?;
        for retire in [&self.sql.retire_current, &self.sql.retire_hint] {
            let retire = sqlx::query(retire.clone()).bind(id).bind(ends_at.as_unix_micros());
            retire.execute(self.connection()).await?;
        }
        Ok(())
    }

    async fn insert_secret(&mut self, digest: &SecretDigest, id: KeyId) -> Result<(), SqlFailure> {
        sqlx::query(self.sql.insert_secret.clone())
            .bind(digest.to_bytes().to_vec())
            .bind(id.as_bytes().as_slice())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn revoke_one(&mut self, id: KeyId, event: &AuditEvent) -> Result<(), SqlFailure> {
        sqlx::query(self.sql.revoke.clone())
            .bind(id.as_bytes().as_slice())
            .bind(event.at.as_unix_micros())
            .bind(event.reason.as_deref().unwrap_or_default())
            .execute(self.connection())
            .await?;
        self.log(event, id).await
    }

    /// Deletes a key. The table's foreign key deletes its secrets and its usage with it.
    async fn delete_one(&mut self, id: KeyId, event: &AuditEvent) -> Result<(), SqlFailure> {
        let delete = sqlx::query(self.sql.delete.clone()).bind(id.as_bytes().as_slice());
        delete.execute(self.connection()).await?;
        self.delete_counters(id).await?;
        self.log(event, id).await
    }

    /// Returns keys without their records: one may be damaged.
    async fn keys(&mut self, select: Statement<'_>) -> Result<Vec<(KeyId, Owner)>, SqlFailure> {
        let rows = select.fetch_all(self.connection()).await?;
        rows.iter().map(|row| Ok((key_id(row)?, owner(row)?))).collect()
    }

    /// Writes an event of a key to the audit log, and the key to the change feed.
    async fn log(&mut self, event: &AuditEvent, id: KeyId) -> Result<(), SqlFailure> {
        self.record_event(event).await?;
        sqlx::query(self.sql.insert_change.clone())
            .bind(event.at.as_unix_micros())
            .bind(id.as_bytes().as_slice())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Writes an event; an id that exists is skipped. Returns the number of events written.
    async fn record_event(&mut self, event: &AuditEvent) -> Result<u32, SqlFailure> {
        let insert = sqlx::query(self.sql.insert_event.clone());
        let done = bind_event(insert, event).execute(self.connection()).await?;
        Ok(done.rows_affected() as u32)
    }
}

impl SqliteDatabase {
    /// Runs a `DELETE` of rows that are older than `?1`, up to `?2` of them.
    pub(super) async fn purge(
        &self,
        delete: fn(&Statements) -> &SqlStr,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.write(async |transaction| {
            let done = sqlx::query(delete(transaction.sql).clone())
                .bind(before.as_unix_micros())
                .bind(i64::from(limit))
                .execute(transaction.connection())
                .await?;
            Ok(u32::try_from(done.rows_affected()).unwrap_or(limit))
        })
        .await
    }
}

/// The state of a key that a change is based on.
struct KeyState {
    revision: u64,
    has_revoked_at: bool,
    has_revoked_reason: bool,
    is_secret_used: bool,
}

impl KeyState {
    /// Whether the key has the revision that was read and is not revoked.
    fn is_unchanged(&self, read: &Key) -> Result<bool, SqlFailure> {
        if self.has_revoked_at != self.has_revoked_reason {
            return Err(corrupt_column("revoked_at").into());
        }
        Ok(!self.has_revoked_at && self.revision == read.revision)
    }
}
