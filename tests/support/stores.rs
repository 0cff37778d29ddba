//! Every store that a test can run on.

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

/// Handles to one fresh store, as the nodes of a service would have them.
pub type Handles = Vec<Arc<dyn KeyStore>>;

/// Runs a test on a fresh one of each store; the name tells which one failed.
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
        assert!(all.contains("}meta: "), "the dump has what the store wrote");
        assert!(!holds_a_secret(&all));
    }
    if let Some(cluster) = redis::shared_cluster() {
        println!("on a Redis Cluster");
        static MADE: AtomicU32 = AtomicU32::new(0);
        let options = redis_options(&format!("of-test-{}", MADE.fetch_add(1, Ordering::Relaxed)));
        test(cluster_twice(cluster, &options).await).await;
    }
}

pub fn memory() -> Handles {
    log::watch();
    vec![Arc::new(MemoryStore::new())]
}

/// A file in a folder of its own, which ends with it.
pub struct SqliteFile(TempDir);

impl SqliteFile {
    pub fn new() -> Self {
        log::watch();
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().join("keys.db")
    }

    pub async fn open_twice(&self) -> Handles {
        let options = SqliteOptions::new().timeout(PATIENCE);
        let open = async || Arc::new(options.clone().open(self.path()).await.unwrap());
        vec![open().await, open().await]
    }

    /// Looks at the file and what SQLite keeps beside it. The last connection to be closed moves
    /// the log into the file and removes it: then it looks once more.
    fn holds_no_secret(&self) {
        while !self.was_seen_whole() {}
    }

    fn was_seen_whole(&self) -> bool {
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

/// A database whose tables are there already, or `None` after saying that PostgreSQL is missing.
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
    assert!(all.contains("keyward_audit"), "the dump has the tables");
    assert!(!holds_a_secret(&all));
}

/// The server of the run keeps nothing on disk: what would be lost are its tests.
pub fn redis_options(prefix: &str) -> RedisOptions {
    log::watch();
    let options = RedisOptions::new().prefix(prefix).unwrap();
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

/// All that Redis holds of a store, names and contents.
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

/// The machine is busy with other tests. What a timeout does is the business of tests of its own.
pub const PATIENCE: Duration = Duration::from_secs(60);
