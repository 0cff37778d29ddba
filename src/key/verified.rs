use std::sync::Arc;

use super::{Key, KeyId, Owner, Permissions, Timestamp};
use crate::{accounts::Account, limits::RateStates};

/// The proof that a request carried a live key. Only verification can make one.
#[derive(Clone)]
pub struct Verified {
    bearer: Arc<Bearer>,
    at: Timestamp,
    rates: RateStates,
}

/// A key and what the host says of its owner: together, so that a verification counts one
/// reference and not two.
pub(crate) struct Bearer {
    pub(crate) key: Arc<Key>,
    pub(crate) account: Arc<Account>,
}

impl Verified {
    #[inline]
    pub(crate) fn new(bearer: Arc<Bearer>, at: Timestamp, rates: RateStates) -> Self {
        Self { bearer, at, rates }
    }

    /// The key's identity: what belongs into logs and spans.
    pub fn key_id(&self) -> KeyId {
        self.bearer.key.id
    }

    /// On whose behalf the request acts.
    pub fn owner(&self) -> &Owner {
        &self.bearer.key.owner
    }

    /// The key as it was when it was verified.
    pub fn key(&self) -> &Key {
        &self.bearer.key
    }

    /// What the host said of the owner when the key was verified.
    pub fn account(&self) -> &Account {
        &self.bearer.account
    }

    /// When it was verified.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// What is left of the rates that this request counted against.
    pub fn rates(&self) -> &RateStates {
        &self.rates
    }

    /// Whether the key may do a thing: its own access and its owner's present permissions both say so.
    pub fn allows(&self, scope: &str) -> bool {
        self.bearer.key.access.allows(scope, &self.bearer.account.permissions)
    }

    /// All that the key may do.
    pub fn permissions(&self) -> Permissions {
        self.bearer.key.access.within(&self.bearer.account.permissions)
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("key_id", &self.bearer.key.id)
            .field("owner", &self.bearer.key.owner)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
