use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{Cmd, ConnectionInfo, ServerErrorKind, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    store::redis::{
        BoxError, CommandOutcome, Connection, TimedOut, has_kind, needs_other_server,
        redirect_target, time_left,
    },
    system::lock,
};

/// One server, or the nodes of a cluster as far as they are known: one connection to each.
pub(crate) struct Nodes {
    seeds: Vec<Address>,
    timeout: Duration,
    lines: Mutex<HashMap<String, Connection>>,
    /// Where a node has sent us for a slot.
    slots: Mutex<HashMap<u16, Address>>,
    /// One caller connects, and all others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

type Address = Arc<ConnectionInfo>;

/// A script as the server knows it, once it has been sent.
pub(crate) struct Script {
    hash: String,
    text: &'static str,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { hash: redis::Script::new(text).get_hash().into(), text }
    }
}

/// What a script is run on. All keys are in one slot.
pub(crate) struct Call<'a> {
    pub(crate) script: &'a Script,
    pub(crate) tag: &'a str,
    pub(crate) keys: &'a [String],
    pub(crate) arguments: &'a [String],
}

impl Nodes {
    pub(crate) fn new(seeds: Vec<ConnectionInfo>, timeout: Duration) -> Self {
        Self {
            seeds: seeds.into_iter().map(Arc::new).collect(),
            timeout,
            lines: Mutex::default(),
            slots: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Runs a script on the node that has the slot. One that was sent and not answered is not sent
    /// again.
    pub(crate) async fn run(&self, call: &Call<'_>) -> Result<Value, BoxError> {
        let (deadline, slot) = (Instant::now() + self.timeout, slot_of(call.tag));
        for _ in 0..HOPS {
            let known = lock(&self.slots).get(&slot).cloned();
            let line = match known {
                Some(address) => self.line(address, deadline).await,
                None => self.any(deadline).await,
            };
            let line = line.inspect_err(|_| drop(lock(&self.slots).remove(&slot)))?;
            let mut sent = line.send(&call.command("EVALSHA", &call.script.hash), deadline).await;
            if let CommandOutcome::Rejected(error) = &sent
                && has_kind(error, ServerErrorKind::NoScript)
            {
                sent = line.send(&call.command("EVAL", call.script.text), deadline).await;
            }
            match sent {
                CommandOutcome::Answered(answer) => return Ok(answer),
                CommandOutcome::Lost(source) => return Err(source),
                CommandOutcome::Rejected(error) if needs_other_server(&error) => {
                    let address = error.redirect_node().map(|(address, _)| address);
                    match address.and_then(|address| redirect_target(&line.server, address)) {
                        Some(address) => drop(lock(&self.slots).insert(slot, Arc::new(address))),
                        None => {
                            line.abandon();
                            return Err(error.into());
                        }
                    }
                }
                CommandOutcome::Rejected(error) => return Err(error.into()),
            }
        }
        Err("the nodes of the cluster send from one to the other".into())
    }

    /// A connection to one of the servers that were named, each tried for its share of the time.
    async fn any(&self, deadline: Instant) -> Result<Connection, BoxError> {
        let mut failed = BoxError::from("there is no server to ask");
        for (n, address) in self.seeds.iter().enumerate() {
            let share = time_left(deadline) / (self.seeds.len() - n) as u32;
            match self.line(address.clone(), Instant::now() + share).await {
                Ok(line) => return Ok(line),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn line(&self, address: Address, deadline: Instant) -> Result<Connection, BoxError> {
        let name = address.addr().to_string();
        if let Some(line) = self.live(&name) {
            return Ok(line);
        }
        let Ok(_one) = timeout_at(deadline, self.connecting.lock()).await else {
            return Err(TimedOut("Redis", self.timeout).into());
        };
        if let Some(line) = self.live(&name) {
            return Ok(line);
        }
        let open = Connection::open(address, time_left(deadline), None);
        let line =
            timeout_at(deadline, open).await.map_err(|_| TimedOut("Redis", self.timeout))??;
        lock(&self.lines).insert(name, line.clone());
        Ok(line)
    }

    fn live(&self, name: &str) -> Option<Connection> {
        lock(&self.lines).get(name).filter(|line| !line.has_ended()).cloned()
    }
}

impl Call<'_> {
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(self.keys).arg(self.arguments);
        command
    }
}

/// The slot of a hash tag: its CRC-16 as XMODEM has it.
fn slot_of(tag: &str) -> u16 {
    let step = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
    let crc = tag.bytes().fold(0, |crc, byte| (0..8).fold(crc ^ u16::from(byte) << 8, step));
    crc % SLOTS
}

const SLOTS: u16 = 16_384;
/// How often a change of address is followed within one call.
const HOPS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_redis_computes() {
        // `CLUSTER KEYSLOT` of the same words.
        assert_eq!(slot_of("123456789"), 12_739);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of(""), 0);
    }
}
