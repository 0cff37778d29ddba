//! A proxy between client and server that holds, cuts, delays or drops bytes on a test's command.

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

/// A running proxy on a thread of its own, so that it works while the test blocks.
///
/// A Unix socket is proxied by a Unix socket with the same file name, TCP by TCP on 127.0.0.1. A fault that the
/// test arms (`…_to`, `cut_request`, `cut_after`) happens once, on the first connection that matches, and
/// `sprung` waits for it. The protocol must send one reply per request.
pub struct Proxy {
    address: Address,
    rules: Arc<Rules>,
    // Ends the thread when dropped.
    _alive: oneshot::Sender<()>,
    _scratch: Option<Scratch>,
}

impl Proxy {
    /// Starts a proxy to a server.
    ///
    /// # Panics
    /// If no socket can be created.
    pub fn before(server: &Address) -> Self {
        let rules = Arc::new(Rules::default());
        let (alive, ended) = oneshot::channel();
        let (address, scratch) = match server {
            Address::Unix(path) => {
                let scratch = Scratch::new(User::current());
                let own = scratch.path().join(path.file_name().expect("a socket has a name"));
                let listener = UnixListener::bind(&own).expect("a socket in a new folder");
                listener.set_nonblocking(true).expect("a socket of this process");
                let (path, rules) = (path.clone(), rules.clone());
                run(ended, async move || serve_unix(listener, path, rules).await);
                (Address::Unix(own), Some(scratch))
            }
            Address::Tcp(server) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
                listener.set_nonblocking(true).expect("a socket of this process");
                let own = listener.local_addr().expect("a bound socket");
                let (server, rules) = (*server, rules.clone());
                run(ended, async move || serve_tcp(listener, server, rules).await);
                (Address::Tcp(own), None)
            }
        };
        Self { address, rules, _alive: alive, _scratch: scratch }
    }

    /// Returns the address that clients connect to instead of the server's.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Holds all bytes in both directions until `resume`.
    pub fn pause(&self) {
        self.rules.change(|rules| rules.paused = true);
    }

    /// Releases the bytes that `pause` or `hold_reply_to` holds.
    pub fn resume(&self) {
        self.rules.change(|rules| {
            rules.paused = false;
            rules.releases += 1;
        });
    }

    /// Resets all connections, and each new one immediately, until `heal`.
    pub fn cut(&self) {
        self.rules.change(|rules| {
            rules.down = true;
            rules.cuts += 1;
        });
    }

    pub fn heal(&self) {
        self.rules.change(|rules| rules.down = false);
    }

    /// Delays all bytes by this, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.rules.change(|rules| rules.delay = delay);
    }

    /// Cuts the connection instead of forwarding the next request that contains this text.
    pub fn cut_request(&self, request: &str) {
        self.rules.arm(request, Fault::CutRequest);
    }

    /// Forwards the next request that contains this text, drops the reply, and cuts the connection.
    pub fn swallow_reply_to(&self, request: &str) {
        self.rules.arm(request, Fault::SwallowReply);
    }

    /// Forwards the next request that contains this text, and holds the reply until `resume`.
    pub fn hold_reply_to(&self, request: &str) {
        self.rules.arm(request, Fault::HoldReply);
    }

    /// Cuts a connection after `bytes` more bytes have passed, counted over all connections.
    pub fn cut_after(&self, bytes: usize, direction: Direction) {
        self.rules.change(|rules| rules.budget = Some((direction, bytes)));
    }

    /// Waits until the fault that was armed last has happened. A fault of a reply happens when the server has
    /// sent the reply.
    ///
    /// # Panics
    /// If it does not happen within 30 seconds.
    pub async fn sprung(&self) {
        self.rules.sprung().await;
    }

    /// Returns the number of open connections.
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
                served = serve() => served.expect("the listener accepts"),
                _ = ended => {}
            }
        });
    });
}
