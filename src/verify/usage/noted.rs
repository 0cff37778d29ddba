use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::Mutex,
};

use crate::verify::usage::{
    busy::{Busy, Mark},
    pending::Pending,
};
use crate::{
    model::{Key, KeyId, Timestamp},
    store::HourlyUsage,
    system::{BuildPrehashed, lock},
};

/// The uses of many keys, one entry per key.
pub(crate) struct Noted {
    keys: Mutex<Keys>,
    busy: Box<[Busy]>,
}

struct Keys {
    pending: HashMap<KeyId, Pending, BuildPrehashed>,
    /// Whose uses are counted in each place.
    busy: Box<[Option<KeyId>]>,
}

impl Default for Noted {
    fn default() -> Self {
        let keys = Keys { pending: HashMap::default(), busy: vec![None; PLACES].into() };
        Self { keys: Mutex::new(keys), busy: (0..PLACES).map(|_| Busy::new()).collect() }
    }
}

impl Noted {
    /// Notes a use; what [`Pending::again`] answers.
    #[inline]
    pub(crate) fn mark(
        &self,
        key: &Key,
        at: Timestamp,
        ip: Option<&IpAddr>,
        agent: Option<&str>,
    ) -> Option<HourlyUsage> {
        let mark = Mark::new(at, ip).of(key.id);
        if self.busy[place(key.id)].count(mark, || {}) {
            return None;
        }
        self.note(key, mark, at, ip, agent)
    }

    fn note(
        &self,
        key: &Key,
        mark: Mark,
        at: Timestamp,
        ip: Option<&IpAddr>,
        agent: Option<&str>,
    ) -> Option<HourlyUsage> {
        let ip = ip.copied();
        let mut keys = lock(&self.keys);
        let place = place(key.id);
        keys.settle(place, self.busy[place].replace(Some(mark)));
        keys.busy[place] = Some(key.id);
        let room = keys.pending.len() < MOST;
        match keys.pending.entry(key.id) {
            Entry::Occupied(mut known) => known.get_mut().again(key.id, at, ip),
            Entry::Vacant(new) if room => {
                let agent = agent.filter(|_| key.first_used_at.is_none());
                new.insert(Pending::new(key, at, ip, agent));
                None
            }
            // Full only while the store is down; then the next use after that is the one recorded.
            Entry::Vacant(_) => {
                self.busy[place].replace(None);
                None
            }
        }
    }

    /// What was noted elsewhere, or could not be written.
    pub(crate) fn add(&self, id: KeyId, pending: Pending) {
        match lock(&self.keys).pending.entry(id) {
            Entry::Occupied(mut known) => known.get_mut().merge(pending),
            Entry::Vacant(new) => drop(new.insert(pending)),
        }
    }

    pub(crate) fn take(&self) -> impl Iterator<Item = (KeyId, Pending)> {
        let mut keys = lock(&self.keys);
        for (place, busy) in self.busy.iter().enumerate() {
            keys.settle(place, busy.replace(None));
        }
        std::mem::take(&mut keys.pending).into_iter()
    }

    pub(crate) fn ids(&self) -> HashSet<KeyId> {
        lock(&self.keys).pending.keys().copied().collect()
    }
}

impl Keys {
    /// So many uses more of the key that has the place.
    fn settle(&mut self, place: usize, counted: u64) {
        let pending = self.busy[place].and_then(|id| self.pending.get_mut(&id));
        if let Some(pending) = pending {
            pending.counted(counted);
        }
    }
}

/// By other bits than those by which the map picks, and those by which a shard was picked.
fn place(id: KeyId) -> usize {
    (id.random() >> 32) as usize % PLACES
}

/// Many, because keys that share one push each other out.
const PLACES: usize = 512;
const MOST: usize = 8_192;
