//! The server shared by the whole run, and the keys of one test on it.

use std::{
    any::Any,
    env,
    net::ToSocketAddrs,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{Address, Connection, INSTALL, Options, Reply, Scratch, User, skip};

/// Returns the shared server, or `None` after reporting that the test is skipped.
pub fn shared() -> Option<&'static Shared> {
    static SHARED: LazyLock<Option<Shared>> = LazyLock::new(Shared::start);
    let shared = SHARED.as_ref();
    if shared.is_none() {
        skip("Redis", INSTALL);
    }
    shared
}

/// A server that all tests share.
pub struct Shared {
    target: Target,
    name: String,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Shared {
    /// Returns a key prefix for one test.
    pub fn space(&self) -> Space {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("kw:{}:{}:", self.name, COUNT.fetch_add(1, Ordering::Relaxed));
        Space { target: self.target.clone(), prefix }
    }

    fn start() -> Option<Self> {
        if let Ok(url) = env::var("TEST_REDIS_URL") {
            let target = Target::parse(&url);
            let scratch = Scratch::with_cleanup(User::current(), UNLINK_KEYS, &[("url", &url)]);
            let name = scratch.name().to_owned();
            return Some(Self { target, name, _guard: Box::new(scratch) });
        }
        let server = Options::default().start_if_installed()?;
        let target = Target::parse(&server.url());
        Some(Self { target, name: "run".into(), _guard: Box::new(server) })
    }
}

/// The Redis keys of one test: those whose names contain its prefix. `Drop` removes them.
pub struct Space {
    target: Target,
    prefix: String,
}

impl Space {
    pub fn url(&self) -> &str {
        &self.target.url
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Runs a command on a new connection.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn call(&self, command: &[&str]) -> Reply {
        let reply = self.target.connect().and_then(|mut connection| connection.call(command));
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Returns the names of all Redis keys with the prefix.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn names(&self) -> Vec<String> {
        self.scan().unwrap_or_else(|error| panic!("SCAN: {error}"))
    }

    fn scan(&self) -> std::io::Result<Vec<String>> {
        let mut connection = self.target.connect()?;
        let (mut names, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            // The prefix may be inside a hash tag.
            let pattern = format!("*{}*", self.prefix);
            let page = connection.call(&["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"])?;
            let Reply::Array(parts) = &page else { return Ok(names) };
            let [Reply::Text(next), Reply::Array(page)] = &parts[..] else { return Ok(names) };
            names.extend(page.iter().map(|name| name.text().to_owned()));
            if next == "0" {
                return Ok(names);
            }
            cursor.clone_from(next);
        }
    }

    fn remove(&self) -> std::io::Result<()> {
        let mut connection = self.target.connect()?;
        for name in self.scan()? {
            connection.call(&["UNLINK", &name])?;
        }
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// The address of the shared server, with credentials and database number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    url: String,
    address: Address,
    login: Vec<String>,
    database: String,
}

impl Target {
    fn parse(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("TEST_REDIS_URL is redis://…");
        if scheme != "redis" {
            let path = rest.split('?').next().unwrap_or(rest);
            let address = Address::Unix(path.into());
            return Self { url: url.into(), address, login: Vec::new(), database: "0".into() };
        }
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if host.contains(':') { host.into() } else { format!("{host}:6379") };
        let address = host.to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = Address::Tcp(address.unwrap_or_else(|| panic!("no such host: {host}")));
        let login = login.split(':').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let database = if database.is_empty() { "0" } else { database }.into();
        Self { url: url.into(), address, login, database }
    }

    fn connect(&self) -> std::io::Result<Connection> {
        let mut connection = Connection::open(&self.address)?;
        if !self.login.is_empty() {
            let words: Vec<_> =
                ["AUTH"].into_iter().chain(self.login.iter().map(|w| &**w)).collect();
            connection.call(&words)?;
        }
        connection.call(&["SELECT", &self.database])?;
        Ok(connection)
    }
}

#[test]
fn a_redis_url_is_parsed_into_address_credentials_and_database() {
    let target = Target::parse("redis://:hush@127.0.0.1:7000/3");
    assert_eq!(target.address, Address::Tcp("127.0.0.1:7000".parse().unwrap()));
    assert_eq!((target.login, &*target.database), (vec!["hush".to_owned()], "3"));
    let target = Target::parse("redis+unix:///tmp/a.sock");
    assert_eq!((target.address, &*target.database), (Address::Unix("/tmp/a.sock".into()), "0"));
}

/// Removes the keys of a killed run from a server that was not started by the tests.
const UNLINK_KEYS: &str = r#"
case $url in *unix://*) set -- "$1" -s "${url#*://}" ;; *) set -- "$1" -u "$url" ;; esac
redis-cli "$2" "$3" --scan --pattern "*kw:${folder##*-}:*" | xargs -r redis-cli "$2" "$3" unlink
"#;
