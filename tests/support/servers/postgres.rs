//! PostgreSQL: one cluster for the whole run, a database for each test, and clusters to kill.

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

/// The cluster of this run, or `None` after saying that the test is skipped.
pub fn shared() -> Option<&'static Cluster> {
    static SHARED: LazyLock<Option<Shared>> = LazyLock::new(Shared::start);
    let shared = SHARED.as_ref();
    if shared.is_none() {
        skip("PostgreSQL", INSTALL);
    }
    shared.map(|shared| &shared.cluster)
}

/// A cluster that this test alone has, to kill and restart.
#[derive(Default)]
#[must_use]
pub struct Options {
    durable: bool,
    settings: Vec<String>,
}

impl Options {
    /// With `fsync`, as in production; without this, a machine that crashes may lose what was committed.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A line of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(format!("{name}={value}"));
        self
    }

    /// Starts it, or gives `None` after saying that the test is skipped.
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
        let cluster = Cluster { url: url(&folder, "postgres"), psql, name, outlives_us: false };
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
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {said}");
    }

    fn arguments(&self, folder: &Path) -> Vec<String> {
        let always = [
            "listen_addresses=".into(),
            format!("unix_socket_directories={}", text(folder)),
            format!("port={PORT}"),
            "max_connections=200".into(),
            // In the folder, not in /dev/shm, where it would outlive a killed server.
            "dynamic_shared_memory_type=mmap".into(),
        ];
        let quick = ["fsync=off".to_owned(), "full_page_writes=off".to_owned()];
        let quick = quick.into_iter().filter(|_| !self.durable);
        let settings = always.into_iter().chain(quick).chain(self.settings.iter().cloned());
        let place = ["-D".to_owned(), text(&folder.join(DATA))];
        place.into_iter().chain(settings.flat_map(|setting| ["-c".to_owned(), setting])).collect()
    }
}

/// A running cluster that belongs to one test.
pub struct Server {
    process: Process,
    cluster: Cluster,
}

impl Server {
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The folder of its socket, which is also everything it has on disk.
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A proxy before it; `url_through` gives the URL of a database behind that.
    pub fn proxy(&self) -> Proxy {
        Proxy::before(&Address::Unix(self.folder().join(format!(".s.PGSQL.{PORT}"))))
    }

    pub fn url_through(&self, proxy: &Proxy, database: &Database) -> String {
        let Address::Unix(socket) = proxy.address() else { panic!("the server has a unix socket") };
        url(socket.parent().expect("a socket is in a folder"), database.name())
    }

    /// `SIGKILL` for the postmaster and each backend at once.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// A fast shutdown: transactions are rolled back, a checkpoint is written.
    pub fn stop(&mut self) {
        let status = self.process.stop(Signal::INT);
        assert!(status.success(), "PostgreSQL stops with {status}");
    }

    pub fn restart(&mut self) {
        let folder = self.folder().to_owned();
        self.process.restart(|pid| is_ready(&folder, pid));
    }

    /// `SIGSTOP` for all of it, until `thaw`.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    pub fn thaw(&self) {
        self.process.thaw();
    }
}

/// A cluster to make databases in.
#[derive(Clone)]
pub struct Cluster {
    url: String,
    psql: PathBuf,
    name: String,
    outlives_us: bool,
}

impl Cluster {
    /// A new, empty database.
    pub fn database(&self) -> Database {
        self.database_like("template1")
    }

    fn database_like(&self, template: &str) -> Database {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("kw_{}_{}", self.name, MADE.fetch_add(1, Ordering::Relaxed));
        let made = self.sql(&format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#));
        made.unwrap_or_else(|error| panic!("no new database: {error}"));
        let url = with_database(&self.url, &name);
        Database { cluster: self.clone(), name, url }
    }

    /// Runs a statement in the database of the administrator; gives what `psql -At` prints.
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

/// A database that one test has for itself; dropped with this.
pub struct Database {
    cluster: Cluster,
    name: String,
    url: String,
}

impl Database {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As sqlx and libpq understand it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Another database with the same content. Nobody may be connected to this one.
    pub fn copy(&self) -> Self {
        self.cluster.database_like(&self.name)
    }

    /// Runs a statement in this database; gives what `psql -At` prints.
    pub fn sql(&self, statement: &str) -> Result<String, String> {
        self.cluster.sql_at(&self.url, statement)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A cluster of one test may be dead or frozen by now, and ends with its test anyway.
        if self.cluster.outlives_us {
            let _ = self.cluster.sql(&format!(r#"DROP DATABASE "{}" WITH (FORCE)"#, self.name));
        }
    }
}

/// The cluster of the run, and what ends with the run.
struct Shared {
    cluster: Cluster,
    _until_the_end: Box<dyn Any + Send + Sync>,
}

impl Shared {
    fn start() -> Option<Self> {
        let Ok(url) = env::var("TEST_POSTGRES_URL") else {
            let server = Options::default().start_if_installed()?;
            let cluster = Cluster { outlives_us: true, ..server.cluster.clone() };
            return Some(Self { cluster, _until_the_end: Box::new(server) });
        };
        let psql = Programs::psql(&bin_folders())?;
        let variables = [("psql", &*text(&psql)), ("url", &*url)];
        let scratch = Scratch::with_will(User::current(), DROP_DATABASES, &variables);
        let name = scratch.name().to_owned();
        let cluster = Cluster { url, psql, name, outlives_us: true };
        Some(Self { cluster, _until_the_end: Box::new(scratch) })
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

/// Where Debian puts them, outside of the `PATH`; the newest version first.
fn bin_folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<PathBuf> =
        versions.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let number = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
    versions.into_iter().map(|folder| folder.join("bin")).collect()
}

/// Whether the postmaster with this id takes connections: its own word, which `pg_ctl` relies on too.
fn is_ready(folder: &Path, pid: u32) -> bool {
    let lines = fs::read_to_string(folder.join(DATA).join("postmaster.pid")).unwrap_or_default();
    let mut lines = lines.lines();
    lines.next() == Some(&*pid.to_string())
        && lines.nth(6).is_some_and(|state| matches!(state.trim(), "ready" | "standby"))
}

fn url(folder: &Path, database: &str) -> String {
    format!("postgres:///{database}?host={}&port={PORT}&user={USER}", text(folder))
}

/// The URL of another database on the same server.
fn with_database(url: &str, database: &str) -> String {
    let (place, query) =
        url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let (scheme, place) = place.split_once("://").expect("TEST_POSTGRES_URL is postgres://…");
    let server = place.split_once('/').map_or(place, |(server, _)| server);
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
/// Names the socket file only: nothing listens on the network.
const PORT: u16 = 5432;
const INSTALL: &str = "apt-get update && apt-get install -y --no-install-recommends postgresql";
/// For a server that is not ours: what a killed run left there goes as well.
const DROP_DATABASES: &str = r#"
"$psql" -XAtq "$url" -c "select format('drop database %I with (force);', datname)
    from pg_database where starts_with(datname, 'kw_${folder##*-}_')" | "$psql" -Xq "$url"
"#;
