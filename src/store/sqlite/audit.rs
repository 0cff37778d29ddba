use sqlx::SqlStr;

use super::{
    SqliteStore,
    change::Change,
    errors::Failure,
    reads::BEHIND_ALL,
    rows::{event, micros},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::Timestamp,
    store::StoreError,
};

/// The log: what a change writes with itself is in `change.rs`.
impl SqliteStore {
    pub(super) async fn read_events(
        &self,
        query: &AuditQuery<'_>,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = *query;
        self.read(async |connection, sql| {
            let select = match (key_id, within.account()) {
                (Some(_), _) => &sql.events_of_key,
                (None, Some(_)) => &sql.events_of_owner,
                (None, None) => &sql.events_of_tenant,
            };
            let rows = sqlx::query(select.clone())
                .bind(within.tenant())
                .bind(within.account())
                .bind(key_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(kind.map(EventKind::as_str))
                .bind(micros(from))
                .bind(micros(until))
                .bind(after.as_ref().map_or(BEHIND_ALL, |after| after.as_bytes()))
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(event).collect()
        })
        .await
    }
}

impl Change<'_> {
    pub(super) async fn record_all(&mut self, events: &[AuditEvent]) -> Result<(), Failure> {
        for event in events {
            self.record_events(event).await?;
        }
        Ok(())
    }

    /// Deletes rows that are older than `?1`, up to `?2` of them.
    pub(super) async fn purge(
        &mut self,
        delete: &SqlStr,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, Failure> {
        let done = sqlx::query(delete.clone())
            .bind(before.as_unix_micros())
            .bind(i64::from(limit))
            .execute(self.connection())
            .await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(limit))
    }
}
