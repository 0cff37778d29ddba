use std::{sync::Arc, time::Duration};

use sha2::Digest as _;
use sqlx::{
    AssertSqlSafe, Executor, FromRow, Postgres, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgRow},
    query::{QueryAs, QueryScalar},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    connections::{Connections, Lease},
    errors::{PostgresFailure, at_commit},
    records::{Statement, bind_events, uuid},
};
use crate::{
    audit::AuditEvent,
    model::{Owner, Timestamp},
    store::{StoreError, feed_position::MAX_TAG},
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
}

/// A write transaction. Dropped before the commit, it is rolled back.
pub(super) struct Transaction<'a> {
    pub(super) connection: Lease,
    pub(super) tables: &'a TableNames,
    deadline: Instant,
}

impl PostgresDatabase {
    pub(super) fn sql(&self, template: &str) -> SqlStr {
        self.tables.sql(template)
    }

    /// Begins a transaction in one round trip. The server itself ends a transaction that this
    /// process leaves open, so that a frozen node does not keep locks that other nodes need.
    pub(super) async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        self.begin_within(self.connections.limit).await
    }

    /// Begins a transaction with a time limit of its own.
    pub(super) async fn begin_within(
        &self,
        limit: Duration,
    ) -> Result<Transaction<'_>, StoreError> {
        let deadline = Instant::now() + limit;
        let millis = limit.as_millis().max(1);
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL lock_timeout = {millis}; SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {millis}; \
             SELECT set_config('synchronous_commit', 'on', true) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
        );
        let begin = self.connections.begin(AssertSqlSafe(begin).into_sql_str());
        let connection = self.connections.before_commit(self.connections.limit, begin).await?;
        Ok(Transaction { connection, tables: &self.tables, deadline })
    }

    /// Runs the steps of a transaction within the time that is left of its call.
    pub(super) async fn run<T>(
        &self,
        transaction: &mut Transaction<'_>,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, PostgresFailure>,
    ) -> Result<T, StoreError> {
        self.connections.before_commit(transaction.time_left(), steps(transaction)).await
    }

    /// Runs one change in one transaction. `has_changed` says whether there is anything to commit.
    pub(super) async fn write<T>(
        &self,
        steps: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, PostgresFailure>,
        has_changed: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let mut transaction = self.begin().await?;
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
        Ok(())
    }
}

impl Transaction<'_> {
    /// Returns how much of the call's time limit is left.
    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Locks an owner until the commit: writes that count its keys run one after the other.
    pub(super) async fn lock_owner(&mut self, owner: &Owner) -> Result<(), PostgresFailure> {
        let lock = self.tables.advisory_lock(&["owner", owner.tenant(), owner.account()]);
        let sql = "SELECT pg_advisory_xact_lock($1)";
        self.tables.query(sql).bind(lock).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Writes the events of a change to the audit log, and their keys to the change feed.
    pub(super) async fn log(&mut self, events: &[AuditEvent]) -> Result<(), PostgresFailure> {
        let Some(at) = events.first().map(|event| event.at) else { return Ok(()) };
        self.record_events(events).await?;
        let keys: Vec<_> = events.iter().filter_map(|event| event.key_id.map(uuid)).collect();
        self.append_to_feed(&keys, at).await
    }

    /// Appends keys to the change feed and wakes its listeners. The feed's row stays locked from
    /// here to the commit, so entries become visible in the order of their numbers.
    pub(super) async fn append_to_feed(
        &mut self,
        keys: &[Uuid],
        at: Timestamp,
    ) -> Result<(), PostgresFailure> {
        if keys.is_empty() {
            return Ok(());
        }
        // After a failover or a restored backup, the random tag distinguishes a new entry from the
        // lost entry that had the same number.
        let sql = "WITH feed AS (UPDATE {t}feed SET last_number = last_number + $1, \
                   last_tag = floor(random() * $4)::bigint \
                   RETURNING last_number - $1 AS before, last_tag) \
                   INSERT INTO {t}changes (number, tag, at, key_id) \
                   SELECT feed.before + n, feed.last_tag, $2, key_id FROM feed, unnest($3::uuid[]) WITH ORDINALITY AS k (key_id, n)";
        self.tables
            .query(sql)
            .bind(keys.len() as i64)
            .bind(at.as_unix_micros())
            .bind(keys)
            .bind(MAX_TAG as f64)
            .execute(&mut *self.connection)
            .await?;
        self.tables
            .query("SELECT pg_notify($1, '')")
            .bind(self.tables.channel())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Writes events; an id that exists is skipped. Returns the number of events written.
    pub(super) async fn record_events(
        &mut self,
        events: &[AuditEvent],
    ) -> Result<u32, PostgresFailure> {
        let sql = "INSERT INTO {t}audit (id, at, kind, success, tenant, account, key_id, actor, ip, \
                   user_agent, reason, count) SELECT * FROM unnest($1::uuid[], $2::bigint[], \
                   $3::text[], $4::boolean[], $5::text[], $6::text[], $7::uuid[], $8::text[], \
                   $9::text[], $10::text[], $11::text[], $12::bigint[]) ON CONFLICT (id) DO NOTHING";
        let insert = bind_events(self.tables.query(sql), events);
        let done = insert.execute(&mut *self.connection).await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }
}

/// The server truncates longer names, and rejects them as channels.
const MAX_NAME_LENGTH: usize = 63;
