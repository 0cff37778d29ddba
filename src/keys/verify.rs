use std::pin::Pin;

use super::{ApiKeys, Error, Request, lookup::Asked};
use crate::{
    cache::Known,
    key::{Denied, Verified},
    limits::Limited,
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
    /// attempts from its network failed: 429, with `Retry-After`.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Store or accounts could not be asked: 503.
    #[error(transparent)]
    Unavailable(Error),
}

impl ApiKeys {
    /// Whether a request carries a live key that may do what the request needs.
    ///
    /// A text that cannot be a key is refused without hashing it, an unknown key costs the same as
    /// a known one, and the first check that fails decides: form, digest, revoked, expired,
    /// disabled, secret retired, owner suspended, tenant, network, access, rate. What is refused
    /// counts against no rate.
    ///
    /// A key that is in the cache is answered without waiting for anything, without a lock that
    /// another key's verification takes, and without a heap allocation.
    ///
    /// # Errors
    /// [`VerifyError::Denied`] if it does not, [`VerifyError::Limited`] if it comes too often,
    /// [`VerifyError::Unavailable`] if nobody could tell.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Request, VerifyError, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let keys = TestKeys::new().keys;
    /// let answer = keys.verify("lc_guessed", &Request::new()).await;
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
        request: &Request<'_>,
    ) -> Result<Verified, VerifyError> {
        match self.begin(presented.as_ref(), request) {
            Begun::Answered(answer) => answer,
            Begun::Waiting(answer) => answer.await,
        }
    }

    /// A verification, and whether it was answered from memory.
    #[cfg(feature = "http")]
    pub(crate) async fn verify_told(
        &self,
        presented: &[u8],
        request: &Request<'_>,
    ) -> (Result<Verified, VerifyError>, bool) {
        match self.begin(presented, request) {
            Begun::Answered(answer) => (answer, true),
            Begun::Waiting(answer) => (answer.await, false),
        }
    }

    /// All of a verification that needs not wait. Neither generic nor a future, so that it is
    /// compiled here, and its answer is copied once.
    fn begin<'a>(&'a self, presented: &'a [u8], request: &'a Request<'_>) -> Begun<'a> {
        let inner = &self.inner;
        let text = match inner.formats.parse_bytes(presented) {
            Ok(parsed) => parsed.expose(),
            Err(malformed) => {
                return Begun::Answered(Err(inner.deny_malformed(malformed, request)));
            }
        };
        let now = inner.moment();
        let asked = Asked { text, digest: inner.hashers.digest(text.as_bytes()), now };
        let Some(cache) = &inner.cache else {
            return Begun::Waiting(Box::pin(inner.ask_store(asked, request)));
        };
        match cache.look(&asked.digest, now.tick, |entry| inner.judge_entry(entry, now, request)) {
            Known::Key(answer) => Begun::Answered(answer),
            known => Begun::Waiting(Box::pin(inner.ask(cache, asked, known, request))),
        }
    }
}

/// How far a verification came at once.
enum Begun<'a> {
    Answered(Result<Verified, VerifyError>),
    Waiting(Pin<Box<dyn Future<Output = Result<Verified, VerifyError>> + Send + 'a>>),
}
