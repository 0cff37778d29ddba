//! Calls that are repeated with an idempotency token, because the answer was lost.

use std::time::Duration;

use sha2::Digest as _;

use crate::{
    error::Error,
    model::{Key, Timestamp},
    store::PreviousSecret,
};

/// Returns what is stored of a token. Tokens of different kinds of calls are independent.
pub(super) fn token_hash(call: &str, token: &str) -> [u8; 32] {
    sha2::Sha256::new_with_prefix(call).chain_update("\0").chain_update(token).finalize().into()
}

/// Returns when the current secret of a key was made.
pub(super) fn secret_made_at(key: &Key) -> Timestamp {
    key.rotated_at.unwrap_or(key.created_at)
}

/// Decides whether the current secret of a key is replaced because a call is repeated that made it.
///
/// The store decides again whether the secret was used, in one step with the replacement.
///
/// # Errors
/// [`TokenReused`](crate::ErrorKind::TokenReused) if the secret was used, so it was received. If it was just made, its
/// answer may be on the way: [`InProgress`](crate::ErrorKind::InProgress).
pub(super) fn replaced_if_unused(key: &Key, now: Timestamp) -> Result<PreviousSecret, Error> {
    if key.secret_first_used_at.is_some() {
        return Err(Error::token_reused());
    }
    match IN_PROGRESS.saturating_sub(now.since(secret_made_at(key))) {
        Duration::ZERO => Ok(PreviousSecret::Replaced),
        wait => Err(Error::in_progress(wait)),
    }
}

/// How long a call with a token can be repeated.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);
/// How long the answer to a call counts as on its way. Longer than two nodes need to know of each other's writes.
const IN_PROGRESS: Duration = Duration::from_secs(10);
