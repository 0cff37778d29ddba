#[cfg(feature = "http")]
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    api::ApiKeys,
    error::Error,
    verify::{lookup::Asked, request::VerifyRequest},
};
use crate::{
    store::Lookup,
    verify::{
        cache::Known,
        denied::{Denied, DeniedReason},
        limits::limited::Limited,
        verified::Verified,
    },
};

/// Why a request carries no proof: it was refused, it came too soon, or nobody could tell.
///
/// Exhaustive on purpose: these must never be answered alike. A client throws a key away that is
/// called invalid, so an outage or a limit answered as a refusal destroys good keys.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The secret is not that of a key that may do this: 401 or 403.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The key is good, and was used too often; or nobody looked whether it is, because too many
    /// attempts from its network failed: 429, with `Retry-After` if waiting helps.
    ///
    /// Boxed, or each answer would be as large as the rarest.
    #[error(transparent)]
    Limited(Box<Limited>),
    /// Store or accounts could not be asked: 503.
    #[error(transparent)]
    Unavailable(Error),
}

impl ApiKeys {
    /// Whether a request carries a live key that may do what the request needs.
    ///
    /// A text that cannot be a key is refused without hashing it, an unknown key costs the same as
    /// a known one, and the first check that fails decides: form, digest, revoked, expired,
    /// disabled, secret retired, owner suspended, tenant, network, access, rate, quota. What is
    /// refused counts against no rate and no quota.
    ///
    /// A key that is in the cache and passes is answered without waiting for anything, without a lock
    /// that another key's verification takes, and without a heap allocation; but for its first use of
    /// all, for what a thread needs the first time, for giving a key that many threads use at once what
    /// each of them counts in, for asking again for its account when that is due, and for starting the
    /// task that writes uses. Only if the key or its owner has a quota, one write of the store is waited
    /// for, and if the future is dropped meanwhile, the use may have been counted.
    ///
    /// # Errors
    /// [`VerifyError::Denied`] if it does not, [`VerifyError::Limited`] if it comes too often or its
    /// quota is used up, [`VerifyError::Unavailable`] if nobody could tell.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{VerifyRequest, VerifyError, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let keys = TestKeys::new().keys;
    /// let answer = keys.verify("lc_guessed", &VerifyRequest::new()).await;
    /// let status = match &answer {
    ///     Ok(_) => 200,
    ///     Err(VerifyError::Denied(_)) => 401,
    ///     Err(VerifyError::Limited(_)) => 429,
    ///     Err(VerifyError::Unavailable(_)) => 503,
    /// };
    /// assert_eq!(status, 401);
    /// # }
    /// ```
    pub async fn verify<T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &T,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        // Here and not in functions of their own: an answer that is handed on through memory costs
        // more than most of what finds it.
        let (inner, text) = (&self.inner, presented.as_ref());
        if let Err(malformed) = inner.formats.check(text) {
            return Err(inner.deny_malformed(malformed, request).into());
        }
        // The clock is read in the shadow of the digest, which waits for itself all the time.
        let digest = inner.hashers.digest(text);
        let now = inner.glance();
        let Some(cache) = &inner.cache else {
            request.note_waiting();
            let asked = Asked { text, digest, now };
            let found = match inner.search(&asked) {
                Lookup::Ready(found) => found,
                Lookup::Later(search) => search.await,
            };
            let found = found.map_err(|error| VerifyError::Unavailable(error.into()))?;
            let Some(found) = found else {
                return Err(inner.deny(DeniedReason::Unknown, now.at, request));
            };
            let account = match inner.account_at_once(&found, now.at) {
                Some(account) => account,
                None => inner.account(&found.key.owner).await.map_err(VerifyError::Unavailable)?,
            };
            let meter = inner.rates.meter(&found.key, &account.limits, now.steady());
            if meter.waits() {
                let verified = inner.pay_for(found, account, meter, &asked, request);
                return Box::pin(verified).await;
            }
            return inner.judge_found(found, account, &meter, &asked, request);
        };
        let known = {
            let keys = cache.keys();
            match cache.look(&keys, &digest, now.tick) {
                Ok(entry) => return inner.judge_entry(entry, now, request),
                Err(known) => known,
            }
        };
        match known {
            Known::Nothing if cache.admits(request.ip, now.steady()).is_ok() => {
                inner.ensure_follower();
                Err(inner.unknown(cache, now, request))
            }
            known => Box::pin(inner.ask(cache, Asked { text, digest, now }, known, request)).await,
        }
    }

    /// A verification, and whether it was answered from memory.
    #[cfg(feature = "http")]
    pub(crate) async fn verify_with_cache_status(
        &self,
        presented: &[u8],
        request: VerifyRequest<'_>,
    ) -> (Result<Verified, VerifyError>, bool) {
        let waited = AtomicBool::new(false);
        let answer =
            self.verify(presented, &VerifyRequest { waited: Some(&waited), ..request }).await;
        (answer, !waited.load(Ordering::Relaxed))
    }
}
