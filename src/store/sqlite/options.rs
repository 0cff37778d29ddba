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
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use tokio::time::sleep;

use super::{
    Inner, SqliteStore,
    errors::{Failure, with_timeout},
    lane::Lane,
    statements::{Prefix, Statements},
};
use crate::{model::Invalid, store::StoreError};

/// How a [`SqliteStore`] is opened and what its tables are called.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use keyward::store::SqliteOptions;
///
/// // In the file that the service has anyway, beside its own tables:
/// let store = SqliteOptions::new()
///     .prefix("api_")?
///     .timeout(Duration::from_millis(500))
///     .open("/var/lib/app/app.db")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SqliteOptions {
    prefix: Prefix,
    timeout: Duration,
    readers: usize,
}

impl SqliteOptions {
    /// Tables `keyward_…`, four connections for reading, and 2 s before a call gives up.
    pub fn new() -> Self {
        let prefix = Prefix("keyward_".into());
        Self { prefix, timeout: Duration::from_secs(2), readers: 4 }
    }

    /// What the names of all tables begin with.
    ///
    /// # Errors
    /// If it is not 1 to 40 lower-case letters, digits and underscores, beginning with a letter; or
    /// begins with `sqlite_`, which SQLite keeps for itself.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, Invalid> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let begins = prefix.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !begins || prefix.len() > 40 || !prefix.bytes().all(plain) {
            let why = "use 1 to 40 lower-case letters, digits and underscores, a letter first";
            return Err(Invalid::new("prefix", why));
        }
        if prefix.starts_with("sqlite_") {
            return Err(Invalid::new("prefix", "SQLite keeps `sqlite_` for itself"));
        }
        self.prefix = Prefix(prefix.into());
        Ok(self)
    }

    /// How long a call waits for its turn, and for what other connections have locked, before it
    /// gives up as *unavailable*; 2 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many connections read at the same time; 4 by default. There is always one that writes.
    pub fn readers(mut self, connections: u32) -> Self {
        self.readers = connections.clamp(1, 1_000) as usize;
        self
    }

    /// Opens a file, which is created if there is none, and brings its tables up to date.
    ///
    /// # Errors
    /// If the file cannot be opened or is no database, or its tables are newer than this crate.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        let path = path.as_ref();
        let path = create(path)
            .map_err(|error| StoreError::unavailable(format!("{}: {error}", path.display())))?;
        let options = self.connection().filename(&path);
        let writer = Arc::new(Lane::new(options.clone(), 1));
        let readers = Arc::new(Lane::new(options.pragma("query_only", "ON"), self.readers));
        enter_wal(&writer, self.timeout).await?;
        let store = self.store(path, writer, readers, None);
        store.migrate(&self.prefix).await?;
        Ok(store)
    }

    /// A store that lasts as long as its clones.
    ///
    /// # Errors
    /// If there is no memory left.
    pub async fn in_memory(self) -> Result<SqliteStore, StoreError> {
        // The name is that of this store alone, also beside another version of this crate.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/keyward-{}-{number}", env!("CARGO_PKG_VERSION")));
        let options = self.connection().filename(&path).vfs("memdb").create_if_missing(true);
        let anchor = with_timeout(self.timeout, async { Ok(options.connect().await?) }).await?;
        // In memory, a reader and a writer lock each other out: they take turns.
        let only = Arc::new(Lane::new(options, 1));
        let store = self.store(path, only.clone(), only, Some(anchor));
        store.migrate(&self.prefix).await?;
        Ok(store)
    }

    fn connection(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .busy_timeout(self.timeout)
            .foreign_keys(true)
            // What is acknowledged survives the loss of power, too.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging()
    }

    fn store(
        &self,
        path: PathBuf,
        writer: Arc<Lane>,
        readers: Arc<Lane>,
        anchor: Option<sqlx::SqliteConnection>,
    ) -> SqliteStore {
        let sql = Statements::new(&self.prefix);
        let timeout = self.timeout;
        SqliteStore { inner: Arc::new(Inner { path, writer, readers, sql, timeout, anchor }) }
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes the file for the eyes of its owner only; SQLite gives its log files the same mode. Answers
/// with a path that SQLite cannot take for a URI or for `:memory:`.
fn create(path: &Path) -> Result<PathBuf, std::io::Error> {
    let path = absolute(path)?;
    let mut file = OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(path),
    }
}

/// Readers and a writer do not wait for each other when there is a write-ahead log. The switch to
/// it is the one statement for which SQLite itself does not wait until others are done.
async fn enter_wal(writer: &Lane, limit: Duration) -> Result<(), StoreError> {
    let entered = with_timeout(limit, async {
        loop {
            match journal_mode(writer).await {
                Err(failure) if failure.is_busy() => sleep(Duration::from_millis(5)).await,
                mode => return mode,
            }
        }
    });
    match entered.await?.as_str() {
        "wal" => Ok(()),
        mode => Err(StoreError::unavailable(format!(
            "the file cannot have a write-ahead log, its journal mode stays {mode:?}"
        ))),
    }
}

async fn journal_mode(writer: &Lane) -> Result<String, Failure> {
    let mut lease = writer.lease().await?;
    Ok(sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *lease).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_acknowledged_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new();
        let store = options.open(folder.path().join("keys.db")).await.unwrap();
        let mut writer = store.inner.writer.lease().await.unwrap();
        let full = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *writer).await;
        assert_eq!(full.ok(), Some(2));
    }
}
