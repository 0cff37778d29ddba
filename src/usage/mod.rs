//! First and last use, and how many: marked in memory by a verification, written behind it in batches.

mod cell;
mod tallies;

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

pub(crate) use cell::{Marked, UseCell};
use tallies::Tallies;
pub(crate) use tallies::begin_of_hour;

use crate::{
    format::EntropyError,
    key::{IdGenerator, Key, KeyId, MAX_USER_AGENT, Owner, Timestamp, fitted},
    lock::lock,
    prehashed::BuildPrehashed,
    store::{Tally, Use},
};

/// The uses that are not written yet, one entry per key.
#[derive(Default)]
pub(crate) struct Usage {
    shards: [Mutex<Noted>; SHARDS],
    /// Cells of cached keys that have something to tell. A cell enters once an interval.
    cells: [Mutex<Vec<Arc<UseCell>>>; SHARDS],
    tallies: [Mutex<Tallies>; SHARDS],
}

type Noted = HashMap<KeyId, Pending, BuildPrehashed>;

struct Pending {
    owner: Owner,
    first_at: Timestamp,
    last_at: Timestamp,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    /// How many uses there were in this hour, which are not tallied yet.
    uses: u64,
    hour: Timestamp,
}

impl Pending {
    /// Only the event of a first use tells the program.
    fn new(key: &Key, at: Timestamp, ip: Option<IpAddr>, agent: Option<&str>) -> Self {
        let user_agent = agent.map(|agent| fitted(agent, MAX_USER_AGENT));
        let (owner, hour) = (key.owner.clone(), begin_of_hour(at));
        Self { owner, first_at: at, last_at: at, ip, user_agent, uses: 0, hour }
    }

    fn again(&mut self, at: Timestamp, ip: Option<IpAddr>) {
        if at >= self.last_at {
            (self.last_at, self.ip) = (at, ip);
        }
    }

    /// The hour that was counted until now, if this is another one.
    fn hour_over(&mut self, at: Timestamp) -> Option<Timestamp> {
        let hour = begin_of_hour(at);
        (hour != self.hour).then(|| std::mem::replace(&mut self.hour, hour))
    }

    /// Both are of the same key.
    fn merge(&mut self, other: Self) {
        self.again(other.last_at, other.ip);
        if other.first_at < self.first_at {
            self.first_at = other.first_at;
        }
        self.user_agent = self.user_agent.take().or(other.user_agent);
    }
}

impl Usage {
    /// Notes a use of a key that is not cached. Never waits for anything but another mark of the
    /// same shard.
    pub(crate) fn mark(&self, key: &Key, at: Timestamp, ip: Option<IpAddr>, agent: Option<&str>) {
        self.tally(Tally { accepted: 1, ..Tally::none(key.id, begin_of_hour(at)) });
        let mut shard = self.shard(key.id);
        let room = shard.len() < MAX_PER_SHARD;
        match shard.entry(key.id) {
            Entry::Occupied(mut known) => known.get_mut().again(at, ip),
            // Full only while the store is down; then the next use after that is the one recorded.
            Entry::Vacant(_) if !room => {}
            Entry::Vacant(new) => {
                let agent = agent.filter(|_| key.first_used_at.is_none());
                new.insert(Pending::new(key, at, ip, agent));
            }
        }
    }

    /// Notes that a key was denied.
    pub(crate) fn denied(&self, id: KeyId, at: Timestamp) {
        self.tally(Tally { denied: 1, ..Tally::none(id, begin_of_hour(at)) });
    }

    /// Notes that a key came too often.
    pub(crate) fn limited(&self, id: KeyId, at: Timestamp) {
        self.tally(Tally { limited: 1, ..Tally::none(id, begin_of_hour(at)) });
    }

    fn tally(&self, more: Tally) {
        lock(&self.tallies[shard_of(more.key_id)]).add(&more);
    }

    /// How many keys have uses that are not written yet.
    pub(crate) fn len(&self) -> usize {
        let marked: usize = self.shards.iter().map(|shard| lock(shard).len()).sum();
        marked + self.cells.iter().map(|cells| lock(cells).len()).sum::<usize>()
    }

    fn register(&self, cell: Arc<UseCell>) {
        lock(&self.cells[shard_of(cell.key_id())]).push(cell);
    }

    fn collect(&self) {
        for cells in &self.cells {
            // Not in the head of the loop, which would keep the lock to its end.
            let cells = std::mem::take(&mut *lock(cells));
            for cell in cells {
                let Some(pending) = cell.take() else { continue };
                let none = Tally::none(cell.key_id(), pending.hour);
                self.tally(Tally { accepted: pending.uses, ..none });
                match self.shard(cell.key_id()).entry(cell.key_id()) {
                    Entry::Occupied(mut known) => known.get_mut().merge(pending),
                    Entry::Vacant(new) => drop(new.insert(pending)),
                }
            }
        }
    }

    /// Takes all that is noted.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<Use>, EntropyError> {
        self.collect();
        let mut uses = Vec::new();
        for shard in &self.shards {
            let shard = std::mem::take(&mut *lock(shard));
            for (key_id, pending) in shard {
                let Pending { owner, first_at, last_at, ip, user_agent, .. } = pending;
                let event_id = ids.event_id(first_at)?;
                uses.push(Use { key_id, owner, first_at, last_at, ip, user_agent, event_id });
            }
        }
        Ok(uses)
    }

    /// Puts back what could not be written, behind what was noted meanwhile.
    pub(crate) fn restore(&self, uses: &[Use]) {
        for used in uses {
            let mut pending = Pending {
                owner: used.owner.clone(),
                first_at: used.first_at,
                last_at: used.last_at,
                ip: used.ip,
                user_agent: used.user_agent.clone(),
                uses: 0,
                hour: begin_of_hour(used.last_at),
            };
            let mut shard = self.shard(used.key_id);
            if let Some(later) = shard.remove(&used.key_id) {
                pending.merge(later);
            }
            shard.insert(used.key_id, pending);
        }
    }

    /// Takes all that is counted. What cells have counted comes with their uses, by `drain`.
    pub(crate) fn drain_tallies(&self) -> Vec<Tally> {
        let mut all = Vec::new();
        for tallies in &self.tallies {
            all.extend(lock(tallies).take());
        }
        all
    }

    /// Puts back what could not be written.
    pub(crate) fn restore_tallies(&self, tallies: &[Tally]) {
        tallies.iter().for_each(|tally| self.tally(*tally));
    }

    fn shard(&self, id: KeyId) -> MutexGuard<'_, Noted> {
        lock(&self.shards[shard_of(id)])
    }
}

/// A random byte of a UUIDv7, and none of those by which the map of a shard picks.
fn shard_of(id: KeyId) -> usize {
    usize::from(id.as_bytes()[9]) % SHARDS
}

const SHARDS: usize = 16;
const MAX_PER_SHARD: usize = 8_192;
