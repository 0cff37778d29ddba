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
    /// Uses that had nothing to add but that they were there.
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
        if self.last.load(Ordering::SeqCst) != mark {
            return self.note(usage, mark, 1, at, ip, agent);
        }
        self.uses.fetch_add(1, Ordering::SeqCst);
        // In one order with `take`: a use that it did not see finds that it has been there.
        if self.last.load(Ordering::SeqCst) != mark {
            return self.note(usage, mark, 0, at, ip, agent);
        }
        Marked::Again
    }

    fn note(
        self: &Arc<Self>,
        usage: &Usage,
        mark: u64,
        uses: u64,
        at: Timestamp,
        ip: Option<IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let mut pending = lock(&self.pending);
        self.last.store(mark, Ordering::SeqCst);
        match &mut *pending {
            Some(pending) => {
                if let Some(hour) = pending.hour_over(at) {
                    let accepted = std::mem::take(&mut pending.uses) + self.take_uses();
                    usage.tally(Tally { accepted, ..Tally::none(self.key.id, hour) });
                }
                pending.uses += uses;
                pending.again(at, ip);
                Marked::Again
            }
            None => {
                let first = !self.begun.swap(true, Ordering::Relaxed);
                let noted = Pending::new(&self.key, at, ip, agent.filter(|_| first));
                *pending = Some(Pending { uses, ..noted });
                drop(pending);
                usage.register(self.clone());
                if first { Marked::First } else { Marked::Again }
            }
        }
    }

    fn take_uses(&self) -> u64 {
        self.uses.swap(0, Ordering::SeqCst)
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.key.id
    }

    pub(super) fn take(&self) -> Option<Pending> {
        let pending = lock(&self.pending).take();
        // The next use is noted, whatever it has in common with the last one.
        self.last.store(0, Ordering::SeqCst);
        pending.map(|pending| Pending { uses: pending.uses + self.take_uses(), ..pending })
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
