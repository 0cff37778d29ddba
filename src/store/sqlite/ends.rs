use super::{
    change::Change,
    errors::Failure,
    rows::{Statement, key},
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    store::RevokeOutcome,
};

/// Changes after which a key does not live any more.
impl Change<'_> {
    pub(super) async fn revoke(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, Failure> {
        match self.state(within, id).await? {
            None => return Ok(RevokeOutcome::NotFound),
            Some(state) if state.revoked => return Ok(RevokeOutcome::AlreadyRevoked),
            Some(_) => {}
        }
        self.revoke_one(id, event).await?;
        Ok(RevokeOutcome::Revoked)
    }

    pub(super) async fn revoke_all(
        &mut self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, Failure> {
        let unrevoked = sqlx::query(self.sql.unrevoked.clone());
        let keys = self.keys(unrevoked.bind(owner.tenant()).bind(owner.account())).await?;
        let mut events = Vec::with_capacity(keys.len());
        for (n, key) in (0..).zip(&keys) {
            let event = event.for_key(n, key);
            self.revoke_one(key.id, &event).await?;
            events.push(event);
        }
        Ok(events)
    }

    pub(super) async fn delete(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, Failure> {
        let known = self.state(within, id).await?.is_some();
        if known {
            self.delete_one(id, event).await?;
        }
        Ok(known)
    }

    pub(super) async fn purge_keys(
        &mut self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, Failure> {
        let dead = sqlx::query(self.sql.dead.clone());
        let keys = self.keys(dead.bind(before.as_unix_micros()).bind(i64::from(limit))).await?;
        let mut events = Vec::with_capacity(keys.len());
        for (n, key) in (0..).zip(&keys) {
            let event = event.for_key(n, key);
            self.delete_one(key.id, &event).await?;
            events.push(event);
        }
        Ok(events)
    }

    async fn revoke_one(&mut self, id: KeyId, event: &AuditEvent) -> Result<(), Failure> {
        sqlx::query(self.sql.revoke.clone())
            .bind(id.as_bytes().as_slice())
            .bind(event.at.as_unix_micros())
            .bind(event.reason.as_deref().unwrap_or_default())
            .execute(self.connection())
            .await?;
        self.log(event, id).await
    }

    /// Its secrets go with it: the table says so.
    async fn delete_one(&mut self, id: KeyId, event: &AuditEvent) -> Result<(), Failure> {
        let delete = sqlx::query(self.sql.delete.clone()).bind(id.as_bytes().as_slice());
        delete.execute(self.connection()).await?;
        self.forget_counters(id).await?;
        self.log(event, id).await
    }

    async fn keys(&mut self, select: Statement<'_>) -> Result<Vec<Key>, Failure> {
        select.fetch_all(self.connection()).await?.iter().map(key).collect()
    }
}
