use sqlx::{Executor, SqliteConnection};
use tokio::time::timeout;

use super::{
    SqliteStore,
    errors::{Failure, at_commit, with_timeout},
    lane::Lease,
    rows::bind_event,
    statements::Statements,
};
use crate::{
    audit::AuditEvent,
    model::KeyId,
    store::{StoreError, error::TimedOut},
};

/// A change on its way. Dropped, it never happened: its connection is closed, which rolls it back.
pub(super) struct Change<'a> {
    pub(super) sql: &'a Statements,
    lease: Lease,
}

impl SqliteStore {
    /// One read. Statements of one connection see what was committed when each of them began.
    pub(super) async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut SqliteConnection, &Statements) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let inner = &*self.inner;
        with_timeout(inner.timeout, async {
            let mut lease = inner.readers.lease().await?;
            let answer = read(&mut lease, &inner.sql).await;
            if answer.is_err() {
                lease.spoil();
            }
            answer
        })
        .await
    }

    /// One change: all of it in one transaction, or nothing. Committing one that changed nothing
    /// writes nothing.
    pub(super) async fn change<T>(
        &self,
        steps: impl AsyncFnOnce(&mut Change<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let limit = self.inner.timeout;
        let mut change = with_timeout(limit, self.begin()).await?;
        let answer = with_timeout(limit, steps(&mut change)).await?;
        // Cut off before here, nothing has happened. From here on, nobody knows.
        match timeout(limit, change.lease.execute("COMMIT")).await {
            Ok(Ok(_)) => {
                change.lease.clear();
                Ok(answer)
            }
            Ok(Err(error)) => Err(at_commit(error)),
            Err(_) => Err(StoreError::outcome_unknown(TimedOut("SQLite", limit))),
        }
    }

    /// Takes the lock that all writers share at once, so that no change finds out halfway that it
    /// was overtaken.
    pub(super) async fn begin(&self) -> Result<Change<'_>, Failure> {
        let mut lease = self.inner.writer.lease().await?;
        lease.spoil();
        lease.execute("BEGIN IMMEDIATE").await?;
        Ok(Change { sql: &self.inner.sql, lease })
    }
}

impl Change<'_> {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.lease
    }

    /// Writes what happened to a key into the log and the change feed.
    pub(super) async fn log(&mut self, event: &AuditEvent, id: KeyId) -> Result<(), Failure> {
        self.record_events(event).await?;
        sqlx::query(self.sql.insert_change.clone())
            .bind(event.at.as_unix_micros())
            .bind(id.as_bytes().as_slice())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Writes an event; one that is there already is passed over.
    pub(super) async fn record_events(&mut self, event: &AuditEvent) -> Result<(), Failure> {
        let insert = sqlx::query(self.sql.insert_event.clone());
        bind_event(insert, event).execute(self.connection()).await?;
        Ok(())
    }
}
