use std::sync::Arc;

use crate::{
    accounts::Account,
    model::{Key, Timestamp},
    secret::{Candidates, SecretDigest},
    store::{FoundKey, StoreError},
    verify::{
        cache::{
            Cache, Known,
            entry::{Entry, Read},
        },
        denied::DeniedReason,
        limits::meter::Meter,
        verified::{Bearer, Verified},
    },
};
use crate::{
    api::{Inner, Now},
    error::{Error, ErrorKind},
    verify::{request::VerifyRequest, verdict::check_key, verify::VerifyError},
};

/// What a verification asks for that the cache could not answer.
pub(crate) struct Asked<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) digest: SecretDigest,
    pub(crate) now: Now,
}

/// What came of a read that several may have waited for.
#[derive(Clone)]
pub(crate) enum Loaded {
    Key(Entry),
    Nothing(Read),
    Failed(Error),
}

impl Inner {
    /// The way of a verification that has to wait: it asks once, together with all others who want
    /// to know the same, and asks again if what it is told was outdated when it came.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        cache: &Cache,
        asked: Asked<'_>,
        mut known: Known,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        self.ensure_follower();
        request.note_waiting();
        let Asked { text, digest, mut now } = asked;
        loop {
            if let Known::Metered(entry) = &known {
                return self.judge_metered(entry, now, request).await;
            }
            if matches!(known, Known::Nothing | Known::Unclear) {
                let admitted = cache.admits(request.ip, now.steady());
                admitted.map_err(|limited| self.limit(limited, None, now.at, request))?;
            }
            if matches!(known, Known::Nothing) {
                return Err(self.unknown(cache, now, request));
            }
            // What was a key once is worth a look, whatever else is going on.
            let fresh = matches!(known, Known::Unclear);
            if fresh && !cache.may_ask(request.ip, now.steady()) {
                return Err(VerifyError::Unavailable(too_many_unknown()));
            }
            let arrived = cache.begin(now.tick);
            let load = || {
                let candidates = self.hashers.candidates_with(digest, text);
                let due = match known {
                    Known::AccountDue(entry) => Some(*entry),
                    _ => None,
                };
                Box::pin(self.clone().load(candidates, due)) as _
            };
            let loaded = self.flights.share(digest, load).await;
            now = self.glance();
            match loaded.unwrap_or_else(|| Loaded::Failed(panicked())) {
                Loaded::Key(entry) if cache.answers(&entry, arrived) => {
                    return if entry.meter.waits() {
                        self.judge_metered(&entry, now, request).await
                    } else {
                        self.judge_entry(&entry, now, request)
                    };
                }
                Loaded::Nothing(read) if cache.answers_nothing(read, arrived) => {
                    if fresh {
                        cache.asked_in_vain(request.ip, now.steady());
                    }
                    return Err(self.unknown(cache, now, request));
                }
                Loaded::Failed(error) => return Err(VerifyError::Unavailable(error)),
                Loaded::Key(_) | Loaded::Nothing(_) => {}
            }
            let keys = cache.keys();
            known = match cache.look(&keys, &digest, now.tick) {
                Ok(entry) => return self.judge_entry(entry, now, request),
                Err(known) => known,
            };
        }
    }

    /// Reads what the cache lacks, and leaves it there.
    async fn load(self: Arc<Self>, candidates: Candidates, due: Option<Entry>) -> Loaded {
        let Some(cache) = &self.cache else { return Loaded::Failed(panicked()) };
        let now = self.glance();
        let read = cache.begin(now.tick);
        let current = *candidates.current();
        let loaded = match due {
            Some(entry) => self.renew(cache, &entry, now).await.map(|entry| (entry, current)),
            None => match self.find(&candidates).await {
                Ok(None) => {
                    cache.insert_unknown(current, read);
                    return Loaded::Nothing(read);
                }
                Ok(Some(found)) => self.bearer(&found, now.at).await.map(|bearer| {
                    let meter = self.meter(&bearer.key, &bearer.account, now);
                    (cache.entry(bearer, found.ends_at, meter, read), found.digest)
                }),
                Err(error) => Err(error.into()),
            },
        };
        match loaded {
            Ok((entry, digest)) => {
                // A key under a retired hasher is cached when it has moved to the current one.
                if digest.tag() == current.tag() {
                    cache.insert(current, entry.clone());
                } else {
                    self.move_to(current, digest);
                }
                Loaded::Key(entry)
            }
            Err(error) => Loaded::Failed(error),
        }
    }

    async fn renew(&self, cache: &Cache, entry: &Entry, now: Now) -> Result<Entry, Error> {
        let key = &entry.bearer().key;
        let account = self.account(&key.owner).await?;
        let meter = self.meter(key, &account, now);
        Ok(cache.renewed(entry, &account, meter, now.tick))
    }

    /// Queries the store once for a verification without a cache.
    pub(crate) async fn search(&self, asked: &Asked<'_>) -> Result<Option<FoundKey>, StoreError> {
        self.find(&self.hashers.candidates_with(asked.digest, asked.text)).await
    }

    /// Queries the store once.
    pub(crate) async fn find(
        &self,
        candidates: &Candidates,
    ) -> Result<Option<FoundKey>, StoreError> {
        let found = self.store.find(candidates.as_slice()).await?;
        Ok(compared(found, candidates.as_slice()))
    }

    /// What comes of a key that was read, if nobody has to be waited for.
    #[inline(always)]
    pub(crate) fn judge_found(
        self: &Arc<Self>,
        found: FoundKey,
        account: Arc<Account>,
        meter: &Meter,
        asked: &Asked<'_>,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        self.admit(&found.key, &account, found.ends_at, asked.now, request)?;
        let spent = self.charge(&found.key, meter, asked.now, request)?;
        self.note_found(&found, asked, request);
        Ok(Verified::read(found.key, account, asked.now.at, spent))
    }

    /// The same, where a limiter or a quota has to be asked.
    pub(crate) async fn pay_for(
        self: &Arc<Self>,
        found: FoundKey,
        account: Arc<Account>,
        meter: Meter,
        asked: &Asked<'_>,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        self.admit(&found.key, &account, found.ends_at, asked.now, request)?;
        let metered = self.pay(&found.key, &account, &meter, asked.now, request).await?;
        self.note_found(&found, asked, request);
        Ok(Verified::metered(metered, asked.now.at))
    }

    #[inline(always)]
    fn note_found(
        self: &Arc<Self>,
        found: &FoundKey,
        asked: &Asked<'_>,
        request: &VerifyRequest<'_>,
    ) {
        self.ensure_writer();
        let (ip, user_agent) = (request.ip.as_ref(), request.user_agent);
        self.outbox.usage.mark(&found.key, asked.now.at, ip, user_agent);
        if found.digest.tag() != asked.digest.tag() {
            self.move_to(asked.digest, found.digest);
        }
        if found.key.first_used_at.is_none() {
            self.outbox.hurry();
        }
    }

    async fn bearer(&self, found: &FoundKey, now: Timestamp) -> Result<Bearer, Error> {
        let account = match self.account_at_once(found, now) {
            Some(account) => account,
            None => self.account(&found.key.owner).await?,
        };
        Ok(Bearer::new(found.key.clone(), account))
    }

    /// A key that does not work needs nothing of the host to be refused.
    #[inline(always)]
    pub(crate) fn account_at_once(&self, found: &FoundKey, now: Timestamp) -> Option<Arc<Account>> {
        match check_key(&found.key, found.ends_at, now) {
            Ok(()) => self.accounts.at_once(&found.key.owner),
            Err(_) => Some(Arc::new(Account::nobody())),
        }
    }

    fn meter(&self, key: &Key, account: &Account, now: Now) -> Meter {
        self.rates.meter(key, &account.limits, now.steady())
    }

    fn move_to(self: &Arc<Self>, current: SecretDigest, from: SecretDigest) {
        self.ensure_writer();
        self.outbox.rehash(from, current);
        self.outbox.hurry();
    }

    pub(crate) fn unknown(
        self: &Arc<Self>,
        cache: &Cache,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> VerifyError {
        cache.failed(request.ip, now.steady());
        self.deny(DeniedReason::Unknown, now.at, request)
    }
}

/// What is found is compared in constant time, and something is compared also where nothing was
/// found, so that both cost the same.
#[inline(always)]
fn compared(found: Option<FoundKey>, candidates: &[SecretDigest]) -> Option<FoundKey> {
    let stored = found.as_ref().map_or(&NOTHING, |found| &found.digest);
    let all = candidates.iter().map(|digest| digest.ct_eq(stored));
    let same = all.reduce(|same, other| same | other);
    if same.is_some_and(bool::from) { found } else { None }
}

fn too_many_unknown() -> Error {
    let message = "too many unknown keys are asked for; try again in a second";
    Error::new(ErrorKind::Unavailable, message)
}

fn panicked() -> Error {
    Error::new(ErrorKind::Unavailable, "the key could not be looked up; try again later")
}

/// What is compared where nothing was found; no hasher makes this tag.
static NOTHING: SecretDigest = SecretDigest::nothing();
