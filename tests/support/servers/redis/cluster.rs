//! A Redis Cluster of three primaries, each with one replica: six processes on this machine.

use std::{io, sync::LazyLock};

use super::{Address, Connection, INSTALL, Options, Server, free_port, skip, until};

/// Returns the shared cluster, or `None` after reporting that the test is skipped.
pub fn shared_cluster() -> Option<&'static Cluster> {
    static SHARED: LazyLock<Option<Cluster>> = LazyLock::new(Cluster::start_if_installed);
    let shared = SHARED.as_ref();
    if shared.is_none() {
        skip("Redis", INSTALL);
    }
    shared
}

/// A private cluster, whose nodes the test may kill.
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster, or returns `None` after reporting that the test is skipped.
    ///
    /// # Panics
    /// If the server is older than Redis 7.0, which has no setting for the port of the cluster bus.
    pub fn start() -> Option<Self> {
        let cluster = Self::start_if_installed();
        if cluster.is_none() {
            skip("Redis", INSTALL);
        }
        cluster
    }

    fn start_if_installed() -> Option<Self> {
        let nodes = (0..PRIMARIES * 2).map(|_| start_node()).collect::<Option<_>>()?;
        let cluster = Self { nodes };
        cluster.join();
        cluster.until_ok();
        Some(cluster)
    }

    /// Returns the nodes. The first three started as primaries; node `i + 3` started as the replica of node `i`.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    pub fn nodes_mut(&mut self) -> &mut [Server] {
        &mut self.nodes
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    /// Waits until all running nodes report a complete cluster, and each replica is linked to its primary.
    pub fn until_ok(&self) {
        until("all nodes report a working cluster", || self.nodes.iter().all(is_ok));
    }

    /// Assigns the slots and joins the nodes, like `redis-cli --cluster create`.
    fn join(&self) {
        let share = SLOTS / PRIMARIES;
        for (i, node) in self.primaries().iter().enumerate() {
            let last = if i + 1 == PRIMARIES { SLOTS } else { (i + 1) * share } - 1;
            expect_ok(node, &["ADDSLOTSRANGE", &(i * share).to_string(), &last.to_string()]);
            expect_ok(node, &["SET-CONFIG-EPOCH", &(i + 1).to_string()]);
        }
        for node in &self.nodes[1..] {
            expect_ok(&self.nodes[0], &["MEET", &ip(node), &port(node), &bus_port(node)]);
        }
        let known_nodes = format!("cluster_known_nodes:{}", self.nodes.len());
        for (replica, primary) in self.nodes[PRIMARIES..].iter().zip(self.primaries()) {
            until("the nodes have met", || {
                self.nodes
                    .iter()
                    .all(|node| info(node).is_ok_and(|info| info.contains(&known_nodes)))
            });
            let id = primary.call(&["CLUSTER", "MYID"]);
            expect_ok(replica, &["REPLICATE", id.text()]);
        }
    }

    fn primaries(&self) -> &[Server] {
        &self.nodes[..PRIMARIES]
    }
}

fn start_node() -> Option<Server> {
    Options::default()
        .tcp()
        .setting("cluster-enabled", "yes")
        .setting("cluster-port", &free_port().port().to_string())
        .setting("cluster-node-timeout", "5000")
        .start_if_installed()
}

/// Returns whether a node reports a working cluster. A dead node is ignored.
fn is_ok(node: &Server) -> bool {
    if !super::super::process::is_alive(node.pid()) {
        return true;
    }
    let replication = || ask(node, &["INFO", "replication"]);
    info(node).is_ok_and(|info| info.contains("cluster_state:ok"))
        && replication().is_ok_and(|info| !info.contains("master_link_status:down"))
}

fn info(node: &Server) -> io::Result<String> {
    ask(node, &["CLUSTER", "INFO"])
}

fn ask(node: &Server, command: &[&str]) -> io::Result<String> {
    Ok(Connection::open(node.address())?.call(command)?.text().to_owned())
}

fn expect_ok(node: &Server, command: &[&str]) {
    let command = [&["CLUSTER"], command].concat();
    let reply = node.call(&command);
    assert_eq!(reply.text(), "OK", "{command:?}");
}

fn ip(node: &Server) -> String {
    tcp(node).ip().to_string()
}

fn port(node: &Server) -> String {
    tcp(node).port().to_string()
}

fn bus_port(node: &Server) -> String {
    let reply = node.call(&["CONFIG", "GET", "cluster-port"]);
    let super::Reply::Array(pair) = reply else { panic!("{reply:?}") };
    pair[1].text().to_owned()
}

fn tcp(node: &Server) -> std::net::SocketAddr {
    let Address::Tcp(address) = node.address() else { panic!("nodes of a cluster use TCP") };
    *address
}

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
