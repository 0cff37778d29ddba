use std::sync::{Arc, LazyLock};

use super::{
    VerifyError, VerifyRequest,
    authorize::authorize_secret,
    cache::{CacheMiss, CachedKey, Loaded},
    facts::KeyFacts,
    verifier::{Presented, Verifier},
};
use crate::{
    accounts::Account,
    error::{Error, ErrorKind},
    secret::{Candidates, SecretDigest},
    store::{FoundKey, StoreError},
    system::Now,
};

impl Verifier {
    /// Finds a key that the cache does not have, or does not trust: with one query per digest, however many callers wait
    /// for it. `now` becomes the time of the answer.
    pub(super) async fn find(
        self: &Arc<Self>,
        presented: &Presented<'_>,
        mut miss: CacheMiss,
        request: &VerifyRequest<'_>,
        now: &mut Now,
    ) -> Result<Arc<CachedKey>, VerifyError> {
        self.feed.ensure_running();
        let throttle = &self.cache.throttle;
        let Presented { text, digest, arrived } = *presented;
        for _ in 0..MAX_LOADS {
            // A digest that this node knows as a key's is looked up, however many unknown ones are presented.
            let may_be_unknown = matches!(miss, CacheMiss::NoSuchKey | CacheMiss::Unknown);
            if may_be_unknown
                && let Err(limited) = throttle.check(request.ip, now.monotonic_timestamp())
            {
                return Err(self.limit(limited, None, now.at, request));
            }
            if matches!(miss, CacheMiss::NoSuchKey) {
                return Err(self.deny_unknown(request, *now));
            }
            request.note_cache_miss();
            let is_new = matches!(miss, CacheMiss::Unknown);
            if is_new && !throttle.may_look_up(request.ip, now.monotonic_timestamp()) {
                return Err(VerifyError::Unavailable(Error::new(
                    ErrorKind::Unavailable,
                    TOO_MANY_UNKNOWN,
                )));
            }
            let loaded = self.load_shared(text, digest, miss).await;
            *now = self.clock.coarse_now();
            // A load is repeated if its answer is outdated: if it took longer than the bound, or if it began before this
            // caller arrived and was invalidated since.
            match loaded {
                Loaded::Key(key) if self.cache.answers(&key, arrived, now.cache_time) => {
                    return Ok(key);
                }
                Loaded::NoSuchKey(read)
                    if self.cache.answers_unknown(read, arrived, now.cache_time) =>
                {
                    if is_new {
                        throttle.record_unknown(request.ip, now.monotonic_timestamp());
                    }
                    return Err(self.deny_unknown(request, *now));
                }
                Loaded::Failed(error) => return Err(VerifyError::Unavailable(error)),
                Loaded::Key(_) | Loaded::NoSuchKey(_) => {}
            }
            match self.cache.get(&digest, now.cache_time) {
                Ok(key) => return Ok(key),
                Err(again) => miss = again,
            }
        }
        Err(VerifyError::Unavailable(self.too_slow()))
    }

    /// Returns the error of a read that took longer than the bound, more than once.
    pub(super) fn too_slow(&self) -> Error {
        let message = format!(
            "the key store and the host's accounts took longer to answer than {:?}, the bound for the age of an answer: \
             try again; if they are always so slow, raise `max_staleness`",
            self.cache.max_staleness
        );
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Loads what the cache lacks, together with other callers that lack it. Without a cache, each caller loads for
    /// itself: an answer must not be older than its request.
    async fn load_shared(
        self: &Arc<Self>,
        presented: &[u8],
        digest: SecretDigest,
        miss: CacheMiss,
    ) -> Loaded {
        let load = || {
            let candidates = self.hashers.candidates_with(digest, presented);
            let stale_account = match miss {
                CacheMiss::AccountStale(key) => Some(key),
                _ => None,
            };
            Box::pin(self.clone().load(candidates, stale_account))
        };
        if !self.cache.is_enabled {
            return load().await;
        }
        self.loads.share(digest, || load() as _).await.unwrap_or_else(|| {
            let message = "the look-up of the key panicked: try again, and report a bug";
            Loaded::Failed(Error::new(ErrorKind::Unavailable, message))
        })
    }

    /// Reads a key and its account, or the account alone, and caches them.
    async fn load(
        self: Arc<Self>,
        candidates: Candidates,
        stale_account: Option<Arc<CachedKey>>,
    ) -> Loaded {
        let mut now = self.clock.coarse_now();
        let current = *candidates.current();
        if let Some(key) = stale_account {
            return match self.reload_account(&key, now).await {
                Ok(key) => self.insert(key),
                Err(error) => Loaded::Failed(error),
            };
        }
        let (read, found) = loop {
            let read = self.cache.begin_read(now.cache_time);
            let found = match self.find_in_store(candidates.as_slice()).await {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.cache.insert_unknown(current, read);
                    return Loaded::NoSuchKey(read);
                }
                Err(error) => return Loaded::Failed(error.into()),
            };
            if !self.writer.replacements.wait_for_end(found.key.id).await {
                break (read, found);
            }
            now = self.clock.coarse_now();
        };
        let facts = KeyFacts::new(&found, &self.cache.interner);
        let account = match self.account(&facts, now).await {
            Ok(account) => account,
            Err(error) => return Loaded::Failed(error),
        };
        let rates = self.rates.of_key(&facts, &account.limits, now.monotonic_timestamp());
        // The first use of a key, and of its current secret, is written without delay.
        let used_before = match found.ends_at {
            None => found.key.secret_first_used_at.is_some(),
            Some(_) => found.key.first_used_at.is_some(),
        };
        let key = self.cache.cached_key(facts, used_before, account, rates, current, read);
        if found.digest.tag() == current.tag() {
            self.insert(key)
        } else {
            // Cached after it moved to the current hasher.
            self.writer.rehash(found.digest, current);
            Loaded::Key(Arc::new(key))
        }
    }

    fn insert(&self, key: CachedKey) -> Loaded {
        let key = Arc::new(key);
        self.cache.insert(key.clone());
        Loaded::Key(key)
    }

    async fn reload_account(&self, key: &CachedKey, now: Now) -> Result<CachedKey, Error> {
        let facts = &key.facts;
        let account = self.account(facts, now).await?;
        let rates = self.rates.of_key(facts, &account.limits, now.monotonic_timestamp());
        Ok(key.with_account(account, rates, now.cache_time))
    }

    /// Returns the account of a key's owner. A key that does not work is denied without asking the host.
    pub(super) async fn account(&self, key: &KeyFacts, now: Now) -> Result<Arc<Account>, Error> {
        static UNKNOWN: LazyLock<Arc<Account>> = LazyLock::new(|| Arc::new(Account::unknown()));
        match authorize_secret(key, now.at) {
            Ok(()) => self.accounts.account(&key.owner).await.map_err(Error::accounts),
            Err(_) => Ok(UNKNOWN.clone()),
        }
    }

    /// Begins to read past the cache.
    pub(super) fn read_past_cache(&self) -> TimedRead<'_> {
        TimedRead { verifier: self, tries_left: 2, began: 0 }
    }

    /// Asks the store, and asks it again if its answer is older than the bound.
    pub(super) async fn find_past_cache(
        &self,
        digests: &[SecretDigest],
    ) -> Result<Option<FoundKey>, Error> {
        let mut read = self.read_past_cache();
        loop {
            read.begin()?;
            let found = self.find_in_store(digests).await?;
            if read.is_within_bound() {
                return Ok(found);
            }
        }
    }

    /// Asks the store once for all digests, and compares in constant time. Where nothing was found, a constant is
    /// compared, so that both cost the same.
    pub(super) async fn find_in_store(
        &self,
        digests: &[SecretDigest],
    ) -> Result<Option<FoundKey>, StoreError> {
        static NOTHING: SecretDigest = SecretDigest::nothing();
        let found = self.store.find(digests).await?;
        let stored = found.as_ref().map_or(&NOTHING, |found| &found.digest);
        let equal = digests.iter().map(|digest| digest.ct_eq(stored));
        let equal = equal.reduce(|any, other| any | other).is_some_and(bool::from);
        Ok(found.filter(|_| equal))
    }
}

/// A read past the cache, which is repeated if its answer is older than the bound.
pub(super) struct TimedRead<'a> {
    verifier: &'a Verifier,
    tries_left: u8,
    began: u64,
}

impl TimedRead<'_> {
    /// Call this before each try.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.tries_left = self.tries_left.checked_sub(1).ok_or_else(|| self.verifier.too_slow())?;
        self.began = self.verifier.clock.coarse_now().cache_time;
        Ok(())
    }

    /// Returns whether the answer of the last try may be used.
    pub(super) fn is_within_bound(&self) -> bool {
        let now = self.verifier.clock.coarse_now().cache_time;
        self.verifier.cache.is_within_bound(self.began, now)
    }
}

/// The load of an earlier caller, the caller's own, and another one if the process was stopped meanwhile.
const MAX_LOADS: usize = 3;
const TOO_MANY_UNKNOWN: &str =
    "too many unknown keys are presented to look up another one: try again in a second";
