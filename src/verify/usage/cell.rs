use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use crate::verify::usage::{
    Usage,
    busy::{Busy, Mark},
    chain::Link,
    pending::Pending,
};
use crate::{model::Timestamp, system::lock, verify::verified::Bearer};

/// The uses of a cached key by one bearer. Marks of different keys never meet; those of one key seldom
/// do: when a second is over, or another address comes.
pub(crate) struct UseCell {
    busy: Busy,
    /// Its first use has been noted, or was before it was cached.
    begun: AtomicBool,
    /// How often a thread met another one that counted, too.
    met: AtomicU32,
    pending: Mutex<Option<Pending>>,
    /// The one that entered its chain before it.
    earlier: Mutex<Link>,
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
        let (begun, met) = (AtomicBool::new(begun), AtomicU32::new(0));
        let (pending, earlier) = (Mutex::default(), Mutex::default());
        Self { busy: Busy::new(), begun, met, pending, earlier }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether threads use it at the same time all along; now and then two of them meet anywhere.
    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
        self.met.load(Ordering::Relaxed) >= CROWD
    }

    #[cfg(test)]
    pub(crate) fn crowd(&self) {
        self.met.store(CROWD, Ordering::Relaxed);
    }
}

impl Bearer {
    /// Notes a use. The address stays where it is unless it is noted: to copy it is waited for.
    #[inline]
    pub(crate) fn mark(
        self: &Arc<Self>,
        usage: &Usage,
        at: Timestamp,
        ip: Option<&IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let mark = Mark::new(at, ip);
        if self.usage.busy.count(mark, || _ = self.usage.met.fetch_add(1, Ordering::Relaxed)) {
            return Marked::Again;
        }
        self.note(usage, mark, at, ip, agent)
    }

    fn note(
        self: &Arc<Self>,
        usage: &Usage,
        mark: Mark,
        at: Timestamp,
        ip: Option<&IpAddr>,
        agent: Option<&str>,
    ) -> Marked {
        let ip = ip.copied();
        let mut pending = lock(&self.usage.pending);
        let counted = self.usage.busy.replace(Some(mark));
        match &mut *pending {
            Some(pending) => {
                pending.counted(counted);
                if let Some(tally) = pending.again(self.key.id, at, ip) {
                    usage.add_usage(&tally);
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

    pub(crate) fn earlier(&self) -> MutexGuard<'_, Link> {
        lock(&self.usage.earlier)
    }

    /// What of its uses is to be written.
    pub(crate) fn take(&self) -> Option<Pending> {
        let mut pending = lock(&self.usage.pending);
        let counted = self.usage.busy.replace(None);
        let mut pending = pending.take()?;
        pending.counted(counted);
        Some(pending)
    }
}

/// In the life of a bearer, which ends when its account is asked for again.
const CROWD: u32 = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{accounts::Account, system::IdGenerator, testing::TestKeys};

    #[tokio::test]
    async fn a_bearer_and_the_one_that_renewed_it_are_one_key() {
        let key = TestKeys::new().issue(["builds:read"]).await.key;
        let (usage, nobody) = (Usage::default(), Arc::new(Account::unknown()));
        let before = Arc::new(Bearer::new(key, nobody.clone()));
        let noon = Timestamp::MIN.after(HOUR * 12);
        assert_eq!(before.mark(&usage, noon, None, Some("curl")), Marked::First);
        let after = Arc::new(before.renewed(nobody));
        assert_eq!(after.mark(&usage, noon, None, Some("wget")), Marked::Again);
        // By a verification that began before.
        assert_eq!(before.mark(&usage, noon.after(HOUR), None, None), Marked::Again);
        assert_eq!(usage.len(), 1);

        let uses = usage.drain(&IdGenerator::default()).unwrap();
        assert_eq!(uses.len(), 1);
        assert_eq!((uses[0].first_at, uses[0].last_at), (noon, noon.after(HOUR)));
        assert_eq!(uses[0].user_agent.as_deref(), Some("curl"));
        let mut tallies = usage.drain_tallies();
        tallies.sort_by_key(|tally| tally.hour);
        let counted = tallies.iter().map(|tally| (tally.hour, tally.accepted));
        assert_eq!(counted.collect::<Vec<_>>(), [(noon, 2), (noon.after(HOUR), 1)]);
    }

    #[tokio::test]
    async fn hours_that_come_in_disorder_are_counted_apart_and_two_of_them_in_its_own_place() {
        let key = TestKeys::new().issue(["builds:read"]).await.key;
        let usage = Usage::default();
        let bearer = Arc::new(Bearer::new(key, Arc::new(Account::unknown())));
        let noon = Timestamp::MIN.after(HOUR * 12);
        let mark = |hours| _ = bearer.mark(&usage, noon.after(HOUR * hours), None, None);
        [0, 1, 0, 0, 1, 0, 1].into_iter().for_each(mark);
        assert!(usage.drain_tallies().is_empty(), "both are still in the cell");
        [2, 1, 2].into_iter().for_each(mark);
        usage.drain(&IdGenerator::default()).unwrap();
        let mut counted: Vec<_> =
            usage.drain_tallies().iter().map(|tally| (tally.hour, tally.accepted)).collect();
        counted.sort();
        let all = [(0, 4), (1, 4), (2, 2)].map(|(hours, uses)| (noon.after(HOUR * hours), uses));
        assert_eq!(counted, all);
    }

    const HOUR: Duration = Duration::from_secs(3_600);
}
