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
    key::{Bearer, Timestamp},
    lock::lock,
};

/// The uses of one cached key. Marks of different keys never meet; those of one key do so
/// once a second.
pub(crate) struct UseCell {
    busy: Busy,
    /// Its first use has been noted, or was before it was cached.
    begun: AtomicBool,
    pending: Mutex<Option<Pending>>,
}

/// Whether something waits that is not to be lost: a first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Marked {
    First,
    Again,
}

impl UseCell {
    pub(crate) fn new(begun: bool) -> Self {
        let begun = AtomicBool::new(begun);
        Self { busy: Busy::new(), begun, pending: Mutex::default() }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

impl Bearer {
    /// Notes a use.
    #[inline]
    pub(crate) fn mark(
        self: &Arc<Self>,
        usage: &Usage,
        at: Timestamp,
        ip: Option<IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let mark = Mark::new(at, ip);
        if self.usage.busy.count(mark) {
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
        let mut pending = lock(&self.usage.pending);
        let counted = self.usage.busy.replace(Some(mark));
        match &mut *pending {
            Some(pending) => {
                pending.counted(counted);
                if let Some(tally) = pending.again(self.key.id, at, ip) {
                    usage.tally(&tally);
                }
                Marked::Again
            }
            None => {
                let first = !self.usage.begun.swap(true, Ordering::Relaxed);
                *pending = Some(Pending::new(&self.key, at, ip, agent.filter(|_| first)));
                drop(pending);
                usage.register(self.clone());
                if first { Marked::First } else { Marked::Again }
            }
        }
    }

    /// What of its uses is to be written.
    pub(super) fn take(&self) -> Option<Pending> {
        let mut pending = lock(&self.usage.pending);
        let counted = self.usage.busy.replace(None);
        let mut pending = pending.take()?;
        pending.counted(counted);
        Some(pending)
    }
}
