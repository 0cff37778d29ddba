//! Redis or Valkey: one server for the whole run, servers to kill, replicas, and a cluster.

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

/// A server that this test alone has, to kill and restart.
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
    /// Each write is on the disk before it is answered: `appendonly yes`, `appendfsync always`.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// On a free port of 127.0.0.1 instead of a unix socket; replication and clusters need that.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// A limit of the size of its files (`prlimit --fsize`) is an error to it, as a full disk is, and
    /// does not kill it.
    pub fn outliving_full_disks(mut self) -> Self {
        self.outliving_full_disks = true;
        self
    }

    /// A replica, ready when it has all that the primary has.
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
                Err(said) => log = said,
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
            // A first synchronization would otherwise wait five seconds for more replicas.
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

/// A running server that belongs to one test.
pub struct Server {
    process: Process,
    address: Address,
}

impl Server {
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// As the `redis` crate understands it.
    pub fn url(&self) -> String {
        url(&self.address)
    }

    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A proxy before it; `redis::url(proxy.address())` is its URL.
    pub fn proxy(&self) -> Proxy {
        Proxy::before(&self.address)
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn call(&self, command: &[&str]) -> Reply {
        let reply =
            Connection::open(&self.address).and_then(|mut connection| connection.call(command));
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// `SIGKILL` for the server and a child that saves for it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// `SIGTERM`: it saves as it is configured to, and ends.
    pub fn stop(&mut self) {
        let status = self.process.stop(Signal::TERM);
        assert!(status.success(), "Redis stops with {status}");
    }

    pub fn restart(&mut self) {
        let address = self.address.clone();
        self.process.restart(|_| is_ready(&address));
    }

    /// `SIGSTOP` for all of it, until `thaw`.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    pub fn thaw(&self) {
        self.process.thaw();
    }
}

/// The URL of a server, or of a proxy before one.
pub fn url(address: &Address) -> String {
    match address {
        Address::Unix(socket) => format!("redis+unix://{}", text(socket)),
        Address::Tcp(address) => format!("redis://{address}/"),
    }
}

/// Whether a server has loaded what it had, and a replica has what its primary has.
fn is_ready(address: &Address) -> bool {
    let Ok(mut connection) = Connection::open(address) else { return false };
    let mut says = |command: &[&str]| connection.call(command).map(|reply| reply.text().to_owned());
    says(&["PING"]).is_ok_and(|reply| reply == "PONG")
        && says(&["INFO", "replication"])
            .is_ok_and(|info| !info.contains("master_link_status:down"))
}

/// A port that is free now, below those that the system gives to outgoing connections.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes of the same moment begin at different ports.
    let begin = process::id().wrapping_mul(97) % u32::from(PORTS);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((begin + step) % u32::from(PORTS)).expect("below PORTS");
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
/// How often a port may be taken by another process between the look and the start.
const ATTEMPTS: u32 = 5;
const INSTALL: &str = "apt-get update && apt-get install -y --no-install-recommends redis-server";
