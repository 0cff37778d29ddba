use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    errors::{FileError, SqlFailure, at_commit, before_commit},
    statements::Statements,
};
use crate::{
    store::{StoreError, error::TimedOut},
    system::lock,
};

/// The connections to a file, and the statements on its tables.
pub(super) struct SqliteDatabase {
    pub(super) path: Arc<Path>,
    /// SQLite has one writer at a time. Writes queue here instead of retrying on a locked file.
    pub(super) writer: Arc<ConnectionQueue>,
    pub(super) readers: Arc<ConnectionQueue>,
    pub(super) sql: Statements,
    pub(super) timeout: Duration,
    /// A database in memory is removed with its last connection.
    #[allow(dead_code, reason = "held open, never used")]
    pub(super) keep_alive: Option<SqliteConnection>,
}

impl SqliteDatabase {
    /// Runs one read. Each statement of a connection sees what was committed when it began.
    pub(super) async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut SqliteConnection, &Statements) -> Result<T, SqlFailure>,
    ) -> Result<T, StoreError> {
        self.before_commit(async {
            let mut lease = self.readers.lease().await?;
            let result = read(&mut lease, &self.sql).await;
            if result.is_err() {
                lease.close_on_drop();
            }
            result
        })
        .await
    }

    /// Runs one change in one transaction: all of it or nothing. Committing a transaction that
    /// changed nothing writes nothing.
    pub(super) async fn write<T>(
        &self,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, SqlFailure>,
    ) -> Result<T, StoreError> {
        let mut transaction = self.before_commit(self.begin()).await?;
        let outcome = self.before_commit(steps(&mut transaction)).await?;
        // Until here nothing has changed. From here on, a call that is cut off has an unknown outcome.
        let (limit, path) = (self.timeout, &self.path);
        match timeout(limit, transaction.lease.execute("COMMIT")).await {
            Ok(Ok(_)) => {
                transaction.lease.keep_open();
                Ok(outcome)
            }
            Ok(Err(error)) => Err(at_commit(path, error)),
            Err(_) => {
                let error = FileError::new(path, TimedOut("SQLite", limit));
                Err(StoreError::outcome_unknown(error))
            }
        }
    }

    /// Takes the write lock immediately, so that a change cannot be overtaken halfway.
    async fn begin(&self) -> Result<Transaction<'_>, SqlFailure> {
        let mut lease = self.writer.lease().await?;
        lease.close_on_drop();
        lease.execute("BEGIN IMMEDIATE").await?;
        Ok(Transaction { sql: &self.sql, lease })
    }

    /// Runs a step that commits nothing: if it fails or times out, nothing was changed.
    pub(super) async fn before_commit<T>(
        &self,
        step: impl Future<Output = Result<T, SqlFailure>>,
    ) -> Result<T, StoreError> {
        let (limit, path) = (self.timeout, &self.path);
        match timeout(limit, step).await {
            Ok(result) => result.map_err(|failure| before_commit(failure, path)),
            Err(_) => Err(StoreError::unavailable(FileError::new(path, TimedOut("SQLite", limit)))),
        }
    }
}

/// A write transaction. Dropped before the commit, it is rolled back: its connection is closed.
pub(super) struct Transaction<'a> {
    pub(super) sql: &'a Statements,
    lease: Lease,
}

impl Transaction<'_> {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.lease
    }
}

/// A bounded set of connections, leased to one task at a time in the order of asking.
///
/// sqlx's own pool takes a connection back in a spawned task, after a ping; `cargo bench -p
/// keyward-tests --bench stores` shows what that costs a lookup. Here a connection is returned immediately, and a
/// connection that may be in the middle of a statement is closed instead.
pub(super) struct ConnectionQueue {
    options: SqliteConnectOptions,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
}

impl ConnectionQueue {
    pub(super) fn new(options: SqliteConnectOptions, connections: usize) -> Self {
        Self { options, permits: Arc::new(Semaphore::new(connections)), idle: Arc::default() }
    }

    /// Waits for a free connection, or opens one.
    pub(super) async fn lease(&self) -> Result<Lease, SqlFailure> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let idle = self.idle.clone();
        Ok(Lease { connection: Some(connection), idle, permit: Some(permit), reusable: true })
    }
}

/// A connection that returns to its queue when this is dropped, unless it has to be closed.
pub(super) struct Lease {
    /// `Some` until the drop.
    connection: Option<SqliteConnection>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    permit: Option<OwnedSemaphorePermit>,
    reusable: bool,
}

impl Lease {
    /// The connection may have an open transaction or statement: the drop closes it.
    pub(super) fn close_on_drop(&mut self) {
        self.reusable = false;
    }

    /// The connection has nothing open: the drop returns it to the queue.
    pub(super) fn keep_open(&mut self) {
        self.reusable = true;
    }
}

/// Closing a connection rolls its transaction back. The permit is released after that: the next
/// task then meets no lock of this one, and the number of open connections stays bounded however
/// many tasks are cancelled.
impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if self.reusable {
            lock(&self.idle).push(connection);
        } else if let Ok(runtime) = Handle::try_current() {
            let permit = self.permit.take();
            runtime.spawn(async move {
                // No caller is left to receive the error.
                let _ = connection.close().await;
                drop(permit);
            });
        }
    }
}

impl Deref for Lease {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect(SOME_UNTIL_DROP)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect(SOME_UNTIL_DROP)
    }
}

const SOME_UNTIL_DROP: &str = "only the drop takes the connection";
