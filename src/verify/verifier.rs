use std::sync::Arc;

use super::{
    Denied, DeniedReason, Limited, VerifyError, VerifyRequest,
    authorize::{authorize, authorize_secret},
    cache::{Cache, CachedKey, Loaded, ReadStamp, SingleFlight},
    change_feed::FeedFollower,
    checked_clock::CheckedClock,
    denials::Attempt,
    facts::{Interner, KeyFacts},
    limits::{Buckets, Rates},
    usage::Use,
    verified::Verified,
    write_behind::WriteBehind,
};
use crate::{
    accounts::Accounts,
    error::Error,
    model::{Key, Owner, Timestamp},
    secret::{Formats, Hashers, Malformed, SecretDigest},
    store::KeyStore,
    system::Now,
};

/// Verifies secrets: one of the two parts of [`ApiKeys`](crate::ApiKeys).
pub(crate) struct Verifier {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) formats: Arc<Formats>,
    pub(crate) hashers: Hashers,
    pub(crate) clock: Arc<CheckedClock>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) loads: SingleFlight<Loaded>,
    pub(crate) feed: Arc<FeedFollower>,
    pub(crate) rates: Rates,
    /// Limits each caller's introspection of secrets that are not those of its active keys.
    #[cfg_attr(not(feature = "manage"), expect(dead_code, reason = "for the management API"))]
    pub(crate) introspections: Buckets<Owner>,
    pub(crate) writer: Arc<WriteBehind>,
}

/// A secret that is being verified.
pub(super) struct Presented<'a> {
    pub(super) text: &'a [u8],
    pub(super) digest: SecretDigest,
    /// When its verification began.
    pub(super) arrived: ReadStamp,
}

/// The key of a presented secret: of its current secret, or of one that a rotation replaced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdentifiedKey {
    /// The key. It may be disabled, revoked or expired.
    pub key: Arc<Key>,
    /// Why the secret does not work now, whatever it is used for; `None` if it works.
    pub denied: Option<DeniedReason>,
    /// Whether a rotation replaced this secret and its overlap has ended. Then a leak of this secret is harmless.
    pub superseded: bool,
}

impl Verifier {
    /// Verifies a presented text: the six steps.
    pub(crate) async fn verify(
        self: &Arc<Self>,
        presented: &[u8],
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        if let Err(malformed) = self.formats.check(presented) {
            return Err(self.deny_malformed(malformed, request));
        }
        let digest = self.hashers.digest(presented);
        let mut now = self.clock.coarse_now();
        if !now.is_trusted {
            let checked = Box::pin(self.clock.checked_now()).await;
            now = checked.map_err(VerifyError::Unavailable)?;
        }
        let arrived = self.cache.begin_read(now.cache_time);
        let presented = Presented { text: presented, digest, arrived };
        let mut key = match self.cache.get(&digest, now.cache_time) {
            Ok(key) => key,
            Err(miss) => Box::pin(self.find(&presented, miss, request, &mut now)).await?,
        };
        self.authorize(&key, request, now)?;
        let charged = if key.rates.is_charged_remotely {
            let charge = Box::pin(self.charge_remotely(key, &presented, request, &mut now));
            let charged;
            (key, charged) = charge.await?;
            charged
        } else {
            self.charge_locally(&key, request, now)?
        };
        self.record_use(&key, request, now);
        if key.uses.was_unused && !self.cache.is_current(&key) {
            key = Box::pin(self.confirm_use(&presented, &key, request, &mut now)).await?;
        }
        Ok(Verified { key, at: now.at, ip: request.ip, charged, csrf_exempt: false })
    }

    /// Decides again about a request that had to wait: its key may have ended meanwhile. `now` becomes the time of the
    /// decision.
    pub(super) async fn decide_again(
        self: &Arc<Self>,
        key: &Arc<CachedKey>,
        presented: &Presented<'_>,
        request: &VerifyRequest<'_>,
        now: &mut Now,
    ) -> Result<Arc<CachedKey>, VerifyError> {
        *now = self.clock.coarse_now();
        let key = match self.cache.get(&presented.digest, now.cache_time) {
            _ if self.cache.answers(key, presented.arrived, now.cache_time) => key.clone(),
            Ok(key) => key,
            Err(miss) => self.find(presented, miss, request, now).await?,
        };
        self.authorize(&key, request, *now)?;
        Ok(key)
    }

    /// Returns whether what is known of a key that was verified before may still be used.
    #[cfg(feature = "http")]
    pub(crate) fn trusts(&self, verified: &Verified) -> bool {
        let now = self.clock.coarse_now().cache_time;
        self.cache.answers(&verified.key, self.cache.begin_read(now), now)
    }

    /// Authorizes a request with a known key. Rejections are counted.
    ///
    /// The coarse clock may lag, so a key that would be over at the upper bound of the present is decided again by the
    /// precise clock. Nothing is decided by a clock that is not trusted.
    #[inline]
    fn authorize(
        self: &Arc<Self>,
        key: &CachedKey,
        request: &VerifyRequest<'_>,
        now: Now,
    ) -> Result<(), VerifyError> {
        match authorize(&key.facts, &key.account, request, now.upper_bound) {
            Ok(()) if now.is_trusted => Ok(()),
            _ => self.authorize_precisely(key, request),
        }
    }

    #[cold]
    fn authorize_precisely(
        self: &Arc<Self>,
        key: &CachedKey,
        request: &VerifyRequest<'_>,
    ) -> Result<(), VerifyError> {
        let now = self.clock.precise_now();
        if !now.is_trusted {
            return Err(VerifyError::Unavailable(self.clock.refusal()));
        }
        let now = now.at;
        let Err(reason) = authorize(&key.facts, &key.account, request, now) else { return Ok(()) };
        if matches!(reason, DeniedReason::Expired | DeniedReason::SecretRetired) {
            // Even if the clock is set back, this does not become valid again.
            self.clock.hold(now);
        }
        self.writer.usage.record_denied(key.facts.id, now);
        self.count_rejection(reason.as_str(), Some(&key.facts), now, request);
        Err(Denied { reason }.into())
    }

    #[inline]
    fn record_use(self: &Arc<Self>, key: &Arc<CachedKey>, request: &VerifyRequest<'_>, now: Now) {
        self.writer.ensure_running();
        let used = Use { at: now.at, ip: request.ip.as_ref(), user_agent: request.user_agent };
        if self.writer.usage.record(key, used) {
            self.writer.hurry();
        }
        self.cache.throttle.record_success(request.ip, now.monotonic_timestamp());
    }

    /// Confirms a use that a replacement of the secret may not have seen: the key was changed since it was read, and the
    /// secret was not used then. The use is recorded, so a replacement that begins later sees it. The key may have ended
    /// while the store was asked, so it is decided again.
    #[cold]
    async fn confirm_use(
        self: &Arc<Self>,
        presented: &Presented<'_>,
        key: &Arc<CachedKey>,
        request: &VerifyRequest<'_>,
        now: &mut Now,
    ) -> Result<Arc<CachedKey>, VerifyError> {
        self.writer.replacements.wait_for_end(key.facts.id).await;
        let candidates = self.hashers.candidates_with(presented.digest, presented.text);
        match self.find_past_cache(candidates.as_slice()).await {
            Ok(Some(_)) => self.decide_again(key, presented, request, now).await,
            Ok(None) => Err(self.deny_unknown(request, *now)),
            Err(error) => Err(VerifyError::Unavailable(error)),
        }
    }

    /// Denies a text that cannot be a secret. This is cheap on purpose: such texts can arrive in large numbers.
    #[inline]
    fn deny_malformed(
        self: &Arc<Self>,
        malformed: Malformed,
        request: &VerifyRequest<'_>,
    ) -> VerifyError {
        let reason = DeniedReason::Malformed(malformed);
        self.writer.ensure_running();
        self.writer
            .denials
            .add_malformed(|| self.attempt(reason.as_str(), None, self.clock.now(), request));
        Denied { reason }.into()
    }

    /// Denies a secret that no key has.
    pub(super) fn deny_unknown(
        self: &Arc<Self>,
        request: &VerifyRequest<'_>,
        now: Now,
    ) -> VerifyError {
        self.cache.throttle.record_failure(request.ip, now.monotonic_timestamp());
        let reason = DeniedReason::Unknown;
        self.count_rejection(reason.as_str(), None, now.at, request);
        Denied { reason }.into()
    }

    /// Rejects a request that exceeds a limit.
    #[cold]
    pub(super) fn limit(
        self: &Arc<Self>,
        limited: Box<Limited>,
        key: Option<&KeyFacts>,
        at: Timestamp,
        request: &VerifyRequest<'_>,
    ) -> VerifyError {
        if let Some(key) = key {
            self.writer.usage.record_limited(key.id, at);
        }
        self.count_rejection(limited.reason.as_str(), key, at, request);
        VerifyError::Limited(limited)
    }

    fn count_rejection(
        self: &Arc<Self>,
        reason: &'static str,
        key: Option<&KeyFacts>,
        at: Timestamp,
        request: &VerifyRequest<'_>,
    ) {
        self.writer.ensure_running();
        self.writer.denials.add(self.attempt(reason, key, at, request));
    }

    fn attempt<'a>(
        &self,
        reason: &'static str,
        key: Option<&'a KeyFacts>,
        at: Timestamp,
        request: &VerifyRequest<'a>,
    ) -> Attempt<'a> {
        let key = key.map(|key| (key.id, &key.owner));
        Attempt { reason, key, at, ip: request.ip, user_agent: request.user_agent }
    }

    /// Returns the key of a presented secret, which may have been replaced. Nothing is charged or recorded.
    pub(crate) async fn identify(&self, presented: &[u8]) -> Result<Option<IdentifiedKey>, Error> {
        if self.formats.check(presented).is_err() {
            return Ok(None);
        }
        let candidates = self.hashers.candidates(presented);
        let found = self.find_past_cache(candidates.as_slice()).await?;
        let now = self.clock.checked_now().await?.at;
        Ok(found.map(|found| {
            let facts = KeyFacts::new(&found, &Interner::default());
            IdentifiedKey {
                denied: authorize_secret(&facts, now).err(),
                superseded: now >= facts.secret_ends_at,
                key: found.key,
            }
        }))
    }

    /// Stops the background tasks. Verification still works, but writes nothing by itself.
    pub(crate) fn stop(&self) {
        self.feed.stop();
        self.cache.freshness.shut_down();
        self.writer.stop();
    }
}
