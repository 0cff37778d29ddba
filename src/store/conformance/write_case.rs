use super::{
    check::{CheckResult, TestStorage},
    fixtures::{at, digest, event, insert_key, key, key_use, owner_of, revocation, rotation},
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{Key, Owner, OwnerScope},
    secret::SecretDigest,
    store::{
        InsertOutcome, KeyStore, KeyUse, PreviousSecret, RevokeOutcome, RotateOutcome, StoreError,
        UpdateOutcome,
    },
};

/// The writes that change keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Insert,
    Update,
    Rotate,
    Replace,
    Revoke,
    RevokeAll,
    Delete,
    Purge,
    RecordUse,
    Rehash,
}

/// A write that must succeed, with keys of its own tenant.
pub(super) struct WriteCase {
    pub(super) write: Write,
    pub(super) owner: Owner,
    pub(super) keys: [Key; 3],
    pub(super) event: AuditEvent,
    /// The number of the first key and its secret.
    pub(super) first: u64,
    uses: KeyUse,
}

impl Write {
    pub(super) const ALL: [Self; 10] = [
        Self::Insert,
        Self::Update,
        Self::Rotate,
        Self::Replace,
        Self::Revoke,
        Self::RevokeAll,
        Self::Delete,
        Self::Purge,
        Self::RecordUse,
        Self::Rehash,
    ];
}

impl WriteCase {
    /// The `n`th case of a check.
    pub(super) fn new(write: Write, n: u64) -> Self {
        let first = n * 10;
        let owner = owner_of(&format!("tenant-{n}"), "account-1");
        let expires_at = (write == Write::Purge).then(|| at(50));
        let keys = [0, 1, 2].map(|i| Key { expires_at, ..key(&owner, first + i) });
        let [key, ..] = &keys;
        let event = match write {
            Write::Revoke | Write::RevokeAll => revocation(key, at(70), "leaked"),
            Write::Insert => event(EventKind::Created, key, at(70)),
            Write::Update => event(EventKind::Disabled, key, at(70)),
            Write::Rotate | Write::Replace => event(EventKind::Rotated, key, at(70)),
            Write::Delete => event(EventKind::Deleted, key, at(70)),
            Write::Purge => event(EventKind::Purged, key, at(70)),
            Write::RecordUse | Write::Rehash => event(EventKind::FirstUsed, key, at(70)),
        };
        let uses = KeyUse { event_id: event.id, ..key_use(key, at(70), at(80)) };
        Self { write, keys: keys.clone(), owner, event, first, uses }
    }

    /// Inserts the keys that must exist before the write.
    pub(super) async fn prepare(&self, storage: &TestStorage) -> CheckResult {
        let absent = usize::from(self.write == Write::Insert);
        for (n, key) in (self.first..).zip(&self.keys).skip(absent) {
            storage.add(key, &digest(n)).await?;
        }
        Ok(())
    }

    /// Runs the write. Panics if the store refuses it.
    pub(super) async fn run(&self, store: &dyn KeyStore) -> Result<(), StoreError> {
        let Self { write, owner, keys: [key, ..], event, first, uses } = self;
        let (within, old, new) = (OwnerScope::Owner(owner), digest(*first), digest(first + 5));
        let done = match write {
            Write::Insert => {
                store.insert(insert_key(key, &old, 3, event)).await? == InsertOutcome::Inserted
            }
            Write::Update => {
                let disabled = Key { disabled_at: Some(event.at), ..key.clone() };
                store.update(&disabled, event).await? == UpdateOutcome::Updated
            }
            Write::Rotate => {
                let rotate = rotation(key, &new, PreviousSecret::EndsAt(at(90)), event);
                store.rotate(rotate).await? == RotateOutcome::Rotated
            }
            Write::Replace => {
                let rotate = rotation(key, &new, PreviousSecret::Replaced, event);
                store.rotate(rotate).await? == RotateOutcome::Rotated
            }
            Write::Revoke => store.revoke(within, key.id, event).await? == RevokeOutcome::Revoked,
            Write::RevokeAll => store.revoke_all(owner, event).await?.len() == self.keys.len(),
            Write::Delete => store.delete(within, key.id, event).await?,
            Write::Purge => store.purge_keys(at(60), 100, event).await?.len() >= 3,
            Write::RecordUse => {
                store.record_uses(std::slice::from_ref(uses)).await? == [uses.first_use()]
            }
            Write::Rehash => store.rehash(&old, &new).await?,
        };
        assert!(done, "the store refused {write:?}");
        Ok(())
    }

    /// The keys that must be in the change feed after the write.
    pub(super) fn changed_keys(&self) -> &[Key] {
        match self.write {
            Write::RevokeAll | Write::Purge => &self.keys,
            Write::RecordUse | Write::Rehash => &[],
            _ => &self.keys[..1],
        }
    }

    /// The events that must be in the audit log after the write.
    pub(super) fn expected_events(&self) -> Vec<AuditEvent> {
        match self.write {
            Write::RevokeAll | Write::Purge => {
                (0..).zip(&self.keys).map(|(n, key)| self.event.for_key(n, key)).collect()
            }
            Write::RecordUse => vec![self.uses.first_use()],
            Write::Rehash => vec![],
            _ => vec![self.event.clone()],
        }
    }

    /// Normalizes events for comparison. A change of one key writes exactly the given event. For a
    /// change of many keys, the order of the keys is up to the store, so the order and ids of the
    /// events are ignored.
    pub(super) fn comparable(&self, mut events: Vec<AuditEvent>) -> Vec<AuditEvent> {
        if matches!(self.write, Write::RevokeAll | Write::Purge) {
            for event in &mut events {
                event.id = self.event.id;
            }
            events.sort_by_key(|event| event.key_id);
        }
        events
    }

    /// The digests of all secrets that the write may involve.
    pub(super) fn digests(&self) -> impl Iterator<Item = SecretDigest> + use<> {
        (self.first..self.first + 10).map(digest)
    }
}
