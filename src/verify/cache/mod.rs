//! Verified keys in memory, and the rules by which they are trusted.
//!
//! An entry is trusted only while nothing was invalidated for it since its read began ([`InvalidationEpochs`]), and
//! only while this node would know of a change ([`Freshness`]). Keys and unknown digests have separate space, so that
//! garbage evicts no key. Everything else is decided on every hit: expiry, the end of an overlap, account, network,
//! access, rate.

mod bounded_map;
mod cached_key;
mod epochs;
mod freshness;
mod options;
mod single_flight;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use self::{
    bounded_map::BoundedMap,
    epochs::{InvalidationEpochs, Slot},
};
pub(crate) use self::{
    bounded_map::KeyedHash, cached_key::CachedKey, epochs::ReadStamp, freshness::Freshness,
    single_flight::SingleFlight,
};
pub use self::{freshness::FeedState, options::CacheOptions};
use super::{
    facts::{Interner, KeyFacts},
    limits::KeyRates,
    throttle::Throttle,
    use_counter::UseCounter,
};
use crate::{
    accounts::Account,
    error::Error,
    model::{KeyId, Owner},
    secret::SecretDigest,
};

/// Verified keys and unknown digests in memory. Instants are nanoseconds of the cache time.
///
/// A disabled cache holds nothing, so that verification without a cache is the same path.
pub(crate) struct Cache {
    pub(super) is_enabled: bool,
    keys: BoundedMap<CachedKey>,
    unknown: BoundedMap<UnknownDigest>,
    epochs: InvalidationEpochs,
    slot_hash: RandomState,
    /// Shares what many keys have in common.
    pub(super) interner: Interner,
    pub(super) freshness: Freshness,
    pub(super) throttle: Throttle,
    pub(super) max_staleness: Duration,
}

/// Why the cache has no key for a digest that verification can use.
pub(crate) enum CacheMiss {
    /// The owner's account has to be read again.
    AccountStale(Arc<CachedKey>),
    /// The key has to be read again.
    KeyStale,
    /// No key has the digest.
    NoSuchKey,
    /// The store has to be asked whether there is a key.
    Unknown,
}

/// The result of a load, which several callers may share.
#[derive(Clone)]
pub(crate) enum Loaded {
    Key(Arc<CachedKey>),
    NoSuchKey(ReadStamp),
    Failed(Error),
}

/// A digest that no key had when it was looked up.
struct UnknownDigest {
    digest: SecretDigest,
    read: ReadStamp,
}

impl AsRef<SecretDigest> for UnknownDigest {
    fn as_ref(&self) -> &SecretDigest {
        &self.digest
    }
}

impl Cache {
    /// Creates a cache, or a disabled one. Readings of the clock may lag by `lag`, so entries are trusted for a time that
    /// is shorter by it.
    pub(crate) fn new(options: Option<&CacheOptions>, lag: Duration) -> Self {
        let disabled = CacheOptions::disabled();
        let is_enabled = options.is_some();
        let options = options.unwrap_or(&disabled);
        let bound = options.max_staleness.saturating_sub(lag);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Self {
            is_enabled,
            keys: BoundedMap::new(options.max_keys),
            unknown: BoundedMap::new(options.max_unknown),
            epochs: InvalidationEpochs::new(options.max_keys),
            slot_hash: RandomState::new(),
            interner: Interner::default(),
            freshness: Freshness::new(bound, options.strict),
            throttle: Throttle::new(
                is_enabled.then_some(options.unknown_lookups),
                options.failed_attempts,
            ),
            max_staleness: options.max_staleness,
        }
    }

    /// Returns the key of a digest, if it is cached and trusted: a cache hit takes no lock and does not allocate.
    ///
    /// The map finds digests by their first 64 bits, under a secret hash, and compares them in constant time.
    #[inline]
    pub(crate) fn get(&self, digest: &SecretDigest, now: u64) -> Result<Arc<CachedKey>, CacheMiss> {
        let Some(key) = self.keys.get(digest) else { return Err(self.miss(digest, now)) };
        if !self.trusts(&key, now) {
            Err(CacheMiss::KeyStale)
        } else if !self.freshness.is_within_bound(key.account_read_at, now) {
            Err(CacheMiss::AccountStale(key))
        } else {
            Ok(key)
        }
    }

    fn miss(&self, digest: &SecretDigest, now: u64) -> CacheMiss {
        let is_known = self.unknown.get(digest).is_some_and(|unknown| {
            self.freshness.covers(unknown.read.at, now)
                && self.epochs.is_unchanged(unknown.read.epoch)
        });
        if is_known { CacheMiss::NoSuchKey } else { CacheMiss::Unknown }
    }

    #[inline]
    fn trusts(&self, key: &CachedKey, now: u64) -> bool {
        self.freshness.covers(key.read.at, now) && self.is_current(key)
    }

    /// Returns whether nothing of a key was invalidated since its read began.
    #[inline]
    pub(crate) fn is_current(&self, key: &CachedKey) -> bool {
        self.epochs.is_current(key.read.epoch, key.slots)
    }

    /// Returns the stamp of a read that begins now. MUST be called before the store is asked.
    pub(crate) fn begin_read(&self, now: u64) -> ReadStamp {
        ReadStamp { epoch: self.epochs.current(), at: now }
    }

    /// Makes a key that verification can use of what was read. Does not insert it.
    pub(crate) fn cached_key(
        &self,
        facts: KeyFacts,
        used_before: bool,
        account: Arc<Account>,
        rates: KeyRates,
        digest: SecretDigest,
        read: ReadStamp,
    ) -> CachedKey {
        let slots = [self.key_slot(facts.id), self.owner_slot(&facts.owner)];
        let (uses, account_read_at) = (UseCounter::new(used_before), read.at);
        CachedKey { uses, facts, account, rates, digest, read, account_read_at, slots }
    }

    pub(crate) fn insert(&self, key: Arc<CachedKey>) {
        self.keys.insert(key);
    }

    pub(crate) fn insert_unknown(&self, digest: SecretDigest, read: ReadStamp) {
        self.unknown.insert(Arc::new(UnknownDigest { digest, read }));
    }

    /// Returns whether a caller that arrived at `arrived` may still use a key that was found for it, or loaded for an
    /// earlier caller, after all that the caller waited for.
    pub(crate) fn answers(&self, key: &CachedKey, arrived: ReadStamp, now: u64) -> bool {
        let is_current = || self.is_current(key);
        self.freshness.is_within_bound(key.account_read_at, now)
            && self.freshness.answers(key.read, arrived, now, is_current)
    }

    /// Returns whether a caller that arrived at `arrived` may be answered that a read found nothing.
    pub(crate) fn answers_unknown(&self, read: ReadStamp, arrived: ReadStamp, now: u64) -> bool {
        self.freshness.answers(read, arrived, now, || self.epochs.is_unchanged(read.epoch))
    }

    /// Returns whether what was read since `read_at`, past the cache, may still be used.
    pub(crate) fn is_within_bound(&self, read_at: u64, now: u64) -> bool {
        self.freshness.is_within_bound(read_at, now)
    }

    pub(crate) fn invalidate_key(&self, id: KeyId) {
        self.epochs.invalidate(self.key_slot(id));
    }

    pub(crate) fn invalidate_owner(&self, owner: &Owner) {
        self.epochs.invalidate(self.owner_slot(owner));
    }

    pub(crate) fn invalidate_all(&self) {
        self.epochs.invalidate_all();
    }

    /// Invalidates unknown digests: a new key may have one of them.
    pub(crate) fn invalidate_unknown(&self) {
        self.epochs.invalidate_negative();
    }

    pub(crate) fn feed_state(&self, now: u64) -> FeedState {
        if self.is_enabled { self.freshness.state(now) } else { FeedState::Idle }
    }

    pub(crate) fn staleness(&self, now: u64) -> Option<Duration> {
        self.freshness.staleness(now).map(Duration::from_nanos)
    }

    /// Returns the number of cached keys, and of cached unknown digests.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.keys.len(), self.unknown.len())
    }

    fn key_slot(&self, id: KeyId) -> Slot {
        self.epochs.slot(self.slot_hash.hash_one(id))
    }

    fn owner_slot(&self, owner: &Owner) -> Slot {
        self.epochs.slot(self.slot_hash.hash_one(owner))
    }
}
