use sha2::Digest as _;

use super::rows::instant;
use crate::{
    audit::AuditEvent,
    model::{EventId, Key, KeyId, Owner, OwnerScope, Timestamp},
};

/// The Redis keys of a store. All begin with the same hash tag, so that a cluster keeps them
/// together, and nothing that a user chooses is part of any.
#[derive(Debug)]
pub(super) struct Names(pub(super) [String; 11]);

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self(ROOMS.map(|room| format!("{{{prefix}}}{room}")))
    }

    /// From digests to keys.
    pub(super) fn secrets(&self) -> &str {
        &self.0[1]
    }

    /// The stream of changes, and the channel on which they are announced.
    pub(super) fn changes(&self) -> &str {
        &self.0[5]
    }

    pub(super) fn meta(&self) -> &str {
        &self.0[6]
    }
}

/// In the order in which the scripts know them. The log is a stream, `audit`, in the order in which
/// events arrived; theirs is another one, for an id may come late: a sorted set of ids, `log`, has
/// it, and a hash, `events`, leads from an id to the entry.
const ROOMS: [&str; 11] = [
    "keys", "secrets", "index", "events", "log", "changes", "meta", "quotas", "tallies", "codes",
    "audit",
];

/// Stands for an owner or a tenant in an index. Whoever reads checks the words themselves.
pub(crate) type Scope = [u8; 16];

pub(crate) fn owner_scope(owner: &Owner) -> Scope {
    scope(&[owner.tenant(), owner.account()])
}

pub(super) fn tenant_scope(tenant: &str) -> Scope {
    scope(&[tenant])
}

fn scope(words: &[&str]) -> Scope {
    let mut hash = sha2::Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.as_chunks();
    first[0]
}

/// Where a new key stands in the index. Members of a sorted set without scores are in the order of
/// their bytes: what comes behind the scope sorts.
pub(super) fn members_of_key(key: &Key) -> Vec<Vec<u8>> {
    let (owner, id) = (owner_scope(&key.owner), key.id.as_bytes());
    let ends_at = key.expires_at.map_or(NEVER, instant);
    let mut members =
        vec![member(b'O', &[&owner, id]), member(b'T', &[&tenant_scope(key.owner.tenant()), id])];
    if key.revoked.is_none() {
        members.push(member(b'L', &[&owner, &ends_at, id]));
    }
    if let Some(since) = key.dead_since() {
        members.push(member(b'D', &[&instant(since), id]));
    }
    members
}

/// Where an event stands in the index of the log.
pub(super) fn members_of_event(id: EventId, event: &AuditEvent) -> Vec<Vec<u8>> {
    let id = id.as_bytes();
    let mut members = vec![
        member(b'A', &[&instant(event.at), id]),
        member(b'T', &[&tenant_scope(&event.tenant), id]),
    ];
    if let Some(account) = &event.account {
        members.push(member(b'O', &[&scope(&[&event.tenant, account]), id]));
    }
    if let Some(key_id) = event.key_id {
        members.push(member(b'K', &[key_id.as_bytes(), id]));
    }
    members
}

/// What the members of an owner's or tenant's keys or events begin with.
pub(super) fn of(within: OwnerScope<'_>) -> Vec<u8> {
    match within {
        OwnerScope::Owner(owner) => member(b'O', &[&owner_scope(owner)]),
        OwnerScope::Tenant(tenant) => member(b'T', &[&tenant_scope(tenant)]),
    }
}

/// Where the keys of the tenants begin that come behind this one; from the first, if there is none.
pub(super) fn tenants_behind(tenant: Option<&str>) -> Vec<u8> {
    match tenant {
        Some(tenant) => [&b"("[..], &member(b'T', &[&tenant_scope(tenant), &LAST])].concat(),
        None => b"[T".into(),
    }
}

/// What the members of a key's events begin with.
pub(super) fn of_key(id: KeyId) -> Vec<u8> {
    member(b'K', &[id.as_bytes()])
}

/// What the members of an owner's unrevoked keys begin with.
pub(super) fn unrevoked(owner: &Owner) -> Vec<u8> {
    member(b'L', &[&owner_scope(owner)])
}

/// Behind all of an owner's keys that have expired by then, and before all others: a key is dead
/// from the very instant of its expiry on.
pub(super) fn expired(owner: &Owner, now: Timestamp) -> Vec<u8> {
    member(b'L', &[&owner_scope(owner), &instant(now), &LAST])
}

pub(super) fn member(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind][..], &parts.concat()].concat()
}

/// Behind every identifier.
pub(super) const LAST: [u8; 17] = [0xff; 17];
/// Behind every instant.
const NEVER: [u8; 8] = [0xff; 8];
