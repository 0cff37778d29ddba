use std::{
    fs::OpenOptions,
    io::ErrorKind,
    path::{Path, PathBuf, absolute},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions, Executor, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use tokio::time::{sleep, timeout};

use super::{
    SqliteStore,
    connections::{ConnectionQueue, SqliteDatabase},
    errors::{FileError, SqlFailure, before_commit, is_busy},
    statements::{Statements, TablePrefix},
};
use crate::{
    model::Invalid,
    store::{StoreError, error::TimedOut},
};

/// Options for opening a [`SqliteStore`].
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use keyward::store::SqliteOptions;
///
/// // In the service's own database file, beside its own tables:
/// let store = SqliteOptions::new()
///     .prefix("api_")
///     .timeout(Duration::from_millis(500))
///     .open("/var/lib/app/app.db")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SqliteOptions {
    prefix: TablePrefix,
    timeout: Duration,
    readers: usize,
}

impl SqliteOptions {
    /// Returns the defaults: tables `keyward_…`, four connections for reads, a timeout of 2 s.
    pub fn new() -> Self {
        let prefix = TablePrefix("keyward_".into());
        Self { prefix, timeout: Duration::from_secs(2), readers: 4 }
    }

    /// Sets the prefix of all table names. Defaults to `keyward_`.
    ///
    /// A prefix MUST consist of 1 to 40 lower-case letters, digits and underscores, begin with a
    /// letter, and not begin with `sqlite_`, which SQLite reserves. With another one,
    /// [`open`](SqliteOptions::open) fails.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = TablePrefix(prefix.into());
        self
    }

    fn check_prefix(&self) -> Result<(), Invalid> {
        let TablePrefix(prefix) = &self.prefix;
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let starts_with_letter = prefix.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !starts_with_letter || prefix.len() > 40 || !prefix.bytes().all(is_allowed) {
            let rule = "use 1 to 40 lower-case letters, digits and underscores, a letter first";
            return Err(Invalid::new("prefix", rule));
        }
        if prefix.starts_with("sqlite_") {
            return Err(Invalid::new("prefix", "SQLite reserves names that begin with `sqlite_`"));
        }
        Ok(())
    }

    /// Sets how long a call waits for its turn and for locks of other connections before it fails
    /// as *unavailable*. Defaults to 2 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many connections read concurrently, from 1 to 1000. Defaults to 4. One more
    /// connection writes.
    pub fn readers(mut self, connections: u32) -> Self {
        self.readers = connections.clamp(1, 1_000) as usize;
        self
    }

    /// Opens a file, creates it if it is missing, and migrates its tables.
    ///
    /// # Errors
    /// *Configuration* if the prefix is not valid. *Unavailable* if the file cannot be read and written, is not a database,
    /// or has tables that are newer than this crate.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        self.check_prefix().map_err(StoreError::configuration)?;
        let path = path.as_ref();
        let path: Arc<Path> = create(path)
            .map_err(|error| {
                let path = path.display();
                let message =
                    format!("cannot open the SQLite file {path} to read and write: {error}");
                StoreError::unavailable(message)
            })?
            .into();
        let options = self.connection().filename(&path);
        let writer = Arc::new(ConnectionQueue::new(options.clone(), 1));
        let readers = ConnectionQueue::new(options.pragma("query_only", "ON"), self.readers);
        let database = self.database(path, writer, Arc::new(readers), None);
        database.enter_wal().await?;
        database.migrate(&self.prefix).await?;
        Ok(SqliteStore { database: Arc::new(database) })
    }

    /// Opens a store in memory, which lasts as long as its clones.
    ///
    /// # Errors
    /// If the prefix is not valid, or there is no memory left.
    pub async fn in_memory(self) -> Result<SqliteStore, StoreError> {
        self.check_prefix().map_err(StoreError::configuration)?;
        // A name of this store alone, even beside another version of this crate.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/keyward-{}-{number}", env!("CARGO_PKG_VERSION")));
        let options = self.connection().filename(&path).vfs("memdb").create_if_missing(true);
        let path: Arc<Path> = path.into();
        let keep_alive = match timeout(self.timeout, options.connect()).await {
            Ok(connected) => connected.map_err(|error| before_commit(error.into(), &path))?,
            Err(_) => {
                let error = FileError::new(&path, TimedOut("SQLite", self.timeout));
                return Err(StoreError::unavailable(error));
            }
        };
        // In memory, a reader and a writer lock each other out: they share one connection.
        let shared = Arc::new(ConnectionQueue::new(options, 1));
        let database = self.database(path, shared.clone(), shared, Some(keep_alive));
        database.migrate(&self.prefix).await?;
        Ok(SqliteStore { database: Arc::new(database) })
    }

    fn connection(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .busy_timeout(self.timeout)
            .foreign_keys(true)
            // An acknowledged change also survives a power failure.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging()
    }

    fn database(
        &self,
        path: Arc<Path>,
        writer: Arc<ConnectionQueue>,
        readers: Arc<ConnectionQueue>,
        keep_alive: Option<SqliteConnection>,
    ) -> SqliteDatabase {
        let sql = Statements::new(&self.prefix);
        let timeout = self.timeout;
        SqliteDatabase { path, writer, readers, sql, timeout, keep_alive }
    }
}

impl SqliteStore {
    /// Opens a file, creates it with mode 0600 if it is missing, and migrates its tables.
    /// [`SqliteOptions`] has more settings.
    ///
    /// # Errors
    /// As [`SqliteOptions::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        SqliteOptions::new().open(path).await
    }

    /// Opens a store in memory, for tests. It lasts as long as its clones.
    ///
    /// # Errors
    /// If there is no memory left.
    pub async fn in_memory() -> Result<Self, StoreError> {
        SqliteOptions::new().in_memory().await
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates the file with mode 0600 unless it exists; SQLite gives its log files the same mode.
/// Returns an absolute path, which SQLite cannot mistake for a URI or for `:memory:`.
fn create(path: &Path) -> Result<PathBuf, std::io::Error> {
    let path = absolute(path)?;
    let mut file = OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_access(&path)?,
        created => drop(created?),
    }
    Ok(path)
}

/// Refuses a file that can be opened, but not written: SQLite would open it, and fail at the first change. The file is
/// not opened here, because closing it would release the locks that this process has on it.
fn check_access(path: &Path) -> Result<(), std::io::Error> {
    #[cfg(unix)]
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)?;
    #[cfg(not(unix))]
    if std::fs::metadata(path)?.permissions().readonly() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

impl SqliteDatabase {
    /// Switches the file to a write-ahead log, with which readers and a writer do not block each
    /// other. This is the one statement for which SQLite itself does not wait for locks.
    async fn enter_wal(&self) -> Result<(), StoreError> {
        let journal_mode = self.before_commit(async {
            loop {
                match self.set_journal_mode().await {
                    Err(SqlFailure::Database(error)) if is_busy(&error) => {
                        sleep(Duration::from_millis(5)).await;
                    }
                    mode => return mode,
                }
            }
        });
        match journal_mode.await?.as_str() {
            "wal" => Ok(()),
            mode => Err(StoreError::unavailable(format!(
                "the SQLite file {} must be able to have a write-ahead log, but its journal mode \
                 stays {mode:?}: put it on a local disk",
                self.path.display()
            ))),
        }
    }

    async fn set_journal_mode(&self) -> Result<String, SqlFailure> {
        let mut lease = self.writer.lease().await?;
        Ok(sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *lease).await?)
    }

    /// Migrates the tables. Several processes may open a file concurrently: one of them migrates,
    /// and the others wait for its lock and find the tables up to date.
    async fn migrate(&self, prefix: &TablePrefix) -> Result<(), StoreError> {
        let version = self.read(async |connection, _| schema_version(connection, prefix).await);
        if !is_outdated(version.await?)? {
            return Ok(());
        }
        self.write(async |transaction| {
            let version = schema_version(transaction.connection(), prefix).await?;
            if !is_outdated(version)? {
                return Ok(());
            }
            let create = "CREATE TABLE IF NOT EXISTS {t}migrations \
                (version INTEGER NOT NULL PRIMARY KEY) STRICT";
            transaction.connection().execute(prefix.sql(create)).await?;
            for (number, migration) in (1i64..).zip(MIGRATIONS).skip(version) {
                transaction.connection().execute(sqlx::raw_sql(prefix.sql(migration))).await?;
                let record = prefix.sql("INSERT INTO {t}migrations (version) VALUES (?1)");
                sqlx::query(record).bind(number).execute(transaction.connection()).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Returns how many of the migrations the file has.
async fn schema_version(
    connection: &mut SqliteConnection,
    prefix: &TablePrefix,
) -> Result<usize, SqlFailure> {
    let table =
        prefix.sql("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '{t}migrations')");
    if !sqlx::query_scalar(table).fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    let version = prefix.sql("SELECT ifnull(max(version), 0) FROM {t}migrations");
    let version: i64 = sqlx::query_scalar(version).fetch_one(connection).await?;
    Ok(usize::try_from(version).map_err(StoreError::corrupt)?)
}

fn is_outdated(version: usize) -> Result<bool, StoreError> {
    let known = MIGRATIONS.len();
    if version > known {
        return Err(StoreError::unavailable(format!(
            "the SQLite tables are at version {version}, but this crate knows versions up to \
             {known}: upgrade keyward in this process"
        )));
    }
    Ok(version < known)
}

const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_keyward.sql")];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commits_are_synced_to_disk() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new();
        let store = options.open(folder.path().join("keys.db")).await.unwrap();
        let mut writer = store.database.writer.lease().await.unwrap();
        let full = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *writer).await;
        assert_eq!(full.ok(), Some(2));
    }
}
