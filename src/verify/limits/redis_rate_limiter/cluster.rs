use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{ConnectionInfo, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    model::debug_only,
    store::redis::{
        BoxError, CommandOutcome, Connection, Script, TimedOut, needs_other_server,
        redirect_target, time_left,
    },
    system::lock,
};

/// A single Redis server, or the discovered nodes of a cluster, with one connection to each.
pub(super) struct Cluster {
    seeds: Vec<Address>,
    pub(super) timeout: Duration,
    connections: Mutex<HashMap<String, Connection>>,
    /// The node of each slot for which a server replied with a redirection.
    slot_addresses: Mutex<HashMap<u16, Address>>,
    /// Held while connecting, so that concurrent callers open a single connection.
    connecting: tokio::sync::Mutex<()>,
}

type Address = Arc<ConnectionInfo>;

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, timeout: Duration) -> Self {
        Self {
            seeds: seeds.into_iter().map(Arc::new).collect(),
            timeout,
            connections: Mutex::default(),
            slot_addresses: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Runs a script on the server of the slot that all its keys are in, because they have the same hash tag. A call
    /// that was sent and not answered is not repeated.
    pub(super) async fn run(
        &self,
        script: &Script,
        tag: &str,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Value, BoxError> {
        let (deadline, slot) = (Instant::now() + self.timeout, slot_of(tag));
        for _ in 0..MAX_REDIRECTIONS {
            let known = lock(&self.slot_addresses).get(&slot).cloned();
            let connection = match known {
                Some(address) => self.connection(address, deadline).await,
                None => self.any_connection(deadline).await,
            };
            let connection =
                connection.inspect_err(|_| drop(lock(&self.slot_addresses).remove(&slot)))?;
            match script.run(&connection, keys, arguments, deadline).await {
                CommandOutcome::Answered(reply) => return Ok(reply),
                CommandOutcome::Lost(source) => return Err(source),
                CommandOutcome::Rejected(error) if needs_other_server(&error) => {
                    let address = error.redirect_node().map(|(address, _)| address);
                    let target = address.and_then(|to| redirect_target(&connection.server, to));
                    let Some(target) = target else {
                        connection.abandon();
                        return Err(error.into());
                    };
                    lock(&self.slot_addresses).insert(slot, Arc::new(target));
                }
                CommandOutcome::Rejected(error) => return Err(error.into()),
            }
        }
        Err("too many redirections between the nodes of the Redis cluster".into())
    }

    /// Returns a connection to the first reachable seed. Each seed gets its share of the remaining time.
    async fn any_connection(&self, deadline: Instant) -> Result<Connection, BoxError> {
        let mut failed = BoxError::from("no Redis URL is configured");
        for (n, address) in self.seeds.iter().enumerate() {
            let share = time_left(deadline) / (self.seeds.len() - n) as u32;
            match self.connection(address.clone(), Instant::now() + share).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connection(
        &self,
        address: Address,
        deadline: Instant,
    ) -> Result<Connection, BoxError> {
        let name = address.addr().to_string();
        if let Some(connection) = self.live_connection(&name) {
            return Ok(connection);
        }
        let timed_out = || TimedOut("Redis", self.timeout);
        let _guard = timeout_at(deadline, self.connecting.lock()).await.map_err(|_| timed_out())?;
        if let Some(connection) = self.live_connection(&name) {
            return Ok(connection);
        }
        let open = Connection::open(address, time_left(deadline), None);
        let connection = timeout_at(deadline, open).await.map_err(|_| timed_out())??;
        lock(&self.connections).insert(name, connection.clone());
        Ok(connection)
    }

    fn live_connection(&self, name: &str) -> Option<Connection> {
        lock(&self.connections).get(name).filter(|connection| !connection.has_ended()).cloned()
    }
}

debug_only!(Cluster { timeout });

/// Returns the slot of a hash tag: its CRC-16 (XMODEM) modulo the number of slots.
fn slot_of(tag: &str) -> u16 {
    let step = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
    let crc = tag.bytes().fold(0, |crc, byte| (0..8).fold(crc ^ u16::from(byte) << 8, step));
    crc % SLOTS
}

const SLOTS: u16 = 16_384;
/// The maximum number of servers that one call tries.
const MAX_REDIRECTIONS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_equals_that_of_cluster_keyslot() {
        // Computed with `CLUSTER KEYSLOT`.
        assert_eq!(slot_of("123456789"), 12_739);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of(""), 0);
    }
}
