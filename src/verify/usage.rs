//! First and last use of keys, and how often they are used: counted in memory and written behind.
//!
//! Every use of a key belongs to an instant, an address and an hour. The first use in a second, or from another
//! address, is recorded in a map of the thread; uses that follow in the same second from the same address only
//! increase the key's own counter, which takes one atomic operation.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, atomic::Ordering},
};

use thread_local::ThreadLocal;

use super::{
    cache::CachedKey,
    use_counter::{UseTag, start_of_hour},
};
use crate::{
    model::{EventId, KeyId, Timestamp, bounds::MAX_USER_AGENT_CHARS, truncated},
    secret::SecretDigest,
    store::{HourlyUsage, KeyUse},
    system::{EntropyError, IdGenerator, lock},
};

/// The uses that are not written yet.
#[derive(Default)]
pub(crate) struct UsageRecorder {
    /// By thread, so that threads do not wait for each other, and by secret.
    pending: ThreadLocal<Mutex<HashMap<SecretDigest, PendingUse>>>,
    /// Uses that the store did not take, by secret.
    unwritten: Mutex<HashMap<SecretDigest, KeyUse>>,
    /// How often keys were accepted, denied and limited in each hour.
    hourly: [Mutex<HashMap<(KeyId, Timestamp), HourlyUsage>>; SHARDS],
}

/// The uses of a secret since they were last drained.
struct PendingUse {
    /// Its `event_id` is set when it is drained.
    uses: KeyUse,
    /// The key whose counter has the uses that are not in `hourly` yet.
    key: Arc<CachedKey>,
}

/// One use of a key.
#[derive(Clone, Copy)]
pub(crate) struct Use<'a> {
    pub(crate) at: Timestamp,
    pub(crate) ip: Option<&'a IpAddr>,
    pub(crate) user_agent: Option<&'a str>,
}

impl UsageRecorder {
    /// Records a use. Returns whether it is the secret's first one ever, as far as this node knows.
    #[inline]
    pub(crate) fn record(&self, key: &Arc<CachedKey>, used: Use<'_>) -> bool {
        let tag = UseTag::new(used.at, used.ip);
        !key.uses.count(tag) && self.record_with_tag(key, tag, used)
    }

    fn record_with_tag(&self, key: &Arc<CachedKey>, tag: UseTag, used: Use<'_>) -> bool {
        let counted = key.uses.restart(Some((tag, start_of_hour(used.at))));
        self.add_counted(key.facts.id, counted);
        let is_first = !key.uses.used_before.swap(true, Ordering::Relaxed);
        let mut pending = lock(self.pending.get_or_default());
        let has_room = pending.len() < MAX_PENDING_KEYS;
        match pending.entry(key.digest) {
            Entry::Occupied(mut known) => {
                let PendingUse { uses, key: counted } = known.get_mut();
                if !Arc::ptr_eq(counted, key) {
                    // The key was read again, or its account was. Its counter is a new one.
                    self.add_counted(uses.key_id, counted.uses.restart(None));
                    *counted = key.clone();
                }
                used_last(uses, used.at, used.ip.copied());
            }
            Entry::Vacant(new) if has_room => {
                let user_agent = used.user_agent.filter(|_| is_first);
                let uses = KeyUse {
                    key_id: key.facts.id,
                    digest: key.digest,
                    owner: key.facts.owner.clone(),
                    first_at: used.at,
                    last_at: used.at,
                    ip: used.ip.copied(),
                    user_agent: user_agent.map(|agent| truncated(agent, MAX_USER_AGENT_CHARS)),
                    event_id: EventId::from_bytes([0; 16]),
                };
                new.insert(PendingUse { uses, key: key.clone() });
            }
            // The key's next use after the next write is recorded.
            Entry::Vacant(_) => _ = key.uses.restart(None),
        }
        is_first
    }

    /// Counts a denial of a key.
    pub(crate) fn record_denied(&self, id: KeyId, at: Timestamp) {
        self.add_hourly(&HourlyUsage { denied: 1, ..HourlyUsage::none(id, start_of_hour(at)) });
    }

    /// Counts a request of a key that exceeded a limit.
    pub(crate) fn record_limited(&self, id: KeyId, at: Timestamp) {
        self.add_hourly(&HourlyUsage { limited: 1, ..HourlyUsage::none(id, start_of_hour(at)) });
    }

    /// Returns how many keys have uses that are not written yet.
    pub(crate) fn len(&self) -> usize {
        let mut ids: HashSet<KeyId> =
            lock(&self.unwritten).values().map(|uses| uses.key_id).collect();
        for pending in &self.pending {
            ids.extend(lock(pending).values().map(|pending| pending.uses.key_id));
        }
        ids.len()
    }

    /// Returns how many hourly counts of keys are not written yet.
    pub(crate) fn hours(&self) -> usize {
        self.hourly.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Takes all uses, one entry per secret, the earliest first; their numbers go to the hourly counts.
    pub(crate) fn drain(&self, ids: &IdGenerator) -> Result<Vec<KeyUse>, EntropyError> {
        let mut all = std::mem::take(&mut *lock(&self.unwritten));
        for pending in &self.pending {
            let mut pending = lock(pending);
            // Drained in place, so that the thread's next uses allocate nothing.
            for (_, PendingUse { uses, key }) in pending.drain() {
                self.add_counted(uses.key_id, key.uses.restart(None));
                add_uses(&mut all, uses);
            }
            pending.shrink_to(KEPT_CAPACITY);
        }
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by_key(|uses| uses.first_at);
        for n in 0..all.len() {
            match ids.event_id(all[n].first_at) {
                Ok(id) => all[n].event_id = id,
                Err(error) => {
                    self.restore(&all);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Puts back what could not be written.
    pub(crate) fn restore(&self, uses: &[KeyUse]) {
        let mut unwritten = lock(&self.unwritten);
        for uses in uses {
            if unwritten.len() < MAX_UNWRITTEN_KEYS || unwritten.contains_key(&uses.digest) {
                add_uses(&mut unwritten, uses.clone());
            }
        }
    }

    /// Takes all hourly counts. Those of uses arrive by [`drain`](Self::drain).
    pub(crate) fn drain_hourly(&self) -> Vec<HourlyUsage> {
        self.hourly
            .iter()
            .flat_map(|counts| std::mem::take(&mut *lock(counts)).into_values())
            .collect()
    }

    /// Puts back what could not be written.
    pub(crate) fn restore_hourly(&self, hours: &[HourlyUsage]) {
        hours.iter().for_each(|hour| self.add_hourly(hour));
    }

    fn add_counted(&self, id: KeyId, (hour, accepted): (Timestamp, u64)) {
        if accepted > 0 {
            self.add_hourly(&HourlyUsage { accepted, ..HourlyUsage::none(id, hour) });
        }
    }

    fn add_hourly(&self, more: &HourlyUsage) {
        // By a random byte of a UUIDv7.
        let shard = usize::from(more.key_id.as_bytes()[9]) % SHARDS;
        let mut counts = lock(&self.hourly[shard]);
        let has_room = counts.len() < MAX_HOURLY_COUNTS;
        let sum = match counts.entry((more.key_id, more.hour)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if has_room => new.insert(HourlyUsage::none(more.key_id, more.hour)),
            Entry::Vacant(_) => return,
        };
        sum.accepted = sum.accepted.saturating_add(more.accepted);
        sum.denied = sum.denied.saturating_add(more.denied);
        sum.limited = sum.limited.saturating_add(more.limited);
    }
}

/// Adds the uses of a secret that another thread recorded, or that were not written.
fn add_uses(all: &mut HashMap<SecretDigest, KeyUse>, more: KeyUse) {
    match all.entry(more.digest) {
        Entry::Vacant(new) => _ = new.insert(more),
        Entry::Occupied(mut known) => {
            let known = known.get_mut();
            used_last(known, more.last_at, more.ip);
            if more.first_at < known.first_at {
                known.first_at = more.first_at;
                known.user_agent = more.user_agent.or(known.user_agent.take());
            } else if known.user_agent.is_none() {
                known.user_agent = more.user_agent;
            }
        }
    }
}

fn used_last(uses: &mut KeyUse, at: Timestamp, ip: Option<IpAddr>) {
    if at >= uses.last_at {
        (uses.last_at, uses.ip) = (at, ip);
    }
}

const SHARDS: usize = 16;
/// Per thread.
const MAX_PENDING_KEYS: usize = 1 << 18;
/// Per thread, after a write.
const KEPT_CAPACITY: usize = 1 << 10;
/// Keys whose uses the store did not take. The next use of a key that is not among them is recorded.
const MAX_UNWRITTEN_KEYS: usize = 1 << 18;
/// Per shard. Counts of further hours are dropped.
const MAX_HOURLY_COUNTS: usize = 8_192;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::HOUR;

    fn used(at: Timestamp, agent: Option<&str>) -> Use<'_> {
        Use { at, ip: None, user_agent: agent }
    }

    fn noon() -> Timestamp {
        Timestamp::MIN.after(HOUR * 12)
    }

    fn hourly(usage: &UsageRecorder) -> Vec<(Timestamp, u64)> {
        let hours = usage.drain_hourly();
        let mut hours: Vec<_> = hours.iter().map(|hour| (hour.hour, hour.accepted)).collect();
        hours.sort();
        hours
    }

    #[test]
    fn a_key_that_was_read_again_is_recorded_as_one_key() {
        let usage = UsageRecorder::default();
        let before = Arc::new(CachedKey::for_tests());
        assert!(usage.record(&before, used(noon(), Some("curl"))));
        assert!(!usage.record(&before, used(noon(), Some("curl"))));
        let after = Arc::new(before.with_account(before.account.clone(), before.rates.clone(), 0));
        assert!(!usage.record(&after, used(noon(), Some("wget"))));
        // By a verification that began before.
        assert!(!usage.record(&before, used(noon().after(HOUR), None)));
        assert_eq!(usage.len(), 1);

        let uses = usage.drain(&IdGenerator::default()).unwrap();
        assert_eq!(uses.len(), 1);
        assert_eq!((uses[0].first_at, uses[0].last_at), (noon(), noon().after(HOUR)));
        assert_eq!(uses[0].user_agent.as_deref(), Some("curl"));
        assert_eq!(hourly(&usage), [(noon(), 3), (noon().after(HOUR), 1)]);
    }

    /// The first use may be recorded by another thread than the earliest one.
    #[test]
    fn a_first_use_keeps_its_user_agent_in_whatever_order_uses_are_merged() {
        let uses = |seconds, agent: Option<&str>| KeyUse {
            key_id: KeyId::from_bytes([7; 16]),
            digest: SecretDigest::nothing(),
            owner: CachedKey::for_tests().facts.owner.clone(),
            first_at: noon().after(Duration::from_secs(seconds)),
            last_at: noon().after(Duration::from_secs(seconds)),
            ip: None,
            user_agent: agent.map(Into::into),
            event_id: EventId::from_bytes([0; 16]),
        };
        for agents in [[Some("curl"), None], [None, Some("curl")]] {
            for order in [[0, 1], [1, 0]] {
                let mut all = HashMap::new();
                order.into_iter().for_each(|n| add_uses(&mut all, uses(n as u64, agents[n])));
                let merged = &all[&SecretDigest::nothing()];
                assert_eq!(merged.user_agent.as_deref(), Some("curl"), "{agents:?}, {order:?}");
                assert_eq!(merged.first_at, noon());
                assert_eq!(merged.last_at, noon().after(Duration::from_secs(1)));
            }
        }
    }

    #[test]
    fn uses_are_counted_in_their_hour_in_whatever_order_they_arrive() {
        let (usage, key) = (UsageRecorder::default(), Arc::new(CachedKey::for_tests()));
        for hours in [0, 1, 0, 0, 1, 0, 1, 2, 1, 2] {
            usage.record(&key, used(noon().after(HOUR * hours), None));
        }
        assert_eq!(usage.drain(&IdGenerator::default()).unwrap().len(), 1);
        let expected = [(0, 4), (1, 4), (2, 2)].map(|(n, uses)| (noon().after(HOUR * n), uses));
        assert_eq!(hourly(&usage), expected);
    }
}
