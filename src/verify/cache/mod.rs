//! Verified keys in memory, and what keeps a revoked one from coming back.
//!
//! An entry is believed only while nothing was invalidated for it since its read began (the
//! `fence`), and only while this node knows that it would have heard of a change (the `feed`).
//! Known keys and unknown digests have room of their own, so that garbage makes no key be forgotten.
//! Whatever else decides about a request is checked on every hit: expiry, the end of an overlap,
//! the account, the network, the access, the rate.

pub(crate) mod bearers;
pub(crate) mod bounded;
pub(crate) mod entry;
pub(crate) mod feed;
pub(crate) mod fence;
pub(crate) mod flights;
pub(crate) mod lookups;
pub(crate) mod networks;
pub(crate) mod options;
pub(crate) mod shared;

pub(crate) use entry::{Entry, Read};
pub use feed::FeedState;
pub(crate) use feed::Freshness;
pub(crate) use flights::Flights;
pub use options::CacheOptions;

use std::{hash::BuildHasher, net::IpAddr, sync::Arc, time::Duration};

use crate::verify::cache::{
    bounded::{Bounded, Keyed, Pinned},
    fence::Fence,
    lookups::Lookups,
    networks::Throttle,
    shared::Shared,
};
use crate::{
    accounts::Account,
    model::{KeyId, Owner, Timestamp},
    secret::SecretDigest,
    verify::{
        limits::{limited::Limited, meter::Meter},
        verified::Bearer,
    },
};

/// All that a node remembers of the store. Instants are nanoseconds of a clock that nobody sets.
pub(crate) struct Cache {
    keys: Bounded<Entry>,
    unknown: Bounded<Read>,
    fence: Fence,
    places: Keyed,
    shared: Shared,
    freshness: Freshness,
    lookups: Lookups,
    throttle: Option<Throttle>,
    max_staleness: Duration,
}

/// What the cache knows of a digest that is not that of a key it can judge.
pub(crate) enum Known {
    /// A key whose use is counted elsewhere, which has to be waited for.
    Metered(Box<Entry>),
    /// A key whose account has to be asked for again.
    AccountDue(Box<Entry>),
    /// A key that has to be read again.
    KeyDue,
    /// There is none.
    Nothing,
    /// Whether there is one, the store has to tell.
    Unclear,
}

impl Cache {
    /// Whoever asks may be so far behind that what it takes for fresh is older by this `lag`.
    pub(crate) fn new(options: &CacheOptions, lag: Duration) -> Self {
        let bound = options.max_staleness.saturating_sub(lag);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Self {
            keys: Bounded::new(options.max_keys),
            unknown: Bounded::new(options.max_unknown),
            fence: Fence::new(options.max_keys),
            places: Keyed::default(),
            shared: Shared::default(),
            freshness: Freshness::new(bound, options.strict),
            lookups: Lookups::new(options.unknown_lookups),
            throttle: options.failed_attempts.map(Throttle::new),
            max_staleness: options.max_staleness,
        }
    }

    /// The way of a hit: no lock, no allocation, and the entry is judged where it is. The keys are held
    /// meanwhile.
    #[inline]
    pub(crate) fn look<'a>(
        &self,
        keys: &'a Pinned<'_, Entry>,
        digest: &SecretDigest,
        now: u64,
    ) -> Result<&'a Entry, Known> {
        let Some(entry) = keys.get(digest) else {
            return Err(self.look_elsewhere(digest, now));
        };
        if !self.believes(entry, now) {
            Err(Known::KeyDue)
        } else if !self.freshness.covers_account(entry.account_at, now) {
            Err(Known::AccountDue(Box::new(entry.clone())))
        } else if entry.meter.waits() {
            Err(Known::Metered(Box::new(entry.clone())))
        } else {
            if entry.is_crowded() {
                self.set_apart(digest);
            }
            Ok(entry)
        }
    }

    #[cold]
    fn set_apart(&self, digest: &SecretDigest) {
        self.keys.update(digest, Entry::apart);
    }

    /// Holds the keys for a [`look`](Cache::look).
    #[inline]
    pub(crate) fn keys(&self) -> Pinned<'_, Entry> {
        self.keys.pin()
    }

    fn look_elsewhere(&self, digest: &SecretDigest, now: u64) -> Known {
        let unknown = self.unknown.pin();
        let nothing = unknown.get(digest).is_some_and(|read| {
            self.freshness.covers(read.at, now) && self.fence.is_still(read.token)
        });
        if nothing { Known::Nothing } else { Known::Unclear }
    }

    #[inline]
    fn believes(&self, entry: &Entry, now: u64) -> bool {
        self.freshness.covers(entry.read.at, now)
            && self.fence.holds(entry.read.token, entry.places)
    }

    /// To be called before the store is asked.
    pub(crate) fn begin(&self, now: u64) -> Read {
        Read { token: self.fence.begin(), at: now }
    }

    pub(crate) fn entry(
        &self,
        bearer: Bearer,
        ends_at: Option<Timestamp>,
        meter: Meter,
        read: Read,
    ) -> Entry {
        let places = [self.key_place(bearer.key.id), self.owner_place(&bearer.key.owner)];
        Entry::new(bearer, ends_at, meter, read, places, &self.shared)
    }

    /// The same key with what the host says of its owner now. It is believed no longer than before.
    pub(crate) fn renewed(
        &self,
        entry: &Entry,
        account: &Arc<Account>,
        meter: Meter,
        now: u64,
    ) -> Entry {
        entry.renewed(account, meter, now, &self.shared)
    }

    pub(crate) fn insert(&self, digest: SecretDigest, entry: Entry) {
        self.keys.insert(digest, entry);
    }

    pub(crate) fn insert_unknown(&self, digest: SecretDigest, read: Read) {
        self.unknown.insert(digest, read);
    }

    /// Whether who came at `arrived` may be told what this entry's read found.
    pub(crate) fn answers(&self, entry: &Entry, arrived: Read) -> bool {
        entry.read.token >= arrived.token || self.fence.holds(entry.read.token, entry.places)
    }

    /// Whether who came at `arrived` may be told that this read found nothing.
    pub(crate) fn answers_nothing(&self, read: Read, arrived: Read) -> bool {
        read.token >= arrived.token || self.fence.is_still(read.token)
    }

    pub(crate) fn forget_key(&self, id: KeyId) {
        self.fence.invalidate(self.key_place(id));
    }

    pub(crate) fn forget_owner(&self, owner: &Owner) {
        self.fence.invalidate(self.owner_place(owner));
    }

    pub(crate) fn forget_all(&self) {
        self.fence.invalidate_all();
    }

    /// A digest may be known by now that was not before.
    pub(crate) fn forget_unknown(&self) {
        self.fence.announce_account_change();
    }

    /// Whether a network that failed too often has to wait.
    pub(crate) fn admits(&self, ip: Option<IpAddr>, now: Timestamp) -> Result<(), Box<Limited>> {
        self.throttle.as_ref().map_or(Ok(()), |throttle| throttle.check(ip, now))
    }

    #[inline]
    pub(crate) fn succeeded(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(throttle) = &self.throttle {
            throttle.succeeded(ip, now);
        }
    }

    pub(crate) fn failed(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(throttle) = &self.throttle {
            throttle.failed(ip, now);
        }
    }

    /// Whether the store may be asked for a digest that it may not have.
    pub(crate) fn may_ask(&self, ip: Option<IpAddr>, now: Timestamp) -> bool {
        self.lookups.may_ask(ip, now)
    }

    pub(crate) fn asked_in_vain(&self, ip: Option<IpAddr>, now: Timestamp) {
        self.lookups.in_vain(ip, now);
    }

    pub(crate) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    pub(crate) fn max_staleness(&self) -> Duration {
        self.max_staleness
    }

    pub(crate) fn state(&self, now: u64) -> FeedState {
        self.freshness.state(now)
    }

    pub(crate) fn staleness(&self, now: u64) -> Option<Duration> {
        self.freshness.staleness(now).map(Duration::from_nanos)
    }

    /// How many keys are held, and how many digests that are known to be none.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.keys.len(), self.unknown.len())
    }

    fn key_place(&self, id: KeyId) -> fence::Place {
        self.fence.place(self.places.hash_one(id))
    }

    fn owner_place(&self, owner: &Owner) -> fence::Place {
        self.fence.place(self.places.hash_one(owner))
    }
}
