use super::{
    Limited, VerifyRequest,
    authorize::authorize,
    facts::{Interner, KeyFacts},
    verifier::Verifier,
};
use crate::{
    accounts::Account,
    error::Error,
    model::{KeyId, Owner, OwnerScope, Permissions, Rate, Timestamp},
};

/// What introspection says about a secret.
#[must_use]
pub(crate) enum Introspection {
    /// The secret of a live key that the caller may see.
    Active(ActiveKey),
    /// Everything else: the caller does not learn whether such a key exists.
    Inactive,
    /// The caller has presented too many secrets that are not active, and has to wait.
    Limited(Box<Limited>),
}

/// A live key that was looked at and not used.
pub(crate) struct ActiveKey {
    pub(crate) id: KeyId,
    pub(crate) owner: Owner,
    pub(crate) permissions: Permissions,
    pub(crate) created_at: Timestamp,
    /// The earlier of the key's expiry and the end of its retiring secret, if it was found by that.
    pub(crate) ends_at: Option<Timestamp>,
}

impl Verifier {
    /// Looks at the key of a presented text without using it: charges no rate and no quota, and records no use and no
    /// denial. A key outside `visible` is *inactive* in every state, also if its account cannot be read.
    ///
    /// Secrets that are not active are counted per caller, for whatever reason. Their look-ups do not count as those of
    /// unknown keys in requests, so a caller that sends too many of them delays only itself.
    pub(crate) async fn introspect(
        &self,
        presented: &[u8],
        caller: &Owner,
        visible: OwnerScope<'_>,
        request: &VerifyRequest<'_>,
    ) -> Result<Introspection, Error> {
        if self.formats.check(presented).is_err() {
            return Ok(Introspection::Inactive);
        }
        let (digest, now) = (self.hashers.digest(presented), self.clock.checked_now().await?);
        if let Ok(key) = self.cache.get(&digest, now.cache_time)
            && visible.includes(&key.facts.owner)
            && let Some(active) = self.active_key(&key.facts, &key.account, request)
        {
            return Ok(Introspection::Active(active));
        }
        let since = now.monotonic_timestamp();
        let rate = Rate::per_second(INACTIVE_PER_SECOND).burst(INACTIVE_BURST);
        let inactive = self.introspections.bucket(caller, rate, since);
        if let Some(wait) = inactive.wait(1, since) {
            return Ok(Introspection::Limited(Limited::by_failures(wait)));
        }
        let candidates = self.hashers.candidates_with(digest, presented);
        let mut read = self.read_past_cache();
        let active = loop {
            read.begin()?;
            let found = self.find_in_store(candidates.as_slice()).await?;
            let active = match found.filter(|found| visible.includes(&found.key.owner)) {
                Some(found) => {
                    let facts = KeyFacts::new(&found, &Interner::default());
                    let account = self.account(&facts, self.clock.precise_now()).await?;
                    self.active_key(&facts, &account, request)
                }
                None => None,
            };
            if read.is_within_bound() {
                break active;
            }
        };
        if let Some(active) = active {
            return Ok(Introspection::Active(active));
        }
        inactive.overdraw(since);
        Ok(Introspection::Inactive)
    }

    fn active_key(
        &self,
        key: &KeyFacts,
        account: &Account,
        request: &VerifyRequest<'_>,
    ) -> Option<ActiveKey> {
        authorize(key, account, request, self.clock.precise_now().at).ok()?;
        let ends_at = key.expires_at.min(key.secret_ends_at);
        Some(ActiveKey {
            id: key.id,
            owner: key.owner.clone(),
            permissions: key.access.within(&account.permissions),
            created_at: key.created_at,
            ends_at: (ends_at < Timestamp::MAX).then_some(ends_at),
        })
    }
}

/// How many secrets that are not active a caller may present.
const INACTIVE_PER_SECOND: u32 = 20;
const INACTIVE_BURST: u32 = 200;
