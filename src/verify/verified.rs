use std::sync::Arc;

use crate::model::{Actor, Key, KeyId, Owner, Permissions, Timestamp};
use crate::{
    accounts::Account,
    verify::{
        limits::{
            meter::{RateStates, Spent},
            quotas::QuotaStates,
        },
        usage::cell::UseCell,
    },
};

/// The proof that a request carried a live key. Only verification can make one.
#[derive(Clone)]
pub struct Verified {
    proof: Proof,
    at: Timestamp,
    spent: Spent,
}

/// One reference to count where a cache holds both, no allocation where none does.
#[derive(Clone)]
enum Proof {
    Cached(Arc<Bearer>),
    Read(Arc<Key>, Arc<Account>),
    /// Behind a pointer, or the rare case would make all answers larger.
    Metered(Arc<Metered>),
}

/// The proof of a use that was counted elsewhere.
pub(crate) struct Metered {
    pub(crate) key: Arc<Key>,
    pub(crate) account: Arc<Account>,
    pub(crate) rates: RateStates,
    pub(crate) quotas: QuotaStates,
}

/// A key that is cached, what the host says of its owner, and its uses: together, so that a
/// verification follows one pointer to all of it, and counts one reference.
pub(crate) struct Bearer {
    pub(crate) key: Arc<Key>,
    pub(crate) account: Arc<Account>,
    pub(crate) usage: UseCell,
}

impl Bearer {
    pub(crate) fn new(key: Arc<Key>, account: Arc<Account>) -> Self {
        let usage = UseCell::new(key.first_used_at.is_some());
        Self { key, account, usage }
    }

    /// The same key with what the host says of its owner now.
    pub(crate) fn renewed(&self, account: Arc<Account>) -> Self {
        Self { key: self.key.clone(), account, usage: UseCell::new(self.usage.has_begun()) }
    }
}

impl Verified {
    #[inline]
    pub(crate) fn cached(bearer: Arc<Bearer>, at: Timestamp, spent: Spent) -> Self {
        Self { proof: Proof::Cached(bearer), at, spent }
    }

    #[inline]
    pub(crate) fn read(key: Arc<Key>, account: Arc<Account>, at: Timestamp, spent: Spent) -> Self {
        Self { proof: Proof::Read(key, account), at, spent }
    }

    pub(crate) fn metered(metered: Metered, at: Timestamp) -> Self {
        Self { proof: Proof::Metered(Arc::new(metered)), at, spent: Spent::default() }
    }

    #[cfg(test)]
    pub(crate) fn bearer(&self) -> Option<&Arc<Bearer>> {
        match &self.proof {
            Proof::Cached(bearer) => Some(bearer),
            Proof::Read(..) | Proof::Metered(_) => None,
        }
    }

    /// The key's identity: what belongs into logs and spans.
    pub fn key_id(&self) -> KeyId {
        self.key().id
    }

    /// On whose behalf the request acts.
    pub fn owner(&self) -> &Owner {
        &self.key().owner
    }

    /// The key as it was when it was verified.
    pub fn key(&self) -> &Key {
        match &self.proof {
            Proof::Cached(bearer) => &bearer.key,
            Proof::Read(key, _) => key,
            Proof::Metered(metered) => &metered.key,
        }
    }

    /// What the host said of the owner when the key was verified.
    pub fn account(&self) -> &Account {
        match &self.proof {
            Proof::Cached(bearer) => &bearer.account,
            Proof::Read(_, account) => account,
            Proof::Metered(metered) => &metered.account,
        }
    }

    /// When it was verified.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// What is left of the rates that this request counted against.
    pub fn rates(&self) -> RateStates {
        match &self.proof {
            Proof::Metered(metered) => metered.rates,
            Proof::Cached(_) | Proof::Read(..) => {
                let plan = &self.account().limits;
                self.spent.states(plan.rate_of(&self.key().limits), plan.shared_rate())
            }
        }
    }

    /// What is left of the quotas that this request counted against.
    pub fn quotas(&self) -> QuotaStates {
        match &self.proof {
            Proof::Metered(metered) => metered.quotas,
            Proof::Cached(_) | Proof::Read(..) => QuotaStates::default(),
        }
    }

    /// Whether the key may do a thing: its own access and its owner's present permissions both say so.
    pub fn allows(&self, scope: &str) -> bool {
        self.key().access.allows(scope, &self.account().permissions)
    }

    /// All that the key may do.
    pub fn permissions(&self) -> Permissions {
        self.key().access.within(&self.account().permissions)
    }
}

impl Actor {
    /// Returns a key that manages keys.
    ///
    /// It cannot grant more than the key itself has: tenant, permissions, limits, networks and expiry.
    pub fn key(verified: &Verified) -> Self {
        Self::from_key(verified.key(), verified.permissions())
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("key_id", &self.key().id)
            .field("owner", &self.key().owner)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
