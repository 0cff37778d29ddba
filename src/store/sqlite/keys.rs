use sqlx::Row;

use super::{
    change::Change,
    errors::Failure,
    rows::{bind_key, micros, number},
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, OwnerScope},
    secret::SecretDigest,
    store::{
        InsertKey, InsertOutcome, KeyUse, PreviousSecret, RotateOutcome, RotateSecret,
        UpdateOutcome, codec,
    },
};

/// What a change finds before it begins.
pub(super) struct State {
    pub(super) revision: u64,
    pub(super) revoked: bool,
}

/// Changes to keys that go on living.
impl Change<'_> {
    pub(super) async fn insert(&mut self, new: InsertKey<'_>) -> Result<InsertOutcome, Failure> {
        let InsertKey { key, digest, max_active, event } = new;
        let room = sqlx::query(self.sql.room_for.clone())
            .bind(key.id.as_bytes().as_slice())
            .bind(digest.to_bytes().to_vec())
            .bind(key.owner.tenant())
            .bind(key.owner.account())
            .bind(event.at.as_unix_micros())
            .fetch_one(self.connection())
            .await?;
        if room.try_get("taken")? {
            return Ok(InsertOutcome::DigestTaken);
        }
        let live: u64 = number(&room, "live")?;
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
    ) -> Result<UpdateOutcome, Failure> {
        match self.state((&key.owner).into(), key.id).await? {
            None => return Ok(UpdateOutcome::NotFound),
            Some(state) if state.revoked || state.revision != key.revision => {
                return Ok(UpdateOutcome::Conflict);
            }
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
    ) -> Result<RotateOutcome, Failure> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        match self.state((&key.owner).into(), key.id).await? {
            None => return Ok(RotateOutcome::NotFound),
            Some(state) if state.revoked || state.revision != key.revision => {
                return Ok(RotateOutcome::Conflict);
            }
            Some(_) => {}
        }
        let taken = sqlx::query_scalar(self.sql.digest_exists.clone())
            .bind(digest.to_bytes().to_vec())
            .fetch_one(self.connection());
        if taken.await? {
            return Ok(RotateOutcome::DigestTaken);
        }
        self.make_way(key.id, previous).await?;
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

    pub(super) async fn rehash(
        &mut self,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Result<bool, Failure> {
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
    ) -> Result<Vec<AuditEvent>, Failure> {
        let mut firsts = Vec::new();
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
                self.record_events(&event).await?;
                firsts.push(event);
            }
            sqlx::query(self.sql.last_use.clone())
                .bind(key_id)
                .bind(used.owner.tenant())
                .bind(used.owner.account())
                .bind(used.last_at.as_unix_micros())
                .bind(used.ip.map(|ip| ip.to_string()))
                .execute(self.connection())
                .await?;
        }
        Ok(firsts)
    }

    /// What a key is now, if it lies within `within`. Nobody else can change it until the commit.
    pub(super) async fn state(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<State>, Failure> {
        let row = sqlx::query(self.sql.state.clone())
            .bind(id.as_bytes().as_slice())
            .bind(within.tenant())
            .bind(within.account())
            .fetch_optional(self.connection())
            .await?;
        let state = |row| {
            Ok(State { revision: number(&row, "revision")?, revoked: row.try_get("revoked")? })
        };
        row.map(state).transpose()
    }

    /// Takes the current secret out of the way of the next one.
    async fn make_way(&mut self, id: KeyId, previous: PreviousSecret) -> Result<(), Failure> {
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

    async fn insert_secret(&mut self, digest: &SecretDigest, id: KeyId) -> Result<(), Failure> {
        sqlx::query(self.sql.insert_secret.clone())
            .bind(digest.to_bytes().to_vec())
            .bind(id.as_bytes().as_slice())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
