use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Usage,
    busy::{Busy, Mark},
    pending::Pending,
};
use crate::{
    key::{Key, KeyId, Timestamp},
    lock::lock,
};

/// The uses of one cached key. Marks of different keys never meet; those of one key do so a
/// hundred times a second.
pub(crate) struct UseCell {
    key: Arc<Key>,
    busy: Busy,
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
        Arc::new(Self { key, busy: Busy::new(), pending: Mutex::default(), begun })
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
        let mark = Mark::new(self.key.id, at, ip);
        if self.busy.count(mark) {
            return Marked::Again;
        }
        self.note(usage, mark, at, ip, agent)
    }

    fn note(
        self: &Arc<Self>,
        usage: &Usage,
        mark: Mark,
        at: Timestamp,
        ip: Option<IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let mut pending = lock(&self.pending);
        let counted = self.busy.replace(Some(mark));
        match &mut *pending {
            Some(pending) => {
                pending.counted(counted);
                if let Some(tally) = pending.again(self.key.id, at, ip) {
                    usage.tally(&tally);
                }
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

    /// What is to be written.
    pub(super) fn take(&self) -> Option<Pending> {
        let mut pending = lock(&self.pending);
        let counted = self.busy.replace(None);
        let mut pending = pending.take()?;
        pending.counted(counted);
        Some(pending)
    }
}
