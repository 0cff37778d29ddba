use std::time::Duration;

use sha2::Digest as _;
use sqlx::{
    AssertSqlSafe, Executor, FromRow, Postgres, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgRow},
    query::{QueryAs, QueryScalar},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    PostgresStore,
    connections::Lent,
    errors::{Failure, at_commit, with_timeout},
    rows::{Statement, bind_events, uuid},
};
use crate::{
    audit::AuditEvent,
    model::{Owner, Timestamp},
    store::{StoreError, error::TimedOut, feed_position::MAX_TAG},
};

/// Schema and prefix of the tables; both were checked to be plain words.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) schema: Option<String>,
    pub(super) prefix: String,
    /// Whether what is prepared on a connection is there the next time.
    pub(super) prepare: bool,
}

impl Names {
    /// A statement for these tables: `{t}` becomes the qualified prefix, `{p}` the bare one.
    pub(super) fn sql(&self, template: &str) -> SqlStr {
        let Self { schema, prefix, .. } = self;
        let qualified = match schema {
            Some(schema) => format!("\"{schema}\".{prefix}"),
            None => prefix.clone(),
        };
        let sql = template.replace("{t}", &qualified).replace("{p}", prefix);
        // What was put in are words of letters, digits and underscores.
        AssertSqlSafe(sql).into_sql_str()
    }

    pub(super) fn query<'q>(&self, template: &str) -> Statement<'q> {
        sqlx::query(self.sql(template)).persistent(self.prepare)
    }

    /// A statement that answers with one value.
    pub(super) fn query_scalar<'q, T>(
        &self,
        template: &str,
    ) -> QueryScalar<'q, Postgres, T, PgArguments>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_scalar(self.sql(template)).persistent(self.prepare)
    }

    /// A statement that answers with such rows.
    pub(super) fn query_as<'q, T>(&self, template: &str) -> QueryAs<'q, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(self.sql(template)).persistent(self.prepare)
    }

    /// The channel on which changes are announced.
    pub(super) fn channel(&self) -> String {
        let channel = format!("{}_{}changes", self.schema.as_deref().unwrap_or(""), self.prefix);
        if channel.len() <= MAX_NAME { channel } else { format!("_{:x}", self.lock(&["changes"])) }
    }

    /// A number for an advisory lock, which all hosts of a database share.
    pub(super) fn lock(&self, what: &[&str]) -> i64 {
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

/// A change on its way. Dropped, it is rolled back.
pub(super) struct Change<'a> {
    pub(super) tx: Lent,
    pub(super) names: &'a Names,
    end: Instant,
}

impl PostgresStore {
    pub(super) fn sql(&self, template: &str) -> SqlStr {
        self.names.sql(template)
    }

    /// Begins a change, all in one round trip. The server itself ends what this process leaves
    /// hanging, so that a frozen node does not keep the locks of others.
    pub(super) async fn begin(&self) -> Result<Change<'_>, StoreError> {
        self.begin_within(self.connections.limit).await
    }

    /// Begins a change that may take so long.
    pub(super) async fn begin_within(&self, limit: Duration) -> Result<Change<'_>, StoreError> {
        let end = Instant::now() + limit;
        let millis = limit.as_millis().max(1);
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL lock_timeout = {millis}; SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {millis}; \
             SELECT set_config('synchronous_commit', 'on', true) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
        );
        let begin = self.connections.begin(AssertSqlSafe(begin).into_sql_str());
        let tx = with_timeout(self.connections.limit, begin).await?;
        Ok(Change { tx, names: &self.names, end })
    }

    /// Commits a change if there was anything to change. Only here can its outcome become unknown.
    pub(super) async fn conclude(
        &self,
        mut change: Change<'_>,
        done: bool,
    ) -> Result<(), StoreError> {
        if !done {
            return Ok(());
        }
        let limit = change.left();
        if limit.is_zero() {
            return Err(StoreError::unavailable(TimedOut("PostgreSQL", self.connections.limit)));
        }
        match timeout(limit, change.tx.execute("COMMIT")).await {
            Ok(answer) => answer.map_err(at_commit)?,
            Err(_) => return Err(StoreError::outcome_unknown(TimedOut("PostgreSQL", limit))),
        };
        change.tx.give_back();
        Ok(())
    }
}

impl Change<'_> {
    /// What is left of the time that the call may take.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Makes changes of one owner that count its keys wait for each other.
    pub(super) async fn lock_owner(&mut self, owner: &Owner) -> Result<(), Failure> {
        let lock = self.names.lock(&["owner", owner.tenant(), owner.account()]);
        let sql = "SELECT pg_advisory_xact_lock($1)";
        self.names.query(sql).bind(lock).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Writes the events of a change, and enters its keys into the feed.
    pub(super) async fn log(&mut self, events: &[AuditEvent]) -> Result<(), Failure> {
        let Some(at) = events.first().map(|event| event.at) else { return Ok(()) };
        self.record_events(events).await?;
        let keys: Vec<_> = events.iter().filter_map(|event| event.key_id.map(uuid)).collect();
        self.feed(&keys, at).await
    }

    /// Enters keys into the feed and wakes whoever waits for it. The feed's row stays locked from
    /// here to the commit: numbers become visible in their order.
    pub(super) async fn feed(&mut self, keys: &[Uuid], at: Timestamp) -> Result<(), Failure> {
        if keys.is_empty() {
            return Ok(());
        }
        // The tag tells entries of the same number apart that were written in two lives of the store.
        let sql = "WITH feed AS (UPDATE {t}feed SET last = last + $1, tag = floor(random() * $4)::bigint \
                   RETURNING last - $1 AS before, tag) \
                   INSERT INTO {t}changes (number, tag, at, key_id) \
                   SELECT feed.before + n, feed.tag, $2, key_id FROM feed, unnest($3::uuid[]) WITH ORDINALITY AS k (key_id, n)";
        self.names
            .query(sql)
            .bind(keys.len() as i64)
            .bind(at.as_unix_micros())
            .bind(keys)
            .bind(MAX_TAG as f64)
            .execute(&mut *self.tx)
            .await?;
        self.names
            .query("SELECT pg_notify($1, '')")
            .bind(self.names.channel())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Writes events; one that is there already is passed over.
    pub(super) async fn record_events(&mut self, events: &[AuditEvent]) -> Result<(), Failure> {
        let sql = "INSERT INTO {t}audit (id, at, kind, success, tenant, account, key_id, actor, ip, \
                   user_agent, reason, count) SELECT * FROM unnest($1::uuid[], $2::bigint[], \
                   $3::text[], $4::boolean[], $5::text[], $6::text[], $7::uuid[], $8::text[], \
                   $9::text[], $10::text[], $11::text[], $12::bigint[]) ON CONFLICT (id) DO NOTHING";
        bind_events(self.names.query(sql), events).execute(&mut *self.tx).await?;
        Ok(())
    }
}

/// The server cuts longer names, and refuses them to channels.
const MAX_NAME: usize = 63;
/// How long a call may take, unless it is told otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
