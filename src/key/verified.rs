use std::sync::Arc;

use super::{Key, KeyId, Owner, Permissions, Timestamp};
use crate::{accounts::Account, limits::RateStates};

/// The proof that a request carried a live key. Only verification can make one.
#[derive(Clone)]
pub struct Verified {
    key: Arc<Key>,
    account: Arc<Account>,
    at: Timestamp,
    rates: RateStates,
}

impl Verified {
    pub(crate) fn new(
        key: Arc<Key>,
        account: Arc<Account>,
        at: Timestamp,
        rates: RateStates,
    ) -> Self {
        Self { key, account, at, rates }
    }

    /// The key's identity: what belongs into logs and spans.
    pub fn key_id(&self) -> KeyId {
        self.key.id
    }

    /// On whose behalf the request acts.
    pub fn owner(&self) -> &Owner {
        &self.key.owner
    }

    /// The key as it was when it was verified.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What the host said of the owner when the key was verified.
    pub fn account(&self) -> &Account {
        &self.account
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
        self.key.access.allows(scope, &self.account.permissions)
    }

    /// All that the key may do.
    pub fn permissions(&self) -> Permissions {
        self.key.access.within(&self.account.permissions)
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("key_id", &self.key.id)
            .field("owner", &self.key.owner)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
