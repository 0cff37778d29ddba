//! A proxy between client and server, which a test tells when to hold, cut, delay or lose bytes.

mod connection;
mod rules;

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixListener,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{runtime, sync::oneshot};

use super::{Address, Scratch, User};
use connection::{serve_tcp, serve_unix};
use rules::{Fault, Rules};

pub use rules::Direction;

/// A running proxy on a thread of its own: it works also while the test blocks.
///
/// A unix socket is proxied by a unix socket of the same file name, TCP by TCP on 127.0.0.1. What the test
/// arms (`…_to`, `cut_request`, `cut_after`) happens once, on whichever connection gets there first, and
/// `sprung` waits for it. It means protocols in which one request awaits one reply.
pub struct Proxy {
    address: Address,
    rules: Arc<Rules>,
    // Ends the thread when dropped.
    _alive: oneshot::Sender<()>,
    _scratch: Option<Scratch>,
}

impl Proxy {
    /// # Panics
    /// If no socket can be made.
    pub fn before(server: &Address) -> Self {
        let rules = Arc::new(Rules::default());
        let (alive, ended) = oneshot::channel();
        let (address, scratch) = match server {
            Address::Unix(path) => {
                let scratch = Scratch::new(User::current());
                let own = scratch.path().join(path.file_name().expect("a socket has a name"));
                let listener = UnixListener::bind(&own).expect("a socket in a new folder");
                listener.set_nonblocking(true).expect("a socket of ours");
                let (path, rules) = (path.clone(), rules.clone());
                run(ended, async move || serve_unix(listener, path, rules).await);
                (Address::Unix(own), Some(scratch))
            }
            Address::Tcp(server) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
                listener.set_nonblocking(true).expect("a socket of ours");
                let own = listener.local_addr().expect("a bound socket");
                let (server, rules) = (*server, rules.clone());
                run(ended, async move || serve_tcp(listener, server, rules).await);
                (Address::Tcp(own), None)
            }
        };
        Self { address, rules, _alive: alive, _scratch: scratch }
    }

    /// Where clients connect instead of to the server.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Holds all bytes in both directions until `resume`.
    pub fn pause(&self) {
        self.rules.change(|rules| rules.paused = true);
    }

    /// Lets go what `pause` or `hold_reply_to` holds.
    pub fn resume(&self) {
        self.rules.change(|rules| {
            rules.paused = false;
            rules.releases += 1;
        });
    }

    /// Ends all connections, and each new one at once, until `heal`. Clients see a reset.
    pub fn cut(&self) {
        self.rules.change(|rules| {
            rules.down = true;
            rules.cuts += 1;
        });
    }

    pub fn heal(&self) {
        self.rules.change(|rules| rules.down = false);
    }

    /// Makes everything late by this, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.rules.change(|rules| rules.delay = delay);
    }

    /// Cuts the connection instead of forwarding the next request that contains this.
    pub fn cut_request(&self, request: &str) {
        self.rules.arm(request, Fault::CutRequest);
    }

    /// Forwards the next request that contains this, drops the reply to it, and cuts the connection.
    pub fn swallow_reply_to(&self, request: &str) {
        self.rules.arm(request, Fault::SwallowReply);
    }

    /// Forwards the next request that contains this, and holds the reply to it until `resume`.
    pub fn hold_reply_to(&self, request: &str) {
        self.rules.arm(request, Fault::HoldReply);
    }

    /// Cuts the connection on which so many more bytes, of all connections together, have passed.
    pub fn cut_after(&self, bytes: usize, direction: Direction) {
        self.rules.change(|rules| rules.budget = Some((direction, bytes)));
    }

    /// Waits until what was armed last has happened; for a reply, until the server has sent it.
    ///
    /// # Panics
    /// If it does not happen within half a minute.
    pub async fn sprung(&self) {
        self.rules.sprung().await;
    }

    /// How many connections are open through it.
    pub fn connections(&self) -> usize {
        self.rules.connections()
    }
}

/// Runs a server on a thread of its own, until the sender of `ended` is dropped.
fn run<F>(ended: oneshot::Receiver<()>, serve: F)
where
    F: AsyncFnOnce() -> io::Result<()> + Send + 'static,
{
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                served = serve() => served.expect("a listener of ours accepts"),
                _ = ended => {}
            }
        });
    });
}
