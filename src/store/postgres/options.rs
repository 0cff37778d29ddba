use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Executor, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    PostgresStore,
    connections::Connections,
    feed::FeedListener,
    reads::KeyLookup,
    transaction::{PostgresDatabase, TableNames},
};
use crate::{
    model::Invalid,
    store::{StoreError, coalesced::CoalescedLookups},
};

/// Options for connecting a [`PostgresStore`].
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use keyward::store::PostgresOptions;
///
/// let store = PostgresOptions::new()
///     .schema("auth")
///     .prefix("api_")
///     .timeout(Duration::from_millis(500))
///     .connect("postgres://localhost/app")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PostgresOptions {
    schema: Option<String>,
    prefix: String,
    timeout: Duration,
    connections: u32,
    migrate: bool,
    pooler: bool,
}

impl PostgresOptions {
    /// Returns the defaults: tables `keyward_…` in the first schema of the server's search path, a
    /// timeout of 2 s, and 10 connections.
    pub fn new() -> Self {
        Self {
            schema: None,
            prefix: "keyward_".into(),
            timeout: Duration::from_secs(2),
            connections: 10,
            migrate: true,
            pooler: false,
        }
    }

    /// Sets the schema of the tables, which must exist. Defaults to the first schema of the
    /// server's search path. It must be 1 to 40 lower-case letters, digits and underscores,
    /// beginning with a letter; otherwise [`connect`](PostgresOptions::connect) fails.
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets the prefix of all table names. Defaults to `keyward_`. The rules are those of
    /// [`schema`](PostgresOptions::schema).
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long a call may take before it fails as *unavailable*. Defaults to 2 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of connections of the store's own pool. Defaults to 10; 0 is treated
    /// as 1. Has no effect on a pool passed to [`with_pool`](PostgresOptions::with_pool). Look-ups and
    /// the change feed use as many more, up to 6, and the listener one more.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Works through pgbouncer in transaction mode: prepares no statements, reads in transactions,
    /// and polls the change feed instead of using LISTEN. pgbouncer must have
    /// `ignore_startup_parameters = extra_float_digits`.
    ///
    /// Required with every version of pgbouncer: without it, a LISTEN would stay on one of the
    /// pooler's connections and disturb the next client of that connection. A lookup then takes
    /// three round trips instead of one; a pool in session mode, or a direct connection, is faster.
    pub fn through_transaction_pooler(mut self) -> Self {
        self.pooler = true;
        self
    }

    /// Creates and alters no tables. Run the files in `migrations/postgres` yourself, each in one
    /// transaction, with your prefix in the place of `keyward_`.
    pub fn without_migration(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// Connects with a pool of the store's own, and migrates the tables.
    ///
    /// # Errors
    /// *Configuration* if the URL is malformed, or a schema or prefix is not valid. *Unavailable* if the server cannot be reached, or refuses the user,
    /// its password or the database, or if the tables are newer than this crate. The text names the cause.
    pub async fn connect(self, url: &str) -> Result<PostgresStore, StoreError> {
        let invalid = |error: &dyn std::fmt::Display| {
            StoreError::configuration(format!("invalid PostgreSQL URL: {error}"))
        };
        // sqlx reads a URL of any scheme.
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(invalid(&"use postgres://user:password@host:port/database"));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| invalid(&error))?;
        let options = options.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(self.connections)
            .acquire_timeout(self.timeout)
            // The first statement of a call shows whether the connection is alive.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        self.with_pool(pool).await
    }

    /// Uses the service's own pool, and migrates the tables. Look-ups and the change feed use up to 6
    /// more connections with the same options, so that they do not wait for the pool.
    ///
    /// # Errors
    /// As [`connect`](PostgresOptions::connect).
    pub async fn with_pool(self, pool: PgPool) -> Result<PostgresStore, StoreError> {
        let Self { schema, prefix, timeout, migrate, pooler, .. } = self;
        for (field, name) in schema.iter().map(|name| ("schema", name)).chain([("prefix", &prefix)])
        {
            check_identifier(field, name).map_err(StoreError::configuration)?;
        }
        let tables = Arc::new(TableNames { schema, prefix, prepare: !pooler });
        let connections = Connections::new(pool, timeout, !pooler);
        connections.check_server().await?;
        let reserved = connections.reserved();
        let announcements = Arc::default();
        let database = PostgresDatabase { tables, connections, reserved, announcements };
        database.migrate(migrate).await?;
        let lookups = Arc::new(CoalescedLookups::new(KeyLookup::new(&database)));
        let listener = Arc::new(FeedListener::new(database.clone()));
        Ok(PostgresStore { database, lookups, listener })
    }
}

impl PostgresStore {
    /// Connects with a pool of the store's own, and migrates the tables. [`PostgresOptions`] has more
    /// settings.
    ///
    /// # Errors
    /// As [`PostgresOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        PostgresOptions::new().connect(url).await
    }

    /// Uses the service's own pool, and migrates the tables.
    ///
    /// See [The pool](PostgresStore#the-pool) for the settings that matter.
    ///
    /// # Errors
    /// As [`connect`](PostgresStore::connect).
    pub async fn with_pool(pool: PgPool) -> Result<Self, StoreError> {
        PostgresOptions::new().with_pool(pool).await
    }
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks that a name needs no quotes, and stays within the server's limit with what is appended.
fn check_identifier(field: &'static str, name: &str) -> Result<(), Invalid> {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let starts_with_letter = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if starts_with_letter && name.len() <= 40 && name.bytes().all(is_allowed) {
        Ok(())
    } else {
        let rule =
            "use 1 to 40 lower-case letters, digits and underscores, beginning with a letter";
        Err(Invalid::new(field, rule))
    }
}

impl PostgresDatabase {
    /// Checks the version of the tables, and migrates them if `allowed`. Several nodes may start
    /// concurrently: one of them migrates, and the others wait for its lock and find the tables up
    /// to date.
    async fn migrate(&self, allowed: bool) -> Result<(), StoreError> {
        let (version, known) = (self.schema_version().await?, MIGRATIONS.len());
        if version > known {
            return Err(StoreError::unavailable(format!(
                "the PostgreSQL tables are at version {version}, but this crate knows versions up \
                 to {known}: upgrade keyward on this node"
            )));
        }
        if version == known {
            return Ok(());
        }
        if !allowed {
            return Err(StoreError::unavailable(format!(
                "the PostgreSQL tables are at version {version} of {known}: run the files in \
                 migrations/postgres"
            )));
        }
        // Longer than the timeout of a call: tables may be large, and another node may be migrating.
        let mut transaction = self.begin(MIGRATION_LIMIT, None).await?;
        self.run(&mut transaction, async |transaction| {
            let lock = self.tables.advisory_lock(&["migration"]);
            let sql = "SELECT pg_advisory_xact_lock($1)";
            let connection = &mut transaction.connection;
            self.tables.query(sql).bind(lock).execute(&mut **connection).await?;
            let exists = "SELECT to_regclass('{t}migrations') IS NOT NULL";
            let exists = self.tables.query_scalar(exists).fetch_one(&mut **connection);
            let version: i64 = if exists.await? {
                let version = "SELECT coalesce(max(version), 0) FROM {t}migrations";
                self.tables.query_scalar(version).fetch_one(&mut **connection).await?
            } else {
                0
            };
            for migration in MIGRATIONS.iter().skip(checked_version(version)?) {
                connection.execute(sqlx::raw_sql(self.sql(&template(migration)))).await?;
            }
            Ok(())
        })
        .await?;
        self.commit(transaction).await
    }

    /// Returns how many of the migrations the database has.
    async fn schema_version(&self) -> Result<usize, StoreError> {
        let table = self.sql("SELECT 1 WHERE to_regclass('{t}migrations') IS NOT NULL");
        if self.connections.rows(|| sqlx::query(table.clone())).await?.is_empty() {
            return Ok(0);
        }
        let version = self.sql("SELECT coalesce(max(version), 0) AS version FROM {t}migrations");
        let rows = self.connections.rows(|| sqlx::query(version.clone())).await?;
        let version = rows.first().map_or(Ok(0), |row| row.try_get("version"));
        checked_version(version.map_err(|error| self.connections.classify(error.into()))?)
    }
}

fn checked_version(version: i64) -> Result<usize, StoreError> {
    usize::try_from(version).map_err(StoreError::corrupt)
}

/// Turns a migration file into a statement template for any schema and prefix. The files are plain
/// SQL, which can also be run by hand; each records its own version.
fn template(migration: &str) -> String {
    // An index is created in the schema of its table; its own name must not have a schema.
    migration.replace("INDEX keyward_", "INDEX {p}").replace("keyward_", "{t}")
}

const MIGRATION_LIMIT: Duration = Duration::from_secs(600);
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/postgres/0001_keyward.sql")];
