use std::sync::Arc;

use crate::{
    accounts::Account,
    model::{Key, Status, Timestamp},
    secret::Malformed,
    verify::{
        cache::entry::Entry,
        denials::Attempt,
        denied::{Denied, DeniedReason},
        limits::{
            limited::Limited,
            meter::{Meter, Spent},
        },
        usage::cell::Marked,
        verified::{Bearer, Verified},
    },
};
use crate::{
    api::{Inner, Now},
    verify::{request::VerifyRequest, verify::VerifyError},
};

/// All that decides about a request whose key was found: the same on a hit and after a read.
impl Inner {
    #[inline]
    pub(crate) fn judge_entry(
        self: &Arc<Self>,
        entry: &Entry,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        self.admit_entry(entry, now, request)?;
        let spent = self.charge(&entry.bearer().key, &entry.meter, now, request)?;
        self.note_use(entry, now, request);
        Ok(Verified::cached(entry.bearer().clone(), now.at, spent))
    }

    #[inline]
    pub(crate) fn admit_entry(
        self: &Arc<Self>,
        entry: &Entry,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> Result<(), VerifyError> {
        let plain = request.any_scope.is_empty();
        if !plain || !entry.admits(now.latest, request.tenant, request.scopes) {
            let Bearer { key, account, .. } = &**entry.bearer();
            self.admit(key, account, entry.ends_at, now, request)?;
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn note_use(self: &Arc<Self>, entry: &Entry, now: Now, request: &VerifyRequest<'_>) {
        self.ensure_writer();
        let (ip, user_agent) = (request.ip.as_ref(), request.user_agent);
        if entry.bearer().mark(&self.outbox.usage, now.at, ip, user_agent) == Marked::First {
            self.outbox.hurry();
        }
        if let Some(cache) = &self.cache {
            cache.succeeded(request.ip, now.steady());
        }
    }

    /// All checks but those of the limits.
    pub(crate) fn admit(
        self: &Arc<Self>,
        key: &Key,
        account: &Account,
        ends_at: Option<Timestamp>,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> Result<(), VerifyError> {
        let (mut at, mut checked) = (now.at, check_key(key, ends_at, now.latest));
        if checked.is_err() {
            at = self.exact().at;
            checked = check_key(key, ends_at, at);
        }
        checked
            .and_then(|()| check_request(key, account, request))
            .map_err(|reason| self.refuse(reason, key, at, request))
    }

    #[inline(always)]
    pub(crate) fn charge(
        self: &Arc<Self>,
        key: &Arc<Key>,
        meter: &Meter,
        now: Now,
        request: &VerifyRequest<'_>,
    ) -> Result<Spent, VerifyError> {
        let now = if meter.is_fine() { self.exact() } else { now };
        let spent = meter.charge(request.cost, now.steady());
        spent.map_err(|limited| self.limit(limited, Some(key), now.at, request))
    }

    /// It cannot be a key. Garbage comes in floods: all but the first of it cost next to nothing.
    #[inline]
    pub(crate) fn deny_malformed(
        self: &Arc<Self>,
        malformed: Malformed,
        request: &VerifyRequest<'_>,
    ) -> Denied {
        let reason = DeniedReason::Malformed(malformed);
        self.ensure_writer();
        self.outbox.denials.note_malformed(|| self.first_malformed(reason, request));
        Denied::new(reason)
    }

    #[cold]
    fn first_malformed<'a>(
        self: &Arc<Self>,
        reason: DeniedReason,
        request: &VerifyRequest<'a>,
    ) -> Attempt<'a> {
        let (ip, user_agent) = (request.ip, request.user_agent);
        Attempt { reason: reason.as_str(), key: None, at: self.now(), ip, user_agent }
    }

    /// There is no such key.
    pub(crate) fn deny(
        self: &Arc<Self>,
        reason: DeniedReason,
        at: Timestamp,
        request: &VerifyRequest<'_>,
    ) -> VerifyError {
        self.note_refusal(reason.as_str(), None, at, request);
        Denied::new(reason).into()
    }

    #[cold]
    fn refuse(
        self: &Arc<Self>,
        reason: DeniedReason,
        key: &Key,
        at: Timestamp,
        request: &VerifyRequest<'_>,
    ) -> VerifyError {
        if matches!(reason, DeniedReason::Expired | DeniedReason::SecretRetired) {
            self.ratchet.hold(at);
        }
        self.outbox.usage.denied(key.id, at);
        self.note_refusal(reason.as_str(), Some(key), at, request);
        Denied::new(reason).into()
    }

    #[cold]
    pub(crate) fn limit(
        self: &Arc<Self>,
        limited: Box<Limited>,
        key: Option<&Key>,
        at: Timestamp,
        request: &VerifyRequest<'_>,
    ) -> VerifyError {
        if let Some(key) = key {
            self.outbox.usage.limited(key.id, at);
        }
        self.note_refusal(limited.reason.as_str(), key, at, request);
        VerifyError::Limited(limited)
    }

    fn note_refusal(
        self: &Arc<Self>,
        reason: &'static str,
        key: Option<&Key>,
        at: Timestamp,
        request: &VerifyRequest<'_>,
    ) {
        self.ensure_writer();
        let key = key.map(|key| (key.id, &key.owner));
        let (ip, user_agent) = (request.ip, request.user_agent);
        self.outbox.denials.note(Attempt { reason, key, at, ip, user_agent });
    }
}

#[inline]
pub(crate) fn check_key(
    key: &Key,
    ends_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), DeniedReason> {
    match key.status(now) {
        Status::Revoked => Err(DeniedReason::Revoked),
        Status::Expired => Err(DeniedReason::Expired),
        Status::Disabled => Err(DeniedReason::Disabled),
        Status::Active if ends_at.is_some_and(|end| now >= end) => Err(DeniedReason::SecretRetired),
        Status::Active => Ok(()),
    }
}

#[inline]
pub(crate) fn check_request(
    key: &Key,
    account: &Account,
    request: &VerifyRequest<'_>,
) -> Result<(), DeniedReason> {
    if account.suspended {
        Err(DeniedReason::OwnerSuspended)
    } else if request.tenant.is_some_and(|tenant| tenant != key.owner.tenant()) {
        Err(DeniedReason::WrongTenant)
    } else if !key.networks.allows(request.ip) {
        Err(DeniedReason::NetworkNotAllowed)
    } else if !request.is_allowed(|scope| key.access.allows(scope, &account.permissions)) {
        Err(DeniedReason::AccessMissing)
    } else {
        Ok(())
    }
}
