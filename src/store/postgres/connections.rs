use std::{
    io::ErrorKind,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, Error, Execute, Executor, PgConnection, PgPool, Postgres,
    SqlSafeStr, SqlStr,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgRow},
    raw_sql,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    errors::{ServerError, SqlFailure, before_commit, ends_connection},
    records::Statement,
};
use crate::store::{StoreError, error::TimedOut};

/// A pool, and how a call uses it.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) pool: PgPool,
    /// Bounds the calls that wait for the pool. `None` for look-ups and the change feed, whose number is small anyway.
    queue: Option<Arc<Queue>>,
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
        let queue = Some(Arc::new(Queue::new(pool.options().get_max_connections())));
        Self { pool, queue, limit, keeps_session, server }
    }

    /// Returns connections to the same server for look-ups and the change feed. They are reserved, so that verification
    /// does not wait behind changes.
    pub(super) fn reserved(&self) -> Self {
        let options = self.pool.options().clone();
        let connections = options.get_max_connections().min(RESERVED);
        let options = options.min_connections(0).max_connections(connections);
        let pool = options.connect_lazy_with((*self.pool.connect_options()).clone());
        Self { pool, queue: None, ..self.clone() }
    }

    /// Fails immediately if the server refuses connections. The pool would try again until the timeout, and then not
    /// say why. What else a server may answer, the pool reports.
    pub(super) async fn check_server(&self) -> Result<(), StoreError> {
        let options = self.pool.connect_options();
        let connect = async {
            match options.connect().await {
                Ok(connection) => drop(connection.close().await),
                Err(Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                    return Err(Error::Io(error).into());
                }
                Err(_) => {}
            }
            Ok(())
        };
        self.before_commit(self.limit, connect).await
    }

    /// Returns the rows of a statement that changes nothing.
    pub(super) async fn rows<'q>(
        &self,
        statement: impl Fn() -> Statement<'q>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.before_commit(self.limit, async {
            if self.keeps_session {
                let (lease, rows) = self.first_step(statement, false).await?;
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
        read: impl Fn(&PgRow) -> Result<T, SqlFailure>,
    ) -> Result<Vec<T>, StoreError> {
        let decoded: Result<_, _> = rows.iter().map(read).collect();
        decoded.map_err(|failure| self.classify(failure))
    }

    /// Leases a connection and begins a transaction on it with the given statement.
    pub(super) async fn begin(&self, statement: SqlStr) -> Result<Lease, SqlFailure> {
        Ok(self.first_step(|| raw_sql(statement.clone()), true).await?.0)
    }

    /// Runs statements without parameters in one round trip, as one transaction.
    pub(super) async fn run(&self, statements: SqlStr) -> Result<(), StoreError> {
        let run = self.first_step(|| raw_sql(statements.clone()), false);
        let (lease, _) = self.before_commit(self.limit, run).await?;
        lease.give_back();
        Ok(())
    }

    /// Runs a step that commits nothing: if it fails or times out, nothing was changed.
    pub(super) async fn before_commit<T>(
        &self,
        limit: Duration,
        step: impl Future<Output = Result<T, SqlFailure>>,
    ) -> Result<T, StoreError> {
        match timeout(limit, step).await {
            Ok(result) => result.map_err(|failure| self.classify(failure)),
            Err(_) => Err(StoreError::unavailable(self.timed_out(limit))),
        }
    }

    pub(super) fn classify(&self, failure: SqlFailure) -> StoreError {
        before_commit(failure, &self.server)
    }

    pub(super) fn timed_out(&self, limit: Duration) -> ServerError {
        ServerError::new(&self.server, TimedOut("PostgreSQL", limit))
    }

    /// Runs the first step of a call, which may be repeated. If the connection died while it was
    /// idle, the step is retried on another one: after a restart of the server, all idle
    /// connections are dead.
    async fn first_step<'q, E: Execute<'q, Postgres> + 'q>(
        &self,
        statement: impl Fn() -> E,
        begins_transaction: bool,
    ) -> Result<(Lease, Vec<PgRow>), SqlFailure> {
        let turn = match &self.queue {
            Some(queue) => Some(queue.turn().await?),
            None => None,
        };
        let mut retries = self.pool.options().get_max_connections();
        loop {
            let mut lease = match self.lease().await {
                // It was cut while it was opened.
                Err(Error::Io(_)) if retries > 0 => {
                    retries -= 1;
                    continue;
                }
                lease => lease?,
            };
            // Before the statement: it may begin the transaction and fail, or be cancelled.
            lease.in_transaction = begins_transaction;
            match lease.fetch_all(statement()).await {
                Ok(rows) => {
                    lease.turn = turn;
                    return Ok((lease, rows));
                }
                Err(error) if ends_connection(&error) && retries > 0 => retries -= 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn lease(&self) -> Result<Lease, Error> {
        let connection = Some(self.pool.acquire().await?);
        Ok(Lease { connection, turn: None, limit: self.limit, in_transaction: false })
    }
}

/// Calls wait here for a connection, in the order of their arrival. If too many do, further ones fail immediately: they
/// would wait until their timeout, and their callers would try again and again.
struct Queue {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Queue {
    fn new(connections: u32) -> Self {
        let turns = Arc::new(Semaphore::new(connections.max(1) as usize));
        Self { turns, waiting: AtomicUsize::new(0) }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MAX_WAITING {
            // Lets others run: a caller that tries again without a pause must not keep the thread.
            tokio::task::yield_now().await;
            let error = StoreError::unavailable(format!(
                "{MAX_WAITING} calls are waiting for a connection to PostgreSQL already: try again in a second"
            ));
            return Err(error.with_retry_after(Duration::from_secs(1)));
        }
        let closed = |_| StoreError::unavailable("the queue is never closed");
        self.turns.clone().acquire_owned().await.map_err(closed)
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
    /// Ends when the connection is back in the pool.
    turn: Option<OwnedSemaphorePermit>,
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
        let (limit, in_transaction, turn) = (self.limit, self.in_transaction, self.turn.take());
        runtime.spawn(async move {
            let _turn = turn;
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

/// How many connections are reserved for look-ups and the change feed. Each is used for one short statement at a time.
const RESERVED: u32 = 6;
/// More than a server can serve within the usual timeout, so that calls that fail here would fail anyway.
const MAX_WAITING: usize = 1_024;
const SOME_UNTIL_RETURNED: &str = "only `give_back` and the drop take the connection";
