//! All stores that tests run on.

use std::{
    fs,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use keyward::{
    KeyStore, MemoryStore, PostgresStore,
    store::{PostgresOptions, RedisOptions, SqliteOptions},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    log::{self, holds_a_secret},
    servers::{
        postgres::{self, Database},
        redis::{self, Cluster, Reply, Space},
    },
};

/// Handles to one empty store, one per node of a service.
pub type Handles = Vec<Arc<dyn KeyStore>>;

/// Runs a test on each kind of store, empty at first. The output names the store that failed.
pub async fn on_each_store(test: impl AsyncFn(Handles)) {
    println!("on memory");
    test(memory()).await;
    println!("on SQLite");
    let file = SqliteFile::new();
    test(file.open_twice().await).await;
    file.holds_no_secret();
    if let Some(database) = postgres().await {
        println!("on PostgreSQL");
        test(connect_twice(&database).await).await;
        holds_no_secret(&database);
    }
    if let Some(shared) = redis::shared() {
        println!("on Redis");
        let space = shared.space();
        test(redis_twice(&space).await).await;
        let all = dump(&space);
        assert!(all.contains("}meta: "), "the dump contains the records of the store");
        assert!(!holds_a_secret(&all));
    }
    if let Some(cluster) = redis::shared_cluster() {
        println!("on a Redis Cluster");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let options = redis_options(&format!("of-test-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        test(cluster_twice(cluster, &options).await).await;
    }
}

pub fn memory() -> Handles {
    log::watch();
    vec![Arc::new(MemoryStore::new())]
}

/// An SQLite file in a temporary folder, removed when this is dropped.
pub struct SqliteFile(TempDir);

impl SqliteFile {
    pub fn new() -> Self {
        log::watch();
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().join("keys.db")
    }

    /// Copies all files of the folder, whether or not the store is open.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, copy.0.path().join(from.file_name().unwrap())).unwrap();
        }
        copy
    }

    pub async fn open_twice(&self) -> Handles {
        let options = SqliteOptions::new().timeout(PATIENCE);
        let open = async || Arc::new(options.clone().open(self.path()).await.unwrap());
        vec![open().await, open().await]
    }

    /// Checks the file and the files that SQLite keeps next to it. When the last connection is closed, SQLite
    /// moves the write-ahead log into the file and removes it: the check then starts again.
    fn holds_no_secret(&self) {
        while !self.check_all_files() {}
    }

    /// Returns `false` if a file disappeared during the check.
    fn check_all_files(&self) -> bool {
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return false,
                bytes => bytes.unwrap(),
            };
            assert!(!holds_a_secret(&String::from_utf8_lossy(&bytes)), "{}", path.display());
        }
        true
    }
}

/// Returns a database with Keyward's tables, or `None` after reporting that PostgreSQL is not installed.
pub async fn postgres() -> Option<Database> {
    log::watch();
    static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
    let cluster = postgres::shared()?;
    let template = TEMPLATE.get_or_init(async || {
        let database = cluster.database();
        drop(PostgresStore::connect(database.url()).await.unwrap());
        let others = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.sql(others).unwrap();
        database
    });
    Some(template.await.copy())
}

pub async fn connect_twice(database: &Database) -> Handles {
    let options = PostgresOptions::new().timeout(PATIENCE);
    let connect = async || Arc::new(options.clone().connect(database.url()).await.unwrap());
    vec![connect().await, connect().await]
}

fn holds_no_secret(database: &Database) {
    let all = database.sql("SELECT database_to_xml(true, false, '')").unwrap();
    assert!(all.contains("keyward_audit"), "the dump contains the tables");
    assert!(!holds_a_secret(&all));
}

/// The shared server keeps nothing on disk, since only test data would be lost.
pub fn redis_options(prefix: &str) -> RedisOptions {
    log::watch();
    let options = RedisOptions::new().prefix(prefix);
    options.timeout(PATIENCE).danger_allow_no_persistence()
}

pub async fn redis_twice(space: &Space) -> Handles {
    let options = redis_options(space.prefix());
    let connect = async || Arc::new(options.clone().connect(space.url()).await.unwrap());
    vec![connect().await, connect().await]
}

pub async fn cluster_twice(cluster: &Cluster, options: &RedisOptions) -> Handles {
    let nodes = cluster.urls();
    let connect = async || Arc::new(options.clone().connect_cluster(&nodes).await.unwrap());
    vec![connect().await, connect().await]
}

/// Returns the names and values of all Redis keys of a store.
pub fn dump(space: &Space) -> String {
    let read = |name: String| {
        let command: &[&str] = match space.call(&["TYPE", &name]).text() {
            "hash" => &["HGETALL", &name],
            "zset" => &["ZRANGE", &name, "0", "-1"],
            "stream" => &["XRANGE", &name, "-", "+"],
            other => panic!("{name} is a {other}"),
        };
        let reply = space.call(command);
        assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        format!("{name}: {reply:?}\n")
    };
    space.names().into_iter().map(read).collect()
}

/// Long, because the machine may be busy with other tests. Tests of timeouts set their own.
pub const PATIENCE: Duration = Duration::from_secs(60);
