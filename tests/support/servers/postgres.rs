//! PostgreSQL: a cluster shared by the whole run, a database per test, and clusters that a test may kill.

use std::{
    any::Any,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::Signal;

use super::{Address, Proxy, Scratch, User, process::Process, program, skip, text};

/// Returns the shared cluster, or `None` after reporting that the test is skipped.
pub fn shared() -> Option<&'static Cluster> {
    static SHARED: LazyLock<Option<Shared>> = LazyLock::new(Shared::start);
    let shared = SHARED.as_ref();
    if shared.is_none() {
        skip("PostgreSQL", INSTALL);
    }
    shared.map(|shared| &shared.cluster)
}

/// The settings of a private cluster, which the test may kill and restart.
#[derive(Default)]
#[must_use]
pub struct Options {
    durable: bool,
    settings: Vec<String>,
}

impl Options {
    /// Enables `fsync`, as in production. Without it, committed data may be lost if the machine crashes.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Adds a setting of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(format!("{name}={value}"));
        self
    }

    /// Starts the cluster, or returns `None` after reporting that the test is skipped.
    pub fn start(self) -> Option<Server> {
        let server = self.start_if_installed();
        if server.is_none() {
            skip("PostgreSQL", INSTALL);
        }
        server
    }

    fn start_if_installed(self) -> Option<Server> {
        let Programs { postgres, initdb, psql } = Programs::find()?;
        let scratch = Scratch::new(User::unprivileged());
        let (folder, name) = (scratch.path().to_owned(), scratch.name().to_owned());
        self.init(scratch.command(&initdb), &folder.join(DATA));
        let arguments = self.arguments(&folder);
        let process = Process::start(scratch, &postgres, arguments, |pid| is_ready(&folder, pid));
        let process = process.unwrap_or_else(|log| panic!("PostgreSQL does not start:\n{log}"));
        let cluster = Cluster { url: url(&folder, "postgres"), psql, name, outlives_test: false };
        Some(Server { process, cluster })
    }

    fn init(&self, mut initdb: Command, data: &Path) {
        initdb.args([
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--username",
            USER,
            "--pgdata",
        ]);
        initdb.arg(data);
        if !self.durable {
            initdb.arg("--no-sync");
        }
        let output = initdb.output().expect("initdb can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {errors}");
    }

    fn arguments(&self, folder: &Path) -> Vec<String> {
        let always = [
            "listen_addresses=".into(),
            format!("unix_socket_directories={}", text(folder)),
            format!("port={PORT}"),
            "max_connections=200".into(),
            // In the folder: in /dev/shm, the memory would outlive a killed server.
            "dynamic_shared_memory_type=mmap".into(),
        ];
        let fast = ["fsync=off".to_owned(), "full_page_writes=off".to_owned()];
        let fast = fast.into_iter().filter(|_| !self.durable);
        let settings = always.into_iter().chain(fast).chain(self.settings.iter().cloned());
        let data = ["-D".to_owned(), text(&folder.join(DATA))];
        data.into_iter().chain(settings.flat_map(|setting| ["-c".to_owned(), setting])).collect()
    }
}

/// A running private cluster.
pub struct Server {
    process: Process,
    cluster: Cluster,
}

impl Server {
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Returns the folder that contains the socket and all data.
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts a proxy to the cluster. `url_through` returns the URL of a database through the proxy.
    pub fn proxy(&self) -> Proxy {
        Proxy::before(&Address::Unix(self.folder().join(format!(".s.PGSQL.{PORT}"))))
    }

    pub fn url_through(&self, proxy: &Proxy, database: &Database) -> String {
        let Address::Unix(socket) = proxy.address() else { panic!("the server has a unix socket") };
        url(socket.parent().expect("a socket is in a folder"), database.name())
    }

    /// Sends `SIGKILL` to the postmaster and all backends.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Shuts down in fast mode: rolls transactions back and writes a checkpoint.
    pub fn stop(&mut self) {
        let status = self.process.stop(Signal::INT);
        assert!(status.success(), "PostgreSQL exits with {status}");
    }

    pub fn restart(&mut self) {
        let folder = self.folder().to_owned();
        self.process.restart(|pid| is_ready(&folder, pid));
    }

    /// Sends `SIGSTOP` to all processes, until `thaw`.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    pub fn thaw(&self) {
        self.process.thaw();
    }
}

/// A cluster in which tests create databases.
#[derive(Clone)]
pub struct Cluster {
    url: String,
    psql: PathBuf,
    name: String,
    outlives_test: bool,
}

impl Cluster {
    /// Creates an empty database.
    pub fn database(&self) -> Database {
        self.database_like("template1")
    }

    fn database_like(&self, template: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kw_{}_{}", self.name, COUNT.fetch_add(1, Ordering::Relaxed));
        let created = self.sql(&format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#));
        created.unwrap_or_else(|error| panic!("cannot create a database: {error}"));
        let url = with_database(&self.url, &name);
        Database { cluster: self.clone(), name, url }
    }

    /// Runs a statement in the administrator's database, and returns the output of `psql -At`.
    pub fn sql(&self, statement: &str) -> Result<String, String> {
        self.sql_at(&self.url, statement)
    }

    fn sql_at(&self, url: &str, statement: &str) -> Result<String, String> {
        let mut psql = Command::new(&self.psql);
        psql.args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-c",
            statement,
            url,
        ]);
        let output = psql.env("PGCONNECT_TIMEOUT", "10").output().expect("psql can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// A private database of one test. `Drop` drops the database.
pub struct Database {
    cluster: Cluster,
    name: String,
    url: String,
}

impl Database {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a URL for sqlx and libpq.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates another database with the same content. This one must have no open connections.
    pub fn copy(&self) -> Self {
        self.cluster.database_like(&self.name)
    }

    /// Runs a statement in this database, and returns the output of `psql -At`.
    pub fn sql(&self, statement: &str) -> Result<String, String> {
        self.cluster.sql_at(&self.url, statement)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A private cluster may be dead or frozen, and ends with its test anyway.
        if self.cluster.outlives_test {
            let _ = self.cluster.sql(&format!(r#"DROP DATABASE "{}" WITH (FORCE)"#, self.name));
        }
    }
}

/// The shared cluster, and the guard that ends it with the run.
struct Shared {
    cluster: Cluster,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Shared {
    fn start() -> Option<Self> {
        let Ok(url) = env::var("TEST_POSTGRES_URL") else {
            let server = Options::default().start_if_installed()?;
            let cluster = Cluster { outlives_test: true, ..server.cluster.clone() };
            return Some(Self { cluster, _guard: Box::new(server) });
        };
        let psql = Programs::psql(&bin_folders())?;
        let variables = [("psql", &*text(&psql)), ("url", &*url)];
        let scratch = Scratch::with_cleanup(User::current(), DROP_DATABASES, &variables);
        let name = scratch.name().to_owned();
        let cluster = Cluster { url, psql, name, outlives_test: true };
        Some(Self { cluster, _guard: Box::new(scratch) })
    }
}

struct Programs {
    postgres: PathBuf,
    initdb: PathBuf,
    psql: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        let folders = bin_folders();
        let postgres = program(&["postgres"], &folders)?;
        let initdb = program(&["initdb"], &folders)?;
        Some(Self { postgres, initdb, psql: Self::psql(&folders)? })
    }

    fn psql(folders: &[PathBuf]) -> Option<PathBuf> {
        program(&["psql"], folders)
    }
}

/// Returns Debian's folders of PostgreSQL programs, which are not on the `PATH`, newest version first.
fn bin_folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<PathBuf> =
        versions.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let number = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
    versions.into_iter().map(|folder| folder.join("bin")).collect()
}

/// Returns whether this postmaster accepts connections, according to `postmaster.pid`, which `pg_ctl` reads,
/// too.
fn is_ready(folder: &Path, pid: u32) -> bool {
    let lines = fs::read_to_string(folder.join(DATA).join("postmaster.pid")).unwrap_or_default();
    let mut lines = lines.lines();
    lines.next() == Some(&*pid.to_string())
        && lines.nth(6).is_some_and(|state| matches!(state.trim(), "ready" | "standby"))
}

fn url(folder: &Path, database: &str) -> String {
    format!("postgres:///{database}?host={}&port={PORT}&user={USER}", text(folder))
}

/// Returns the URL of another database on the same server.
fn with_database(url: &str, database: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, path) = base.split_once("://").expect("TEST_POSTGRES_URL is postgres://…");
    let server = path.split_once('/').map_or(path, |(server, _)| server);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{server}/{database}{query}")
}

#[test]
fn the_url_of_another_database_keeps_everything_else() {
    let other = |url| with_database(url, "b");
    assert_eq!(
        other("postgres://u:p@h:1/a?sslmode=require"),
        "postgres://u:p@h:1/b?sslmode=require"
    );
    assert_eq!(other("postgres:///a?host=/tmp/x"), "postgres:///b?host=/tmp/x");
    assert_eq!(other("postgresql://localhost"), "postgresql://localhost/b");
}

const DATA: &str = "data";
const USER: &str = "keyward";
/// Appears only in the name of the socket file: the server does not listen on the network.
const PORT: u16 = 5432;
const INSTALL: &str = "apt-get update && apt-get install -y --no-install-recommends postgresql";
/// Removes the databases of a killed run from a server that was not started by the tests.
const DROP_DATABASES: &str = r#"
"$psql" -XAtq "$url" -c "select format('drop database %I with (force);', datname)
    from pg_database where starts_with(datname, 'kw_${folder##*-}_')" | "$psql" -Xq "$url"
"#;
