#[cfg(not(test))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

#[cfg(test)]
use shuttle::sync::atomic::AtomicU64;

/// Knows whether something was invalidated since a read of it began.
///
/// A late reader may still insert what it read into the cache, but it is not trusted: an entry carries the
/// [`epoch`](Self::current) from before its read, and every hit compares it with the last invalidation of the entry's
/// slots. So no entry has to be found and removed, no lock is held between the check and an insertion, and
/// invalidating one key, all keys of an owner, or everything costs the same.
///
/// Keys that share a slot are read again without need.
pub(crate) struct InvalidationEpochs {
    /// The number of invalidations so far.
    current: AtomicU64,
    /// The epoch of the last invalidation of each slot; in the last place, of everything.
    slots: Box<[AtomicU64]>,
}

/// Where invalidations of a key or an owner are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// The number of invalidations when a read began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// When a read began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadStamp {
    pub(super) epoch: Epoch,
    pub(super) at: u64,
}

impl InvalidationEpochs {
    /// Creates at least `slots` slots, within bounds.
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS).next_power_of_two();
        Self { current: AtomicU64::new(0), slots: (0..=slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Returns the epoch in which a read begins. MUST be called before the read.
    #[inline]
    pub(crate) fn current(&self) -> Epoch {
        Epoch(self.current.load(Ordering::Acquire))
    }

    /// Returns the slot of what has this hash.
    pub(crate) fn slot(&self, hash: u64) -> Slot {
        let slots = self.slots.len() as u64 - 1;
        Slot((hash & (slots - 1)) as u32)
    }

    /// Invalidates what belongs to the slot and was read before.
    ///
    /// MUST be called after a change is committed and before it is acknowledged.
    pub(crate) fn invalidate(&self, slot: Slot) {
        // The epoch first: a read that begins in between counts as later, because the change is committed.
        let epoch = self.current.fetch_add(1, Ordering::AcqRel) + 1;
        self.slots[slot.0 as usize].fetch_max(epoch, Ordering::AcqRel);
    }

    /// Invalidates everything that was read before.
    pub(crate) fn invalidate_all(&self) {
        self.invalidate(Slot(self.slots.len() as u32 - 1));
    }

    /// Invalidates every read before that found nothing.
    pub(crate) fn invalidate_negative(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns whether nothing of these slots was invalidated since.
    #[inline]
    pub(crate) fn is_current(&self, since: Epoch, slots: [Slot; 2]) -> bool {
        // Where nothing at all was invalidated, no slot has to be read.
        if self.is_unchanged(since) {
            return true;
        }
        let last = |slot: usize| self.slots[slot].load(Ordering::Acquire);
        let everything = last(self.slots.len() - 1);
        last(slots[0].0 as usize).max(last(slots[1].0 as usize)).max(everything) <= since.0
    }

    /// Returns whether nothing at all was invalidated since.
    #[inline]
    pub(crate) fn is_unchanged(&self, since: Epoch) -> bool {
        self.current.load(Ordering::Acquire) == since.0
    }
}

/// 512 KiB. Beyond that, sharing a slot is rare for any number of keys.
const MAX_SLOTS: usize = 1 << 16;

/// Under a model checker, which tries the orders in which threads can run. `EPOCH_SCHEDULES` sets the number of schedules;
/// the default keeps CI fast.
#[cfg(test)]
mod tests {
    use std::{env, panic::catch_unwind, sync::Arc};

    use shuttle::{check_pct, check_random, sync::Mutex, thread};

    use super::*;

    /// A node with one key: its store, its cache, and the last acknowledged change.
    struct Node {
        /// The version of the key. A reader must never see a version from before a change that was acknowledged before
        /// its read began.
        stored: Mutex<u64>,
        cached: Mutex<Option<(u64, Epoch)>>,
        epochs: InvalidationEpochs,
        acknowledged: AtomicU64,
        scheme: Scheme,
    }

    #[derive(Clone, Copy)]
    enum Scheme {
        Epochs,
        /// Read, then insert; change, then remove.
        Naive,
        /// Invalidates before the change only.
        TooEarly,
    }

    impl Node {
        fn new(scheme: Scheme) -> Arc<Self> {
            Arc::new(Self {
                stored: Mutex::new(0),
                cached: Mutex::new(None),
                epochs: InvalidationEpochs::new(2),
                acknowledged: AtomicU64::new(0),
                scheme,
            })
        }

        fn verify(&self) {
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            let slots = [self.epochs.slot(0), self.epochs.slot(1)];
            let cached = *self.cached.lock().unwrap();
            let believed = cached.filter(|(_, epoch)| match self.scheme {
                Scheme::Naive => true,
                Scheme::Epochs | Scheme::TooEarly => self.epochs.is_current(*epoch, slots),
            });
            let seen = believed.map_or_else(|| self.read(), |(version, _)| version);
            assert!(seen >= acknowledged, "saw {seen} after {acknowledged} was acknowledged");
        }

        fn read(&self) -> u64 {
            let epoch = self.epochs.current();
            let version = *self.stored.lock().unwrap();
            *self.cached.lock().unwrap() = Some((version, epoch));
            version
        }

        fn change(&self, everything: bool) {
            if matches!(self.scheme, Scheme::TooEarly) {
                self.epochs.invalidate(self.epochs.slot(0));
            }
            let version = {
                let mut stored = self.stored.lock().unwrap();
                *stored += 1;
                *stored
            };
            match self.scheme {
                Scheme::Naive => *self.cached.lock().unwrap() = None,
                Scheme::TooEarly => {}
                Scheme::Epochs if everything => self.epochs.invalidate_all(),
                Scheme::Epochs => self.epochs.invalidate(self.epochs.slot(0)),
            }
            self.acknowledged.fetch_max(version, Ordering::SeqCst);
        }
    }

    /// Two threads verify, two change, and the key is verified once more at the end.
    fn scenario(scheme: Scheme) {
        let node = Node::new(scheme);
        let mut threads = Vec::new();
        for n in 0..2 {
            let reader = node.clone();
            threads.push(thread::spawn(move || {
                reader.verify();
                reader.verify();
            }));
            let writer = node.clone();
            threads.push(thread::spawn(move || writer.change(n == 1)));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        node.verify();
    }

    fn schedules() -> usize {
        env::var("EPOCH_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
    }

    #[test]
    fn no_schedule_brings_an_invalidated_key_back() {
        check_random(|| scenario(Scheme::Epochs), schedules() / 2);
        check_pct(|| scenario(Scheme::Epochs), schedules() / 2, 3);
    }

    #[test]
    fn the_model_catches_a_cache_without_epochs() {
        let naive = catch_unwind(|| check_random(|| scenario(Scheme::Naive), 20_000));
        assert!(naive.is_err(), "plain read-then-insert must be seen to fail");
        let early = catch_unwind(|| check_random(|| scenario(Scheme::TooEarly), 20_000));
        assert!(early.is_err(), "invalidating only before the change must be seen to fail");
    }
}
