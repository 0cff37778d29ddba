use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
#[path = "epochs_model.rs"]
mod model;

/// Knows whether something was invalidated since a read of it began.
///
/// A late reader may still insert what it read into the cache, but the entry is not used: it carries the
/// [`epoch`](Self::current) from before its read, and every hit compares it with the last invalidation of the entry's
/// slots. So no entry has to be found and removed, no lock is held between the check and an insertion, and
/// invalidating one key, all keys of an owner, or everything costs the same.
///
/// Keys that share a slot are read again without need.
pub(crate) struct InvalidationEpochs<C = AtomicU64> {
    /// The number of invalidations so far.
    current: C,
    /// The epoch of the last invalidation of each slot; in the last place, of everything.
    slots: Box<[C]>,
}

/// Where invalidations of a key or an owner are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// The number of invalidations when a read began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// An atomic number: of the standard library, or of the model checker.
pub(crate) trait AtomicNumber {
    fn zero() -> Self;
    fn load(&self) -> u64;
    /// Adds one and returns the number before.
    fn increment(&self) -> u64;
    fn raise_to(&self, at_least: u64);
}

impl<C: AtomicNumber> InvalidationEpochs<C> {
    /// Creates at least `slots` slots, within bounds.
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS).next_power_of_two();
        Self { current: C::zero(), slots: (0..=slots).map(|_| C::zero()).collect() }
    }

    /// Returns the epoch in which a read begins. MUST be called before the read.
    #[inline]
    pub(crate) fn current(&self) -> Epoch {
        Epoch(self.current.load())
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
        let epoch = self.current.increment() + 1;
        self.slots[slot.0 as usize].raise_to(epoch);
    }

    /// Invalidates everything that was read before.
    pub(crate) fn invalidate_all(&self) {
        self.invalidate(Slot(self.slots.len() as u32 - 1));
    }

    /// Invalidates every read before that found nothing.
    pub(crate) fn invalidate_negative(&self) {
        self.current.increment();
    }

    /// Returns whether nothing of these slots was invalidated since.
    #[inline]
    pub(crate) fn is_current(&self, since: Epoch, slots: [Slot; 2]) -> bool {
        // Where nothing at all was invalidated, no slot has to be read.
        if self.is_unchanged(since) {
            return true;
        }
        let last = |slot: usize| self.slots[slot].load();
        let everything = last(self.slots.len() - 1);
        last(slots[0].0 as usize).max(last(slots[1].0 as usize)).max(everything) <= since.0
    }

    /// Returns whether nothing at all was invalidated since.
    #[inline]
    pub(crate) fn is_unchanged(&self, since: Epoch) -> bool {
        self.current.load() == since.0
    }
}

#[cfg(test)]
impl Slot {
    pub(crate) fn for_tests() -> Self {
        Self(0)
    }
}

#[cfg(test)]
impl Epoch {
    pub(crate) fn for_tests() -> Self {
        Self(0)
    }
}

impl AtomicNumber for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    #[inline]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    fn increment(&self) -> u64 {
        self.fetch_add(1, Ordering::AcqRel)
    }

    fn raise_to(&self, at_least: u64) {
        self.fetch_max(at_least, Ordering::AcqRel);
    }
}

/// 512 KiB. Beyond that, sharing a slot is rare for any number of keys.
const MAX_SLOTS: usize = 1 << 16;
