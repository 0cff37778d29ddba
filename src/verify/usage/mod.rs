//! First and last use, and how many: marked in memory by a verification, written behind it in batches.

pub(crate) mod busy;
pub(crate) mod cell;
pub(crate) mod chain;
pub(crate) mod noted;
pub(crate) mod pending;
pub(crate) mod tallies;

pub(crate) use cell::{Marked, UseCell};
pub(crate) use tallies::begin_of_hour;

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use thread_local::ThreadLocal;

use crate::verify::usage::{chain::Chain, noted::Noted, pending::Pending, tallies::Tallies};
use crate::{
    model::{Key, KeyId, Timestamp},
    store::{HourlyUsage, KeyUse},
    system::{EntropyError, IdGenerator, lock},
    verify::verified::Bearer,
};

/// The uses that are not written yet.
#[derive(Default)]
pub(crate) struct Usage {
    noted: [Noted; SHARDS],
    /// Cached keys that have something to tell. A bearer enters once an interval, by the chain of the
    /// thread that uses it, for which no other thread waits.
    cached: ThreadLocal<Chain>,
    tallies: [Mutex<Tallies>; SHARDS],
}

impl Usage {
    /// Notes a use of a key that is not cached. Never waits for anything but another mark of the
    /// same shard.
    #[inline]
    pub(crate) fn mark(&self, key: &Key, at: Timestamp, ip: Option<&IpAddr>, agent: Option<&str>) {
        if let Some(tally) = self.noted[shard_of(key.id)].mark(key, at, ip, agent) {
            self.add_usage(&tally);
        }
    }

    /// Notes that a key was denied.
    pub(crate) fn denied(&self, id: KeyId, at: Timestamp) {
        self.add_usage(&HourlyUsage { denied: 1, ..HourlyUsage::none(id, begin_of_hour(at)) });
    }

    /// Notes that a key came too often.
    pub(crate) fn limited(&self, id: KeyId, at: Timestamp) {
        self.add_usage(&HourlyUsage { limited: 1, ..HourlyUsage::none(id, begin_of_hour(at)) });
    }

    fn add_usage(&self, more: &HourlyUsage) {
        lock(&self.tallies[shard_of(more.key_id)]).add(more);
    }

    /// How many keys have uses that are not written yet.
    pub(crate) fn len(&self) -> usize {
        let mut ids = HashSet::new();
        // In the order in which they are collected, or what is on its way would be seen nowhere.
        for chain in &self.cached {
            chain.look(|bearer| _ = ids.insert(bearer.key.id));
        }
        ids.extend(self.noted.iter().flat_map(Noted::ids));
        ids.len()
    }

    fn register(&self, bearer: Arc<Bearer>) {
        self.cached.get_or_default().add(bearer);
    }

    fn collect(&self) {
        for chain in &self.cached {
            chain.take(|bearer| {
                let Some(mut pending) = bearer.take() else { return };
                let id = bearer.key.id;
                self.take_tallies(id, &mut pending);
                self.noted[shard_of(id)].add(id, pending);
            });
        }
    }

    fn take_tallies(&self, id: KeyId, pending: &mut Pending) {
        pending.usage_history(id).for_each(|tally| self.add_usage(&tally));
    }

    /// Takes all that is noted; how many uses there were goes to the tallies.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<KeyUse>, EntropyError> {
        self.collect();
        let mut uses = Vec::new();
        for noted in &self.noted {
            for (id, mut pending) in noted.take() {
                self.take_tallies(id, &mut pending);
                uses.push(pending.into_use(id, ids)?);
            }
        }
        Ok(uses)
    }

    /// Puts back what could not be written.
    pub(crate) fn restore(&self, uses: &[KeyUse]) {
        for used in uses {
            self.noted[shard_of(used.key_id)].add(used.key_id, Pending::unwritten(used));
        }
    }

    /// Takes all that is counted. What is counted with uses comes by `drain`.
    pub(crate) fn drain_tallies(&self) -> Vec<HourlyUsage> {
        let mut all = Vec::new();
        for tallies in &self.tallies {
            all.extend(lock(tallies).take());
        }
        all
    }

    /// Puts back what could not be written.
    pub(crate) fn restore_tallies(&self, tallies: &[HourlyUsage]) {
        tallies.iter().for_each(|tally| self.add_usage(tally));
    }
}

/// A random byte of a UUIDv7, and none of those by which the map of a shard picks.
fn shard_of(id: KeyId) -> usize {
    usize::from(id.as_bytes()[9]) % SHARDS
}

const SHARDS: usize = 16;
