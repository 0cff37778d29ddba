use std::sync::atomic::{AtomicU64, Ordering};

/// Tells whether something was invalidated since a read of it began.
///
/// It does not keep a late reader from putting what it read into the cache; it keeps everyone from
/// believing it. An entry carries the number that [`begin`](Fence::begin) gave before its read, and
/// every hit compares it with the last invalidation of the entry's places. So nothing has to be
/// found and removed, no lock is held between check and insertion, and forgetting one key, all keys
/// of an owner, or everything costs the same.
///
/// Different keys may share a place: then one is read again without need.
pub(crate) struct Fence<C = AtomicU64> {
    /// How often anything was invalidated.
    count: C,
    /// By place, the number of the last invalidation; in the last one, that of everything.
    places: Box<[C]>,
}

/// Where the invalidations of something are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// How many invalidations there were when a read began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

/// A number that threads share: that of the standard library, or of the model checker.
pub(crate) trait Counter {
    fn zero() -> Self;
    fn load(&self) -> u64;
    /// Adds one; answers what it was before.
    fn increase(&self) -> u64;
    fn raise_to(&self, at_least: u64);
}

impl<C: Counter> Fence<C> {
    /// A fence with room to tell so many things apart, or a few more.
    pub(crate) fn new(places: usize) -> Self {
        let places = places.clamp(1, MAX_PLACES).next_power_of_two();
        Self { count: C::zero(), places: (0..=places).map(|_| C::zero()).collect() }
    }

    /// To be called before a read begins.
    #[inline]
    pub(crate) fn begin(&self) -> Token {
        Token(self.count.load())
    }

    /// The place of what has this hash.
    pub(crate) fn place(&self, hash: u64) -> Place {
        let places = self.places.len() as u64 - 1;
        // The lower half of the hash picks, and there are never more places than it can tell apart.
        Place((hash & (places - 1)) as u32)
    }

    /// What belongs to the place is not to be believed any more, unless its read begins now.
    ///
    /// MUST be called after a change is committed and before it is acknowledged.
    pub(crate) fn invalidate(&self, place: Place) {
        // First the count: whoever begins in between is taken for later, and rightly so, because
        // the change is committed.
        let number = self.count.increase() + 1;
        self.places[place.0 as usize].raise_to(number);
    }

    /// Nothing is to be believed any more, unless its read begins now.
    pub(crate) fn invalidate_all(&self) {
        self.invalidate(Place(self.places.len() as u32 - 1));
    }

    /// Something came into being: whoever was told that there is nothing shall ask again.
    pub(crate) fn announce_account_change(&self) {
        self.count.increase();
    }

    /// Whether nothing of these places was invalidated since.
    #[inline]
    pub(crate) fn holds(&self, since: Token, places: [Place; 2]) -> bool {
        // Where nothing happened at all, no place has to be looked at.
        if self.is_still(since) {
            return true;
        }
        let last = |place: usize| self.places[place].load();
        let everything = last(self.places.len() - 1);
        last(places[0].0 as usize).max(last(places[1].0 as usize)).max(everything) <= since.0
    }

    /// Whether nothing at all was invalidated or announced since.
    #[inline]
    pub(crate) fn is_still(&self, since: Token) -> bool {
        self.count.load() == since.0
    }
}

impl Counter for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    #[inline]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    fn increase(&self) -> u64 {
        self.fetch_add(1, Ordering::AcqRel)
    }

    fn raise_to(&self, at_least: u64) {
        self.fetch_max(at_least, Ordering::AcqRel);
    }
}

/// Half a MiB: beyond that, sharing a place is rare enough at any number of keys.
const MAX_PLACES: usize = 1 << 16;
