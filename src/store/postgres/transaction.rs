use std::{
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use sha2::Digest as _;
use sqlx::{
    AssertSqlSafe, Executor, FromRow, Postgres, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgRow},
    query::{QueryAs, QueryScalar},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    connections::{Connections, Lease},
    errors::{SqlFailure, at_commit},
    records::{Statement, bind_events},
};
use crate::{
    audit::AuditEvent,
    model::{Owner, Timestamp},
    store::StoreError,
};

/// Schema and prefix of the tables. Both consist of letters, digits and underscores.
#[derive(Debug)]
pub(super) struct TableNames {
    pub(super) schema: Option<String>,
    pub(super) prefix: String,
    /// Whether statements are prepared. A transaction pooler loses prepared statements.
    pub(super) prepare: bool,
}

impl TableNames {
    /// Completes a statement: `{t}` becomes the qualified prefix, `{p}` the bare one.
    pub(super) fn sql(&self, template: &str) -> SqlStr {
        let Self { schema, prefix, .. } = self;
        let qualified = match schema {
            Some(schema) => format!("\"{schema}\".{prefix}"),
            None => prefix.clone(),
        };
        let sql = template.replace("{t}", &qualified).replace("{p}", prefix);
        // Safe: schema and prefix consist of letters, digits and underscores only.
        AssertSqlSafe(sql).into_sql_str()
    }

    pub(super) fn query<'q>(&self, template: &str) -> Statement<'q> {
        sqlx::query(self.sql(template)).persistent(self.prepare)
    }

    /// Makes a statement that returns one value.
    pub(super) fn query_scalar<'q, T>(
        &self,
        template: &str,
    ) -> QueryScalar<'q, Postgres, T, PgArguments>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_scalar(self.sql(template)).persistent(self.prepare)
    }

    /// Makes a statement that returns rows of `T`.
    pub(super) fn query_as<'q, T>(&self, template: &str) -> QueryAs<'q, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(self.sql(template)).persistent(self.prepare)
    }

    /// Returns the channel on which changes are announced.
    pub(super) fn channel(&self) -> String {
        let channel = format!("{}_{}changes", self.schema.as_deref().unwrap_or(""), self.prefix);
        if channel.len() <= MAX_NAME_LENGTH {
            channel
        } else {
            format!("_{:x}", self.advisory_lock(&["changes"]))
        }
    }

    /// Returns the number of an advisory lock. All services on a database share these numbers.
    pub(super) fn advisory_lock(&self, what: &[&str]) -> i64 {
        let mut hash = sha2::Sha256::new_with_prefix("keyward advisory lock");
        for part in [&[self.schema.as_deref().unwrap_or(""), &self.prefix], what].concat() {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let (first, _) = bytes.as_chunks();
        i64::from_be_bytes(first[0])
    }
}

/// The tables of a store and the connections to them.
#[derive(Clone)]
pub(super) struct PostgresDatabase {
    pub(super) tables: Arc<TableNames>,
    pub(super) connections: Connections,
    /// For look-ups and the change feed.
    pub(super) reserved: Connections,
    pub(super) announcements: Arc<Announcements>,
}

/// The commits of this node that were not announced yet, and the task that announces them.
#[derive(Default)]
pub(super) struct Announcements {
    pub(super) commits: AtomicUsize,
    pub(super) task: Mutex<Option<JoinHandle<()>>>,
}

/// A write transaction. Dropped before the commit, it is rolled back.
pub(super) struct Transaction<'a> {
    pub(super) connection: Lease,
    pub(super) tables: &'a TableNames,
    deadline: Instant,
    /// Whether the change feed gets an entry.
    enters_feed: bool,
}

impl PostgresDatabase {
    pub(super) fn sql(&self, template: &str) -> SqlStr {
        self.tables.sql(template)
    }

    /// Begins a transaction in one round trip. The server itself ends a transaction that this
    /// process leaves open, so that a frozen node does not keep locks that other nodes need.
    ///
    /// `lock` is the number of an advisory lock that is held until the commit.
    pub(super) async fn begin(
        &self,
        limit: Duration,
        lock: Option<i64>,
    ) -> Result<Transaction<'_>, StoreError> {
        let deadline = Instant::now() + limit;
        let millis = limit.as_millis().max(1);
        let lock = lock.map(|lock| format!("; SELECT pg_advisory_xact_lock({lock})"));
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL lock_timeout = {millis}; SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {millis}; \
             SELECT set_config('synchronous_commit', 'on', true) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write'){}",
            lock.unwrap_or_default()
        );
        let begin = self.connections.begin(AssertSqlSafe(begin).into_sql_str());
        let connection = self.connections.before_commit(self.connections.limit, begin).await?;
        Ok(Transaction { connection, tables: &self.tables, deadline, enters_feed: false })
    }

    /// Runs the steps of a transaction within the time that is left of its call.
    pub(super) async fn run<T>(
        &self,
        transaction: &mut Transaction<'_>,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, SqlFailure>,
    ) -> Result<T, StoreError> {
        self.connections.before_commit(transaction.time_left(), steps(transaction)).await
    }

    /// Runs one change in one transaction. `has_changed` says whether there is anything to commit.
    pub(super) async fn write<T>(
        &self,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, SqlFailure>,
        has_changed: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        self.write_locked(None, steps, has_changed).await
    }

    /// As [`write`](Self::write); locks an owner before: writes that count its keys run one after the other.
    pub(super) async fn write_of_owner<T>(
        &self,
        owner: &Owner,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, SqlFailure>,
        has_changed: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let lock = self.tables.advisory_lock(&["owner", owner.tenant(), owner.account()]);
        self.write_locked(Some(lock), steps, has_changed).await
    }

    async fn write_locked<T>(
        &self,
        lock: Option<i64>,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, SqlFailure>,
        has_changed: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let mut transaction = self.begin(self.connections.limit, lock).await?;
        let outcome = self.run(&mut transaction, steps).await?;
        if has_changed(&outcome) {
            self.commit(transaction).await?;
        }
        Ok(outcome)
    }

    /// Commits a transaction. Only here can the outcome of a call become unknown.
    pub(super) async fn commit(&self, mut transaction: Transaction<'_>) -> Result<(), StoreError> {
        let limit = transaction.time_left();
        if limit.is_zero() {
            let error = self.connections.timed_out(self.connections.limit);
            return Err(StoreError::unavailable(error));
        }
        match timeout(limit, transaction.connection.execute("COMMIT")).await {
            Ok(result) => result.map_err(|error| at_commit(&self.connections.server, error))?,
            Err(_) => return Err(StoreError::outcome_unknown(self.connections.timed_out(limit))),
        };
        transaction.connection.give_back();
        if transaction.enters_feed {
            self.announce_changes();
        }
        Ok(())
    }
}

impl Transaction<'_> {
    /// Returns how much of the call's time limit is left.
    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs a step that changes keys. If it changed a row, writes the events of the change to the audit
    /// log and their keys to the change feed, and returns true.
    ///
    /// `step` is the common table expression `changed`, possibly after others. `bind` binds its
    /// parameters, which begin after those of the events, with `$13`.
    pub(super) async fn change<'q>(
        &mut self,
        step: &str,
        events: &'q [AuditEvent],
        bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<bool, SqlFailure> {
        // Feed entries get their numbers after the commit, so that changes do not wait for each other.
        let sql = format!(
            "WITH {step}, events AS (SELECT * FROM {EVENTS} WHERE EXISTS (SELECT FROM changed)), \
             logged AS ({INSERT_EVENTS} SELECT * FROM events ON CONFLICT (id) DO NOTHING) \
             INSERT INTO {{t}}unnumbered_changes (at, key_id) \
             SELECT at, key_id FROM events WHERE key_id IS NOT NULL"
        );
        let statement = bind(bind_events(self.tables.query(&sql), events));
        let entries = statement.execute(&mut *self.connection).await?.rows_affected();
        self.enters_feed |= entries > 0;
        Ok(entries > 0)
    }

    /// Enters the keys of an owner that are not revoked into the change feed. Returns their number.
    pub(super) async fn announce(
        &mut self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u64, SqlFailure> {
        let sql = "INSERT INTO {t}unnumbered_changes (at, key_id) SELECT $3, id FROM {t}keys \
            WHERE tenant = $1 AND account = $2 AND revoked_at IS NULL";
        let statement = self.tables.query(sql).bind(owner.tenant()).bind(owner.account());
        let statement = statement.bind(at.as_unix_micros());
        let entries = statement.execute(&mut *self.connection).await?.rows_affected();
        self.enters_feed |= entries > 0;
        Ok(entries)
    }

    /// Writes events; an id that exists is skipped. Returns the number of events written.
    pub(super) async fn record_events(&mut self, events: &[AuditEvent]) -> Result<u32, SqlFailure> {
        let sql = format!("{INSERT_EVENTS} SELECT * FROM {EVENTS} ON CONFLICT (id) DO NOTHING");
        let insert = bind_events(self.tables.query(&sql), events);
        let done = insert.execute(&mut *self.connection).await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }
}

/// Events that are bound by [`bind_events`].
const EVENTS: &str = "unnest($1::uuid[], $2::bigint[], $3::text[], $4::boolean[], $5::text[], \
    $6::text[], $7::uuid[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[]) \
    AS e (id, at, kind, success, tenant, account, key_id, actor, ip, user_agent, reason, count)";
const INSERT_EVENTS: &str = "INSERT INTO {t}audit \
    (id, at, kind, success, tenant, account, key_id, actor, ip, user_agent, reason, count)";
/// Returns an expression that makes a query fail on a standby, which may lag: there, it reads a setting that does not
/// exist. All that a cache trusts is read by it: look-ups, the change feed, and the clock.
pub(super) fn on_primary(expression: &str, of_type: &str) -> String {
    format!(
        "CASE WHEN pg_is_in_recovery() THEN current_setting('keyward.this_server_is_a_standby')::{of_type} \
         ELSE {expression}::{of_type} END"
    )
}

/// The server truncates longer names, and rejects them as channels.
const MAX_NAME_LENGTH: usize = 63;
