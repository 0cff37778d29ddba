//! The access decision: whether a known key may do what a request asks for.
//!
//! Every path uses this function: a cache hit, a key that was just read, a key with a quota, a guard inside
//! another guard, introspection, and the leak receiver. A new condition belongs here and nowhere else.

use super::{
    DeniedReason, VerifyRequest,
    facts::{KeyFacts, KeyState},
};
use crate::{accounts::Account, model::Timestamp};

/// Decides whether a request with this key is allowed at `now`. If several reasons to deny apply, the first one in
/// the order of the checks is returned.
///
/// On a cache hit, `now` is an upper bound of the present, later by at most the lag of the coarse clock. So an expiry is
/// never overlooked, and a denial is decided again by the precise clock. A check that *begins* to allow at some time
/// needs the opposite bound: decide it by the precise clock alone.
///
/// All fields are destructured without `..`, so that a new field does not compile until it is considered here.
#[inline]
pub(crate) fn authorize(
    key: &KeyFacts,
    account: &Account,
    request: &VerifyRequest<'_>,
    now: Timestamp,
) -> Result<(), DeniedReason> {
    let KeyFacts {
        id: _,
        owner,
        created_at: _,
        // Checked by `authorize_secret`.
        state: _,
        expires_at: _,
        secret_ends_at: _,
        access,
        networks,
        // Charged after the decision.
        limits: _,
        metadata: _,
    } = key;
    let Account { permissions, limits: _, suspended } = account;
    let VerifyRequest {
        tenant,
        ip,
        any_network,
        user_agent: _,
        scopes,
        any_scope,
        cost: _,
        cache_missed: _,
    } = request;

    authorize_secret(key, now)?;
    if *suspended {
        return Err(DeniedReason::OwnerSuspended);
    }
    if tenant.is_some_and(|tenant| tenant != owner.tenant()) {
        return Err(DeniedReason::WrongTenant);
    }
    if !networks.allows(*ip) && !any_network {
        return Err(DeniedReason::NetworkNotAllowed);
    }
    let allows = |scope: &&str| access.allows(scope, permissions);
    if !scopes.iter().all(allows) || !any_scope.is_empty() && !any_scope.iter().any(allows) {
        return Err(DeniedReason::AccessMissing);
    }
    Ok(())
}

/// Decides whether the secret is that of a live key at `now`, whatever it is used for: the part of [`authorize`] that
/// needs neither the owner's account nor a request.
#[inline]
pub(crate) fn authorize_secret(key: &KeyFacts, now: Timestamp) -> Result<(), DeniedReason> {
    match key.state {
        KeyState::Revoked => Err(DeniedReason::Revoked),
        _ if now >= key.expires_at => Err(DeniedReason::Expired),
        KeyState::Disabled => Err(DeniedReason::Disabled),
        KeyState::Enabled if now >= key.secret_ends_at => Err(DeniedReason::SecretRetired),
        KeyState::Enabled => Ok(()),
    }
}
