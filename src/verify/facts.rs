use std::sync::{Arc, Mutex};

use crate::{
    model::{Access, Key, KeyId, KeyLimits, Metadata, Networks, Owner, Scopes, Timestamp},
    store::FoundKey,
    system::lock,
};

/// What verification knows of a key and of the secret that it was found by.
///
/// In this order in memory: what the access decision reads comes first.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct KeyFacts {
    pub(crate) state: KeyState,
    /// [`Timestamp::MAX`] if the key does not expire.
    pub(crate) expires_at: Timestamp,
    /// [`Timestamp::MAX`] for the current secret.
    pub(crate) secret_ends_at: Timestamp,
    pub(crate) access: Access,
    pub(crate) networks: Networks,
    pub(crate) owner: Owner,
    pub(crate) id: KeyId,
    pub(crate) created_at: Timestamp,
    /// `None` stands for the default.
    pub(crate) limits: Option<Arc<KeyLimits>>,
    pub(crate) metadata: Metadata,
}

/// What the owner and the administrators of a key have decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyState {
    Enabled,
    Disabled,
    Revoked,
}

impl KeyFacts {
    /// Takes what verification needs from a key's record. All fields are destructured, so that a new field does not
    /// compile until it is considered here.
    pub(crate) fn new(found: &FoundKey, interner: &Interner) -> Self {
        let FoundKey { key, digest: _, ends_at } = found;
        let Key {
            id,
            owner,
            name: _,
            hint: _,
            retiring: _,
            access,
            limits,
            networks,
            metadata,
            created_at,
            expires_at,
            disabled_at,
            revoked,
            rotated_at: _,
            rotation_token: _,
            issue_token: _,
            first_used_at: _,
            secret_first_used_at: _,
            last_used_at: _,
            last_used_ip: _,
            revision: _,
        } = &**key;
        let state = match (revoked, disabled_at) {
            (Some(_), _) => KeyState::Revoked,
            (None, Some(_)) => KeyState::Disabled,
            (None, None) => KeyState::Enabled,
        };
        Self {
            id: *id,
            owner: owner.clone(),
            created_at: *created_at,
            state,
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
            secret_ends_at: ends_at.unwrap_or(Timestamp::MAX),
            access: interner.access(access),
            networks: networks.clone(),
            limits: interner.limits(limits),
            metadata: metadata.clone(),
        }
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        (self.expires_at < Timestamp::MAX).then_some(self.expires_at)
    }

    pub(crate) fn limits(&self) -> KeyLimits {
        self.limits.as_deref().copied().unwrap_or_default()
    }
}

/// Shares what many keys have in common, so that it is stored once and stays in the processor's cache: most keys
/// have one of a few sets of scopes, and one of a few limits.
#[derive(Default)]
pub(crate) struct Interner {
    scopes: Mutex<Vec<Scopes>>,
    limits: Mutex<Vec<Arc<KeyLimits>>>,
}

impl Interner {
    fn access(&self, access: &Access) -> Access {
        match access {
            Access::Inherited => Access::Inherited,
            Access::Only(scopes) => Access::Only(intern(&self.scopes, scopes.clone())),
        }
    }

    fn limits(&self, limits: &KeyLimits) -> Option<Arc<KeyLimits>> {
        (*limits != KeyLimits::default()).then(|| intern(&self.limits, Arc::new(*limits)))
    }
}

/// Returns the known value that is equal, or the new one. Where each key has a value of its own, nothing is shared, and
/// the known values are dropped now and then.
fn intern<T: Clone + PartialEq>(known: &Mutex<Vec<T>>, value: T) -> T {
    let mut known = lock(known);
    if let Some(found) = known.iter().find(|known| **known == value) {
        return found.clone();
    }
    if known.len() >= MAX_INTERNED {
        known.clear();
    }
    known.push(value.clone());
    value
}

const MAX_INTERNED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_of_scopes_are_stored_once() {
        let interner = Interner::default();
        let interned = |set: [&str; 2]| match interner.access(&Access::only(set).unwrap()) {
            Access::Only(scopes) => scopes.iter().next().unwrap().as_ptr() as usize,
            Access::Inherited => unreachable!(),
        };
        assert_eq!(interned(["x", "y"]), interned(["y", "x"]));
        assert_ne!(interned(["x", "y"]), interned(["x", "z"]));
    }

    #[test]
    fn the_number_of_shared_values_is_bounded() {
        let interner = Interner::default();
        for n in 0..3 * MAX_INTERNED {
            let access = Access::only([format!("s{n}")]).unwrap();
            assert_eq!(interner.access(&access), access);
            assert!(lock(&interner.scopes).len() <= MAX_INTERNED);
        }
    }
}
