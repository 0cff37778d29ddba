use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Connection, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlSafeStr, SqlStr,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgRow},
    raw_sql,
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    errors::{PostgresFailure, ServerError, ends_connection},
    records::Statement,
};
use crate::store::{StoreError, error::TimedOut};

/// The pool, and how a call uses it.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) pool: PgPool,
    /// How long a call may take.
    pub(super) limit: Duration,
    /// Whether two transactions of one connection reach the same server process. A transaction
    /// pooler may send them to different ones.
    pub(super) keeps_session: bool,
    /// Host and port, for error texts.
    pub(super) server: Arc<str>,
}

impl Connections {
    pub(super) fn new(pool: PgPool, limit: Duration, keeps_session: bool) -> Self {
        let server = address(&pool.connect_options());
        Self { pool, limit, keeps_session, server }
    }

    /// Returns the rows of a statement that changes nothing.
    pub(super) async fn rows<'q>(
        &self,
        statement: impl Fn() -> Statement<'q>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.before_commit(self.limit, async {
            if self.keeps_session {
                let (lease, rows) = self.first_step(statement).await?;
                lease.give_back();
                return Ok(rows);
            }
            // Parsing and executing are two requests, which only a transaction keeps on one server
            // process.
            let mut lease = self.begin("BEGIN".into_sql_str()).await?;
            let rows = lease.fetch_all(statement().persistent(false)).await?;
            lease.execute("COMMIT").await?;
            lease.give_back();
            Ok(rows)
        })
        .await
    }

    /// Decodes rows.
    pub(super) fn decode<T>(
        &self,
        rows: &[PgRow],
        read: impl Fn(&PgRow) -> Result<T, PostgresFailure>,
    ) -> Result<Vec<T>, StoreError> {
        let decoded: Result<_, _> = rows.iter().map(read).collect();
        decoded.map_err(|failure| self.classify(failure))
    }

    /// Leases a connection and begins a transaction on it with the given statement.
    pub(super) async fn begin(&self, statement: SqlStr) -> Result<Lease, PostgresFailure> {
        let (mut lease, _) = self.first_step(|| raw_sql(statement.clone())).await?;
        lease.in_transaction = true;
        Ok(lease)
    }

    /// Runs a step that commits nothing: if it fails or times out, nothing was changed.
    pub(super) async fn before_commit<T>(
        &self,
        limit: Duration,
        step: impl Future<Output = Result<T, PostgresFailure>>,
    ) -> Result<T, StoreError> {
        match timeout(limit, step).await {
            Ok(result) => result.map_err(|failure| self.classify(failure)),
            Err(_) => Err(StoreError::unavailable(self.timed_out(limit))),
        }
    }

    pub(super) fn classify(&self, failure: PostgresFailure) -> StoreError {
        failure.before_commit(&self.server)
    }

    pub(super) fn timed_out(&self, limit: Duration) -> ServerError {
        ServerError::new(&self.server, TimedOut("PostgreSQL", limit))
    }

    /// Runs the first step of a call, which changes nothing. If the connection died while it was
    /// idle, the step is retried on another one: after a restart of the server, all idle
    /// connections are dead.
    async fn first_step<'q, E: Execute<'q, Postgres> + 'q>(
        &self,
        statement: impl Fn() -> E,
    ) -> Result<(Lease, Vec<PgRow>), Error> {
        let mut retries = self.pool.options().get_max_connections();
        loop {
            let mut lease = self.lease().await?;
            match lease.fetch_all(statement()).await {
                Ok(rows) => return Ok((lease, rows)),
                Err(error) if ends_connection(&error) && retries > 0 => retries -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn lease(&self) -> Result<Lease, Error> {
        let connection = Some(self.pool.acquire().await?);
        Ok(Lease { connection, limit: self.limit, in_transaction: false })
    }
}

/// A connection of the pool, leased to one call.
///
/// sqlx returns a connection that was dropped in the middle of a statement to the pool when the
/// server has answered, however long that takes: a few connections that hang forever would exhaust
/// the pool. A lease instead closes a connection that does not answer within the timeout.
pub(super) struct Lease {
    /// `Some` until the connection is given back or dropped.
    connection: Option<PoolConnection<Postgres>>,
    limit: Duration,
    in_transaction: bool,
}

impl Lease {
    /// Returns the connection to the pool; no transaction is open on it.
    pub(super) fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().expect(SOME_UNTIL_RETURNED)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect(SOME_UNTIL_RETURNED)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return drop(connection.detach()) };
        let (limit, in_transaction) = (self.limit, self.in_transaction);
        runtime.spawn(async move {
            let settle = async {
                match in_transaction {
                    true => connection.execute("ROLLBACK").await.map(drop),
                    false => connection.ping().await,
                }
            };
            if !matches!(timeout(limit, settle).await, Ok(Ok(()))) {
                drop(connection.detach());
            }
        });
    }
}

/// Returns host and port, or the folder of a unix socket. Never user or password.
fn address(options: &PgConnectOptions) -> Arc<str> {
    match options.get_socket() {
        Some(folder) => format!("{} port {}", folder.display(), options.get_port()).into(),
        None => format!("{}:{}", options.get_host(), options.get_port()).into(),
    }
}

const SOME_UNTIL_RETURNED: &str = "only `give_back` and the drop take the connection";
