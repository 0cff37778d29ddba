use std::sync::Arc;

use super::{ApiKeys, Error, Inner, Request};
use crate::{
    accounts::Account,
    audit::Attempt,
    hash::{Candidates, Digest},
    key::{Denied, DeniedReason, Key, Status, Timestamp, Verified},
    limits::Limited,
    store::Found,
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
    /// The key is good, and was used too often: 429, with `Retry-After`.
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
        let inner = &self.inner;
        let now = inner.now();
        let text = match inner.formats.parse(presented) {
            Ok(parsed) => parsed.expose(),
            Err(malformed) => {
                return Err(inner.deny(DeniedReason::Malformed(malformed), None, now, request));
            }
        };
        let candidates = inner.hashers.candidates(text.as_bytes());
        let found = inner.store.find(candidates.as_slice()).await;
        let found = found.map_err(|error| VerifyError::Unavailable(error.into()))?;
        // Compared whether something was found or not, so that both cost the same.
        let stored = found.as_ref().map_or(&NOTHING, |found| &found.digest);
        let same = same(&candidates, stored);
        let Some(found) = found.filter(|_| same) else {
            return Err(inner.deny(DeniedReason::Unknown, None, now, request));
        };
        let refused = |reason| inner.deny(reason, Some(&found.key), now, request);
        check_key(&found, now).map_err(refused)?;
        let account = inner.account(&found.key.owner).await.map_err(VerifyError::Unavailable)?;
        check_request(&found.key, &account, request).map_err(refused)?;
        let rates = inner.rates.spend(&found.key, account.limits.shared_rate(), now);
        let rates = rates.map_err(|limited| inner.limit(limited, &found.key, now, request))?;
        inner.accept(&found, &candidates, now, request);
        Ok(Verified::new(found.key, account, now, rates))
    }
}

impl Inner {
    fn deny(
        self: &Arc<Self>,
        reason: DeniedReason,
        key: Option<&Key>,
        at: Timestamp,
        request: &Request<'_>,
    ) -> VerifyError {
        self.note_refusal(reason.as_str(), key, at, request);
        Denied::new(reason).into()
    }

    fn limit(
        self: &Arc<Self>,
        limited: Limited,
        key: &Key,
        at: Timestamp,
        request: &Request<'_>,
    ) -> VerifyError {
        self.note_refusal("rate_limited", Some(key), at, request);
        limited.into()
    }

    fn note_refusal(
        self: &Arc<Self>,
        reason: &'static str,
        key: Option<&Key>,
        at: Timestamp,
        request: &Request<'_>,
    ) {
        self.ensure_writer();
        let key = key.map(|key| (key.id, &key.owner));
        let (ip, user_agent) = (request.ip, request.user_agent);
        self.outbox.denials.note(Attempt { reason, key, at, ip, user_agent });
    }

    /// Notes what is to be written behind a successful verification.
    fn accept(
        self: &Arc<Self>,
        found: &Found,
        candidates: &Candidates,
        now: Timestamp,
        request: &Request<'_>,
    ) {
        self.ensure_writer();
        self.outbox.usage.mark(&found.key, now, request.ip, request.user_agent);
        if found.digest.tag() != candidates.current().tag() {
            self.outbox.rehash(found.digest, *candidates.current());
            self.outbox.hurry();
        }
        if found.key.first_used_at.is_none() {
            self.outbox.hurry();
        }
    }
}

fn same(candidates: &Candidates, stored: &Digest) -> bool {
    let all = candidates.as_slice().iter();
    all.fold(subtle::Choice::from(0), |same, digest| same | digest.ct_eq(stored)).into()
}

fn check_key(found: &Found, now: Timestamp) -> Result<(), DeniedReason> {
    match found.key.status(now) {
        Status::Revoked => Err(DeniedReason::Revoked),
        Status::Expired => Err(DeniedReason::Expired),
        Status::Disabled => Err(DeniedReason::Disabled),
        Status::Active if found.ends_at.is_some_and(|end| now >= end) => {
            Err(DeniedReason::SecretRetired)
        }
        Status::Active => Ok(()),
    }
}

fn check_request(key: &Key, account: &Account, request: &Request<'_>) -> Result<(), DeniedReason> {
    if account.suspended {
        Err(DeniedReason::OwnerSuspended)
    } else if request.tenant.is_some_and(|tenant| tenant != key.owner.tenant()) {
        Err(DeniedReason::WrongTenant)
    } else if !key.networks.allows(request.ip) {
        Err(DeniedReason::NetworkNotAllowed)
    } else if !request.scopes.iter().all(|scope| key.access.allows(scope, &account.permissions)) {
        Err(DeniedReason::AccessMissing)
    } else {
        Ok(())
    }
}

/// What is compared where nothing was found; no hasher makes this tag.
static NOTHING: Digest = Digest::nothing();
