use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Pending, Usage, recent::fingerprint};
use crate::{
    key::{Key, KeyId, Timestamp},
    lock::lock,
};

/// The uses of one cached key. Marks of different keys never meet; those of one key do so once in
/// a millisecond.
pub(crate) struct UseCell {
    key: Arc<Key>,
    /// Millisecond and address of the last mark: one that says the same has nothing to add.
    last: AtomicU64,
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
        Arc::new(Self { key, last: AtomicU64::new(0), pending: Mutex::default(), begun })
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
        if self.last.load(Ordering::Relaxed) == mark {
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
        self.last.store(mark, Ordering::Relaxed);
        match &mut *pending {
            Some(pending) => {
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

    pub(super) fn key_id(&self) -> KeyId {
        self.key.id
    }

    pub(super) fn take(&self) -> Option<Pending> {
        lock(&self.pending).take()
    }
}
