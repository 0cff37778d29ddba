//! The one server of the whole run, and the part of its keys that is one test's own.

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

/// The server of this run, or `None` after saying that the test is skipped.
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
    place: Place,
    name: String,
    _until_the_end: Box<dyn Any + Send + Sync>,
}

impl Shared {
    /// A prefix that one test has for itself.
    pub fn space(&self) -> Space {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("kw:{}:{}:", self.name, MADE.fetch_add(1, Ordering::Relaxed));
        Space { place: self.place.clone(), prefix }
    }

    fn start() -> Option<Self> {
        if let Ok(url) = env::var("TEST_REDIS_URL") {
            let place = Place::parse(&url);
            let scratch = Scratch::with_will(User::current(), UNLINK_KEYS, &[("url", &url)]);
            let name = scratch.name().to_owned();
            return Some(Self { place, name, _until_the_end: Box::new(scratch) });
        }
        let server = Options::default().start_if_installed()?;
        let place = Place::parse(&server.url());
        Some(Self { place, name: "run".into(), _until_the_end: Box::new(server) })
    }
}

/// The keys of one test: those with its prefix in their names. They are removed when this is dropped.
pub struct Space {
    place: Place,
    prefix: String,
}

impl Space {
    pub fn url(&self) -> &str {
        &self.place.url
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn call(&self, command: &[&str]) -> Reply {
        let reply = self.place.connect().and_then(|mut connection| connection.call(command));
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Of all Redis keys that are there.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn names(&self) -> Vec<String> {
        self.scan().unwrap_or_else(|error| panic!("SCAN: {error}"))
    }

    fn scan(&self) -> std::io::Result<Vec<String>> {
        let mut connection = self.place.connect()?;
        let (mut names, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            // A hash tag may stand around the prefix.
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
        let mut connection = self.place.connect()?;
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

/// Where the shared server is, and what it wants to hear first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    url: String,
    address: Address,
    login: Vec<String>,
    database: String,
}

impl Place {
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
fn a_redis_url_says_who_and_which_database() {
    let place = Place::parse("redis://:hush@127.0.0.1:7000/3");
    assert_eq!(place.address, Address::Tcp("127.0.0.1:7000".parse().unwrap()));
    assert_eq!((place.login, &*place.database), (vec!["hush".to_owned()], "3"));
    let place = Place::parse("redis+unix:///tmp/a.sock");
    assert_eq!((place.address, &*place.database), (Address::Unix("/tmp/a.sock".into()), "0"));
}

/// For a server that is not ours: what a killed run left there goes as well.
const UNLINK_KEYS: &str = r#"
case $url in *unix://*) set -- "$1" -s "${url#*://}" ;; *) set -- "$1" -u "$url" ;; esac
redis-cli "$2" "$3" --scan --pattern "*kw:${folder##*-}:*" | xargs -r redis-cli "$2" "$3" unlink
"#;
