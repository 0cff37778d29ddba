use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Pending, Usage};
use crate::{
    key::{Key, KeyId, Timestamp},
    lock::lock,
    store::Tally,
};

/// The uses of one cached key. Marks of different keys never meet; those of one key do so once in
/// a millisecond.
pub(crate) struct UseCell {
    key: Arc<Key>,
    /// Millisecond and address of the last mark: one that says the same has nothing to add.
    last: AtomicU64,
    /// Uses that are not tallied yet.
    uses: AtomicU64,
    pending: Mutex<Option<Pending>>,
    /// Its first use has been noted, or was before it was cached.
    begun: AtomicBool,
}

/// Whether something waits that is not to be lost: a first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Marked {
    First,
    Again,
}

impl UseCell {
    pub(crate) fn new(key: Arc<Key>) -> Arc<Self> {
        let begun = AtomicBool::new(key.first_used_at.is_some());
        let (last, uses) = Default::default();
        Arc::new(Self { key, last, uses, pending: Mutex::default(), begun })
    }

    /// Notes a use.
    #[inline]
    pub(crate) fn mark(
        self: &Arc<Self>,
        usage: &Usage,
        at: Timestamp,
        ip: Option<IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let mark = fingerprint(at, ip);
        // In one order with `take`: a use that it does not see finds that it has been there.
        self.uses.fetch_add(1, Ordering::SeqCst);
        if self.last.load(Ordering::SeqCst) == mark {
            return Marked::Again;
        }
        self.note(usage, mark, at, ip, agent)
    }

    fn note(
        self: &Arc<Self>,
        usage: &Usage,
        mark: u64,
        at: Timestamp,
        ip: Option<IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let mut pending = lock(&self.pending);
        self.last.store(mark, Ordering::SeqCst);
        match &mut *pending {
            Some(pending) => {
                if let Some(hour) = pending.hour_over(at) {
                    self.tally(usage, hour);
                }
                pending.again(at, ip);
                Marked::Again
            }
            None => {
                let first = !self.begun.swap(true, Ordering::Relaxed);
                *pending = Some(Pending::new(&self.key, at, ip, agent.filter(|_| first)));
                drop(pending);
                usage.register(self.clone());
                if first { Marked::First } else { Marked::Again }
            }
        }
    }

    /// All uses but the present one were in that hour.
    fn tally(&self, usage: &Usage, hour: Timestamp) {
        let uses = self.uses.swap(0, Ordering::SeqCst);
        if uses > 0 {
            self.uses.fetch_add(1, Ordering::SeqCst);
            usage.tally(Tally { accepted: uses - 1, ..Tally::none(self.key.id, hour) });
        }
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.key.id
    }

    /// What is to be written, and how many uses it were in its hour.
    pub(super) fn take(&self) -> Option<(Pending, u64)> {
        let pending = lock(&self.pending).take();
        // The next use says so, and is counted then, whatever it has in common with the last one.
        self.last.store(0, Ordering::SeqCst);
        pending.map(|pending| (pending, self.uses.swap(0, Ordering::SeqCst)))
    }
}

/// Never zero, which is what a new cell has.
fn fingerprint(at: Timestamp, ip: Option<IpAddr>) -> u64 {
    let address = match ip {
        None => 1,
        Some(IpAddr::V4(v4)) => u64::from(v4.to_bits()).wrapping_mul(SPREAD),
        Some(IpAddr::V6(v6)) => {
            let bits = v6.to_bits();
            (bits as u64 ^ (bits >> 64) as u64).wrapping_mul(SPREAD)
        }
    };
    let millis = at.as_unix_micros() as u64 / 1_000;
    millis.wrapping_mul(SPREAD) ^ (address >> 1) | 1
}

/// The golden ratio in 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
