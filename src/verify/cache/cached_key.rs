use std::sync::Arc;

use super::epochs::{ReadStamp, Slot};
use crate::{
    accounts::Account,
    secret::SecretDigest,
    verify::{facts::KeyFacts, limits::KeyRates, use_counter::UseCounter},
};

/// A key as verification needs it, with the account of its owner and the counter of its uses.
///
/// Immutable but for the counter: a key that is read again, or whose account is, becomes another `CachedKey`. The
/// name, the hint and the dates of use are left in the store, so that an ordinary key takes less than 400 bytes with
/// its place in the map.
///
/// `repr(C)` keeps what a hit reads together, and what it writes beside the reference count: at 100,000 keys a hit
/// takes 6 % less than in the compiler's order.
#[repr(C)]
pub(crate) struct CachedKey {
    pub(crate) uses: UseCounter,
    pub(super) read: ReadStamp,
    /// When the account was read, by the monotonic clock.
    pub(super) account_read_at: u64,
    pub(crate) digest: SecretDigest,
    /// Where invalidations of the key, and of its owner's keys, are recorded.
    pub(super) slots: [Slot; 2],
    pub(crate) rates: KeyRates,
    pub(crate) account: Arc<Account>,
    pub(crate) facts: KeyFacts,
}

impl CachedKey {
    /// Returns the same key with another account. It is trusted no longer than before.
    pub(crate) fn with_account(
        &self,
        account: Arc<Account>,
        rates: KeyRates,
        read_at: u64,
    ) -> Self {
        Self {
            uses: self.uses.continued(),
            facts: self.facts.clone(),
            account,
            rates,
            account_read_at: read_at,
            ..*self
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        use crate::{
            model::{Access, KeyId, Metadata, Networks, Owner, Timestamp},
            verify::facts::KeyState,
        };

        let id = KeyId::from_bytes([7; 16]);
        let facts = KeyFacts {
            id,
            owner: Owner::new("acme", "ada").unwrap(),
            created_at: Timestamp::MIN,
            state: KeyState::Enabled,
            expires_at: Timestamp::MAX,
            secret_ends_at: Timestamp::MAX,
            access: Access::Inherited,
            networks: Networks::Any,
            limits: None,
            metadata: Metadata::default(),
        };
        Self {
            uses: UseCounter::new(false),
            facts,
            account: Arc::new(Account::unknown()),
            rates: KeyRates::default(),
            digest: SecretDigest::nothing(),
            read: ReadStamp::default(),
            account_read_at: 0,
            slots: Default::default(),
        }
    }
}

impl AsRef<SecretDigest> for CachedKey {
    fn as_ref(&self) -> &SecretDigest {
        &self.digest
    }
}
