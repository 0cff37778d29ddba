use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    PostgresStore,
    connections::Connections,
    feed::Listener,
    migrate::migrate,
    search::Search,
    transaction::{Names, TIMEOUT},
};
use crate::{
    model::Invalid,
    store::{StoreError, coalesced::CoalescedLookups},
};

/// How a [`PostgresStore`] is connected and what its tables are called.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use keyward::store::PostgresOptions;
///
/// let store = PostgresOptions::new()
///     .schema("auth")?
///     .prefix("api_")?
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
    /// Tables `keyward_…` in the schema that comes first in the server's search path.
    pub fn new() -> Self {
        Self {
            schema: None,
            prefix: "keyward_".into(),
            timeout: TIMEOUT,
            connections: 10,
            migrate: true,
            pooler: false,
        }
    }

    /// The schema of the tables; it has to exist.
    ///
    /// # Errors
    /// If it is not 1 to 40 lower-case letters, digits and underscores, beginning with a letter.
    pub fn schema(mut self, schema: &str) -> Result<Self, Invalid> {
        self.schema = Some(word("schema", schema)?);
        Ok(self)
    }

    /// What the names of all tables begin with.
    ///
    /// # Errors
    /// As [`schema`](PostgresOptions::schema).
    pub fn prefix(mut self, prefix: &str) -> Result<Self, Invalid> {
        self.prefix = word("prefix", prefix)?;
        Ok(self)
    }

    /// After how long a call gives up as *unavailable*; 2 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many connections a pool of its own may have; 10 by default. Has no effect on the host's.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Works through pgbouncer in transaction mode: prepares nothing, reads in transactions, does
    /// not LISTEN, but polls the change feed. pgbouncer has to have
    /// `ignore_startup_parameters = extra_float_digits`.
    ///
    /// Needed with every version: without this, a LISTEN would stay behind on one of the pooler's
    /// connections and disturb whoever gets it next. It makes three round trips of the one of a
    /// look-up; a pool in session mode, or past the pooler, is the faster choice.
    pub fn through_transaction_pooler(mut self) -> Self {
        self.pooler = true;
        self
    }

    /// Creates and alters no tables: the host runs the files in `migrations/postgres` itself, each in
    /// one transaction, with its own prefix in the place of `keyward_`.
    pub fn without_migration(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// Connects, with a pool of its own.
    ///
    /// # Errors
    /// If the server cannot be reached, or its tables are newer than this crate.
    pub async fn connect(self, url: &str) -> Result<PostgresStore, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(StoreError::unavailable)?;
        let options = options.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(self.connections)
            .acquire_timeout(self.timeout)
            // The first statement of a call shows as well whether the connection is still there.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        self.with_pool(pool).await
    }

    /// Uses the host's own pool.
    ///
    /// # Errors
    /// As [`connect`](PostgresOptions::connect).
    pub async fn with_pool(self, pool: PgPool) -> Result<PostgresStore, StoreError> {
        let Self { schema, prefix, timeout, migrate: wanted, pooler, .. } = self;
        let names = Arc::new(Names { schema, prefix, prepare: !pooler });
        let connections = Connections { pool, limit: timeout, stays: !pooler };
        let lookups = Arc::new(CoalescedLookups::new(Search::new(connections.clone(), &names)));
        let listener = Arc::new(Listener::new(connections.clone(), names.clone()));
        let store = PostgresStore { names, connections, lookups, listener };
        migrate(&store, wanted).await?;
        Ok(store)
    }
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A name that needs no quotes and, with what is appended to it, is not cut by the server.
fn word(what: &'static str, text: &str) -> Result<String, Invalid> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if begins && text.len() <= 40 && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        let why = "use 1 to 40 lower-case letters, digits and underscores, beginning with a letter";
        Err(Invalid::new(what, why))
    }
}
