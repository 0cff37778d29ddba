use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{
    Connection, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlSafeStr, SqlStr,
    pool::PoolConnection,
    postgres::{PgDatabaseError, PgRow, PgSeverity},
    raw_sql,
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    errors::{Failure, with_timeout},
    rows::Statement,
};
use crate::store::StoreError;

/// The pool, and for how long a call may keep its caller waiting.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) pool: PgPool,
    pub(super) limit: Duration,
    /// Whether a connection is the same one in two transactions.
    pub(super) stays: bool,
}

impl Connections {
    /// The rows of a statement that changes nothing.
    pub(super) async fn rows<'q>(
        &self,
        statement: impl Fn() -> Statement<'q>,
    ) -> Result<Vec<PgRow>, StoreError> {
        with_timeout(self.limit, async {
            if self.stays {
                let (lent, rows) = self.first(statement).await?;
                lent.give_back();
                return Ok(rows);
            }
            // Parsing and executing are two requests, which only a transaction keeps together.
            let mut lent = self.begin("BEGIN".into_sql_str()).await?;
            let rows = lent.fetch_all(statement().persistent(false)).await?;
            lent.execute("COMMIT").await?;
            lent.give_back();
            Ok(rows)
        })
        .await
    }

    /// A connection on which a transaction has been begun with this statement.
    pub(super) async fn begin(&self, statement: SqlStr) -> Result<Lent, Failure> {
        let (mut lent, _) = self.first(|| raw_sql(statement.clone())).await?;
        lent.in_transaction = true;
        Ok(lent)
    }

    /// The first step of a call. It changes nothing: where the connection turns out to have died
    /// since it was used last, it goes to another one. After a restart of the server, all that lie
    /// idle have.
    async fn first<'q, E: Execute<'q, Postgres> + 'q>(
        &self,
        statement: impl Fn() -> E,
    ) -> Result<(Lent, Vec<PgRow>), Error> {
        let mut others = self.pool.options().get_max_connections();
        loop {
            let mut lent = self.lend().await?;
            match lent.fetch_all(statement()).await {
                Ok(rows) => return Ok((lent, rows)),
                Err(error) if is_lost(&error) && others > 0 => others -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn lend(&self) -> Result<Lent, Error> {
        let connection = Some(self.pool.acquire().await?);
        Ok(Lent { connection, limit: self.limit, in_transaction: false })
    }
}

/// A connection of the pool, for one call.
///
/// sqlx takes a connection that was left in the midst of something back as soon as the server has
/// answered, however long that takes: a few that hang for ever would use up the pool. One of these
/// is closed if it does not answer in time.
pub(super) struct Lent {
    /// There until it is given back or dropped.
    connection: Option<PoolConnection<Postgres>>,
    limit: Duration,
    in_transaction: bool,
}

impl Lent {
    /// Ends the call in good order.
    pub(super) fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().expect(LENT)
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect(LENT)
    }
}

impl Drop for Lent {
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

/// Whether an error is the end of the connection, rather than an answer to what was asked.
pub(super) fn is_lost(error: &Error) -> bool {
    match error {
        Error::Io(_) => true,
        Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        _ => false,
    }
}

const LENT: &str = "taken only by those who end it";
