//! Redis or Valkey: a server shared by the whole run, servers that a test may kill, replicas and a cluster.

mod cluster;
mod resp;
mod shared;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use rustix::process::Signal;

use super::{Address, Proxy, Scratch, User, process::Process, program, skip, text, until};

pub use cluster::{Cluster, shared_cluster};
pub use resp::{Connection, Reply};
pub use shared::{Space, shared};

/// The settings of a private server, which the test may kill and restart.
#[derive(Clone, Default)]
#[must_use]
pub struct Options {
    durable: bool,
    tcp: bool,
    outliving_full_disks: bool,
    primary: Option<SocketAddr>,
    settings: Vec<String>,
}

impl Options {
    /// Syncs each write to disk before the reply: `appendonly yes`, `appendfsync always`.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Listens on a free port of 127.0.0.1 instead of a Unix socket. Replication and clusters require it.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Lets a file size limit (`prlimit --fsize`) fail writes like a full disk, instead of killing the server.
    pub fn outliving_full_disks(mut self) -> Self {
        self.outliving_full_disks = true;
        self
    }

    /// Starts a replica, which is ready when it is synchronized with the primary.
    ///
    /// # Panics
    /// If the primary was not started with `tcp`.
    pub fn replica_of(mut self, primary: &Server) -> Self {
        let Address::Tcp(address) = primary.address() else { panic!("a primary needs `tcp`") };
        self.primary = Some(*address);
        self
    }

    /// A line of `redis.conf`; it wins over the options above and `maxmemory-policy noeviction`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Starts it, or gives `None` after saying that the test is skipped.
    pub fn start(self) -> Option<Server> {
        let server = self.start_if_installed();
        if server.is_none() {
            skip("Redis", INSTALL);
        }
        server
    }

    fn start_if_installed(&self) -> Option<Server> {
        let redis = program(&["redis-server", "valkey-server"], &[])?;
        let mut log = String::new();
        for _ in 0..if self.tcp { ATTEMPTS } else { 1 } {
            match self.start_program(&redis) {
                Ok(server) => return Some(server),
                Err(output) => log = output,
            }
        }
        panic!("Redis does not start:\n{log}");
    }

    fn start_program(&self, redis: &Path) -> Result<Server, String> {
        let scratch = Scratch::new(User::current());
        let socket = scratch.path().join("redis.sock");
        let address = if self.tcp { Address::Tcp(free_port()) } else { Address::Unix(socket) };
        let mut arguments = self.arguments(scratch.path(), &address);
        let mut program = redis;
        if self.outliving_full_disks {
            arguments.splice(..0, ["--ignore-signal=XFSZ".to_owned(), text(redis)]);
            program = Path::new("env");
        }
        let process = Process::start(scratch, program, arguments, |_| is_ready(&address))?;
        Ok(Server { process, address })
    }

    fn arguments(&self, folder: &Path, address: &Address) -> Vec<String> {
        let yes_or_no = |yes| if yes { "yes" } else { "no" };
        let mut arguments = words(&[
            ("--dir", &text(folder)),
            ("--save", ""),
            ("--maxmemory-policy", "noeviction"),
            ("--appendonly", yes_or_no(self.durable)),
            ("--appendfsync", "always"),
            // Otherwise the first synchronization waits five seconds for further replicas.
            ("--repl-diskless-sync-delay", "0"),
        ]);
        arguments.extend(match address {
            Address::Unix(socket) => words(&[("--port", "0"), ("--unixsocket", &text(socket))]),
            Address::Tcp(tcp) => {
                words(&[("--port", &tcp.port().to_string()), ("--bind", &tcp.ip().to_string())])
            }
        });
        if let Some(primary) = self.primary {
            arguments.extend(words(&[("--replicaof", &primary.ip().to_string())]));
            arguments.push(primary.port().to_string());
        }
        arguments.extend(self.settings.iter().cloned());
        arguments
    }
}

/// A running private server.
pub struct Server {
    process: Process,
    address: Address,
}

impl Server {
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns a URL for the `redis` crate.
    pub fn url(&self) -> String {
        url(&self.address)
    }

    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts a proxy to the server. `redis::url(proxy.address())` is its URL.
    pub fn proxy(&self) -> Proxy {
        Proxy::before(&self.address)
    }

    /// Runs a command on a new connection.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn call(&self, command: &[&str]) -> Reply {
        let reply =
            Connection::open(&self.address).and_then(|mut connection| connection.call(command));
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Sends `SIGKILL` to the server and its child that saves a snapshot.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends `SIGTERM`: the server saves as configured, and exits.
    pub fn stop(&mut self) {
        let status = self.process.stop(Signal::TERM);
        assert!(status.success(), "Redis exits with {status}");
    }

    pub fn restart(&mut self) {
        let address = self.address.clone();
        self.process.restart(|_| is_ready(&address));
    }

    /// Sends `SIGSTOP` to all processes, until `thaw`.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    pub fn thaw(&self) {
        self.process.thaw();
    }
}

/// Returns the URL of a server or a proxy.
pub fn url(address: &Address) -> String {
    match address {
        Address::Unix(socket) => format!("redis+unix://{}", text(socket)),
        Address::Tcp(address) => format!("redis://{address}/"),
    }
}

/// Returns whether a server has loaded its data and, if it is a replica, is linked to its primary.
fn is_ready(address: &Address) -> bool {
    let Ok(mut connection) = Connection::open(address) else { return false };
    let mut query =
        |command: &[&str]| connection.call(command).map(|reply| reply.text().to_owned());
    query(&["PING"]).is_ok_and(|reply| reply == "PONG")
        && query(&["INFO", "replication"])
            .is_ok_and(|info| !info.contains("master_link_status:down"))
}

/// Returns a port that is free now, below the range of ports for outgoing connections.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes start at different ports.
    let start = process::id().wrapping_mul(97) % u32::from(PORTS);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((start + step) % u32::from(PORTS)).expect("below PORTS");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + offset));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn words(settings: &[(&str, &str)]) -> Vec<String> {
    settings.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}

const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 18_000;
/// The number of attempts to start a server: another process may take the port between the check and the
/// start.
const ATTEMPTS: u32 = 5;
const INSTALL: &str = "apt-get update && apt-get install -y --no-install-recommends redis-server";
