//! First and last use: marked in memory by a verification, written behind it in batches.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Mutex, MutexGuard},
};

use crate::{
    format::EntropyError,
    key::{IdGenerator, Key, KeyId, MAX_USER_AGENT, Owner, Timestamp, fitted},
    lock::lock,
    store::Use,
};

/// The uses that are not written yet, one entry per key.
#[derive(Default)]
pub(crate) struct Usage {
    shards: [Mutex<HashMap<KeyId, Pending>>; SHARDS],
}

struct Pending {
    owner: Owner,
    first_at: Timestamp,
    last_at: Timestamp,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

impl Usage {
    /// Notes a use. Never waits for anything but another mark of the same shard.
    pub(crate) fn mark(&self, key: &Key, at: Timestamp, ip: Option<IpAddr>, agent: Option<&str>) {
        let mut shard = self.shard(key.id);
        let room = shard.len() < MAX_PER_SHARD;
        match shard.entry(key.id) {
            Entry::Occupied(mut known) => {
                let pending = known.get_mut();
                if at >= pending.last_at {
                    (pending.last_at, pending.ip) = (at, ip);
                }
            }
            // Full only while the store is down; then the next use after that is the one recorded.
            Entry::Vacant(_) if !room => {}
            Entry::Vacant(new) => {
                // Only the event of a first use tells the program.
                let agent = agent.filter(|_| key.first_used_at.is_none());
                new.insert(Pending {
                    owner: key.owner.clone(),
                    first_at: at,
                    last_at: at,
                    ip,
                    user_agent: agent.map(|agent| fitted(agent, MAX_USER_AGENT)),
                });
            }
        }
    }

    /// Takes all that is noted.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<Use>, EntropyError> {
        let mut uses = Vec::new();
        for shard in &self.shards {
            for (key_id, pending) in std::mem::take(&mut *lock(shard)) {
                let Pending { owner, first_at, last_at, ip, user_agent } = pending;
                let event_id = ids.event_id(first_at)?;
                uses.push(Use { key_id, owner, first_at, last_at, ip, user_agent, event_id });
            }
        }
        Ok(uses)
    }

    /// Puts back what could not be written, behind what was noted meanwhile.
    pub(crate) fn restore(&self, uses: &[Use]) {
        for used in uses {
            let mut shard = self.shard(used.key_id);
            let later = shard.remove(&used.key_id);
            let (last_at, ip) = match &later {
                Some(later) if later.last_at > used.last_at => (later.last_at, later.ip),
                _ => (used.last_at, used.ip),
            };
            let pending = Pending {
                owner: used.owner.clone(),
                first_at: used.first_at,
                last_at,
                ip,
                user_agent: used.user_agent.clone(),
            };
            shard.insert(used.key_id, pending);
        }
    }

    /// The last byte of a UUIDv7 is random.
    fn shard(&self, id: KeyId) -> MutexGuard<'_, HashMap<KeyId, Pending>> {
        lock(&self.shards[usize::from(id.as_bytes()[15]) % SHARDS])
    }
}

const SHARDS: usize = 16;
const MAX_PER_SHARD: usize = 8_192;
