use std::sync::Arc;

use super::{
    errors::Failure,
    rows::{Statement, key, uuid},
    transaction::Change,
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, Timestamp},
    secret::SecretDigest,
};

/// How a key was found when it was locked.
pub(super) enum Locked {
    /// At the revision that was read, and not revoked.
    AsRead,
    /// At another one, or revoked.
    Changed,
    Gone,
}

/// The steps that changes are made of.
impl Change<'_> {
    pub(super) async fn live_keys(
        &mut self,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<i64, Failure> {
        let sql = "SELECT count(*) FROM {t}keys WHERE tenant = $1 AND account = $2 \
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)";
        let count = self
            .names
            .query_scalar(sql)
            .bind(owner.tenant())
            .bind(owner.account())
            .bind(now.as_unix_micros())
            .fetch_one(&mut *self.tx);
        Ok(count.await?)
    }

    /// Locks a key until the change is over, and compares it with what the change is based on.
    pub(super) async fn lock_revision(&mut self, read: &Key) -> Result<Locked, Failure> {
        let sql = "SELECT revision, revoked_at IS NOT NULL FROM {t}keys \
            WHERE id = $1 AND tenant = $2 AND account = $3 FOR UPDATE";
        let stored: Option<(i64, bool)> = self
            .names
            .query_as(sql)
            .bind(uuid(read.id))
            .bind(read.owner.tenant())
            .bind(read.owner.account())
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(match stored {
            None => Locked::Gone,
            Some((revision, false)) if revision as u64 == read.revision => Locked::AsRead,
            Some(_) => Locked::Changed,
        })
    }

    /// Locks keys until the change is over. `condition` orders them by id, so that two changes
    /// cannot wait for each other.
    pub(super) async fn lock_keys<'q>(
        &mut self,
        condition: &str,
        bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<Vec<Arc<Key>>, Failure> {
        let sql = format!("SELECT * FROM {{t}}keys WHERE {condition} FOR UPDATE");
        let rows = bind(self.names.query(&sql)).fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| key(row).map(Arc::new)).collect()
    }

    pub(super) async fn revoke(
        &mut self,
        ids: &[KeyId],
        events: &[AuditEvent],
    ) -> Result<(), Failure> {
        let Some(event) = events.first() else { return Ok(()) };
        let sql = "UPDATE {t}keys SET revoked_at = $2, revoked_reason = $3, revision = revision + 1 \
            WHERE id = ANY($1)";
        self.names
            .query(sql)
            .bind(ids.iter().copied().map(uuid).collect::<Vec<_>>())
            .bind(event.at.as_unix_micros())
            .bind(event.reason.as_deref().unwrap_or_default())
            .execute(&mut *self.tx)
            .await?;
        self.log(events).await
    }

    pub(super) async fn has_secret(&mut self, digest: &SecretDigest) -> Result<bool, Failure> {
        let sql = "SELECT EXISTS (SELECT 1 FROM {t}secrets WHERE digest = $1)";
        let digest = digest.to_bytes().to_vec();
        Ok(self.names.query_scalar(sql).bind(digest).fetch_one(&mut *self.tx).await?)
    }

    /// False if the digest exists.
    pub(super) async fn add_secret(
        &mut self,
        digest: &SecretDigest,
        id: KeyId,
    ) -> Result<bool, Failure> {
        let sql = "INSERT INTO {t}secrets (digest, key_id, former) VALUES ($1, $2, false) ON CONFLICT (digest) DO NOTHING";
        let added = self
            .names
            .query(sql)
            .bind(digest.to_bytes().to_vec())
            .bind(uuid(id))
            .execute(&mut *self.tx)
            .await?;
        Ok(added.rows_affected() > 0)
    }

    /// The current secret becomes the former one.
    pub(super) async fn retire_secret(&mut self, id: KeyId) -> Result<(), Failure> {
        let sql = "UPDATE {t}secrets SET former = true WHERE key_id = $1";
        self.names.query(sql).bind(uuid(id)).execute(&mut *self.tx).await?;
        Ok(())
    }

    pub(super) async fn remove_secret(&mut self, id: KeyId, former: bool) -> Result<(), Failure> {
        let sql = "DELETE FROM {t}secrets WHERE key_id = $1 AND former = $2";
        self.names.query(sql).bind(uuid(id)).bind(former).execute(&mut *self.tx).await?;
        Ok(())
    }
}
