//! Records of keys and events, and their members of the indexes. `prelude.lua` knows the fields of a
//! key by their numbers.

use std::net::IpAddr;

use sha2::Digest as _;

use super::msgpack::{FieldReader, damaged_record, pack, pack_options};
use crate::{
    audit::{AuditEvent, Outcome},
    model::{EventId, Key, KeyId, Name, Owner, OwnerScope, RetiringSecret, Revocation, Timestamp},
    secret::SecretDigest,
    store::{StoreError, codec},
};

/// A key with the digests of its secrets.
pub(super) struct KeyRecord {
    pub(super) key: Key,
    pub(super) current: SecretDigest,
    pub(super) former: Option<SecretDigest>,
}

/// Encodes an instant in eight bytes that sort chronologically.
pub(super) fn instant(at: Timestamp) -> [u8; 8] {
    at.as_unix_micros().to_be_bytes()
}

/// As [`instant`]; empty for `None`.
pub(super) fn optional_instant(at: Option<Timestamp>) -> Vec<u8> {
    at.map_or_else(Vec::new, |at| instant(at).into())
}

/// Encodes an address in 4 or 16 bytes; empty for `None`.
pub(super) fn ip_address(ip: Option<IpAddr>) -> Vec<u8> {
    match ip {
        None => Vec::new(),
        Some(IpAddr::V4(ip)) => ip.octets().into(),
        Some(IpAddr::V6(ip)) => ip.octets().into(),
    }
}

/// The fields of an update that are stored as JSON.
pub(super) struct UpdatedFields {
    pub(super) access: String,
    pub(super) limits: String,
    pub(super) networks: String,
    pub(super) metadata: String,
}

impl UpdatedFields {
    pub(super) fn of(key: &Key) -> Self {
        Self {
            access: codec::access(&key.access).unwrap_or_default(),
            limits: codec::limits(&key.limits).unwrap_or_default(),
            networks: codec::networks(&key.networks).unwrap_or_default(),
            metadata: codec::metadata(&key.metadata),
        }
    }
}

pub(super) fn pack_key(key: &Key, current: &SecretDigest) -> Vec<u8> {
    let updated = UpdatedFields::of(key);
    let (revoked, retiring) = (key.revoked.as_ref(), key.retiring.as_ref());
    let reason = revoked.map_or("", |revoked| &revoked.reason);
    fn token(token: &Option<[u8; 32]>) -> &[u8] {
        token.as_ref().map_or(&[], |token| token)
    }
    pack([
        &key.revision.to_be_bytes()[..],
        key.owner.tenant().as_bytes(),
        key.owner.account().as_bytes(),
        &tenant_hash(key.owner.tenant()),
        &owner_hash(&key.owner),
        &current.to_bytes(),
        &[],
        &optional_instant(key.expires_at),
        &optional_instant(key.disabled_at),
        &optional_instant(revoked.map(|revoked| revoked.at)),
        reason.as_bytes(),
        key.name.as_str().as_bytes(),
        key.hint.as_bytes(),
        updated.access.as_bytes(),
        updated.limits.as_bytes(),
        updated.networks.as_bytes(),
        updated.metadata.as_bytes(),
        &instant(key.created_at),
        retiring.map_or("", |retiring| &retiring.hint).as_bytes(),
        &optional_instant(retiring.map(|retiring| retiring.ends_at)),
        &optional_instant(key.rotated_at),
        token(&key.rotation_token),
        &optional_instant(key.first_used_at),
        &optional_instant(key.last_used_at),
        &ip_address(key.last_used_ip),
        &optional_instant(key.secret_first_used_at),
        token(&key.issue_token),
    ])
}

pub(super) fn read_key(id: &[u8], packed: &[u8]) -> Result<KeyRecord, StoreError> {
    let id = KeyId::from_bytes(id.try_into().map_err(|_| damaged_record())?);
    let mut fields = FieldReader::new(packed)?;
    let revision = u64::from_be_bytes(fields.bytes()?.try_into().map_err(|_| damaged_record())?);
    if i64::try_from(revision).is_err() {
        return Err(damaged_record());
    }
    let owner = Owner::from_parts(text(fields.bytes()?)?, text(fields.bytes()?)?);
    let _hashes = (fields.bytes()?, fields.bytes()?);
    let current = read_digest(fields.bytes()?)?.ok_or_else(damaged_record)?;
    let former = read_digest(fields.bytes()?)?;
    let expires_at = read_instant(fields.bytes()?)?;
    let disabled_at = read_instant(fields.bytes()?)?;
    let (revoked_at, reason) = (read_instant(fields.bytes()?)?, text(fields.bytes()?)?);
    // An empty reason is a reason. A reason without an instant is damage, and the key must not be
    // read as not revoked.
    let revoked = match (revoked_at, reason) {
        (Some(at), reason) => Some(Revocation { at, reason: reason.into() }),
        (None, "") => None,
        (None, _) => return Err(damaged_record()),
    };
    let name = Name::new(text(fields.bytes()?)?).map_err(StoreError::corrupt)?;
    let hint = text(fields.bytes()?)?.into();
    let access = codec::read_access(non_empty(text(fields.bytes()?)?))?;
    let limits = codec::read_limits(non_empty(text(fields.bytes()?)?))?;
    let networks = codec::read_networks(non_empty(text(fields.bytes()?)?))?;
    let metadata = codec::read_metadata(text(fields.bytes()?)?)?;
    let created_at = read_instant(fields.bytes()?)?.ok_or_else(damaged_record)?;
    let (retiring_hint, ends_at) = (text(fields.bytes()?)?, read_instant(fields.bytes()?)?);
    let retiring = match (retiring_hint, ends_at) {
        ("", None) => None,
        ("", Some(_)) | (_, None) => return Err(damaged_record()),
        (hint, Some(ends_at)) => Some(RetiringSecret { hint: hint.into(), ends_at }),
    };
    let rotated_at = read_instant(fields.bytes()?)?;
    let rotation_token = read_token(fields.bytes()?)?;
    let (first_used_at, last_used_at) =
        (read_instant(fields.bytes()?)?, read_instant(fields.bytes()?)?);
    let last_used_ip = read_ip(fields.bytes()?)?;
    let secret_first_used_at = read_instant(fields.bytes()?)?;
    let key = Key {
        id,
        owner: owner.map_err(StoreError::corrupt)?,
        name,
        hint,
        retiring,
        access,
        limits,
        networks,
        metadata,
        created_at,
        expires_at,
        disabled_at,
        revoked,
        rotated_at,
        rotation_token,
        issue_token: read_token(fields.bytes()?)?,
        first_used_at,
        secret_first_used_at,
        last_used_at,
        last_used_ip,
        revision,
    };
    Ok(KeyRecord { key, current, former })
}

/// Packs an event. The key's id is the last field: `revoke_all.lua` appends the id of each key.
pub(super) fn pack_event(event: &AuditEvent) -> Vec<u8> {
    let ip = event.ip.map(|ip| ip_address(Some(ip)));
    let outcome: &[u8] = if event.outcome == Outcome::Success { b"1" } else { b"0" };
    pack_options([
        Some(&instant(event.at)[..]),
        Some(event.kind.as_str().as_bytes()),
        Some(outcome),
        Some(event.tenant.as_bytes()),
        event.account.as_deref().map(str::as_bytes),
        Some(event.actor.as_bytes()),
        ip.as_deref(),
        event.user_agent.as_deref().map(str::as_bytes),
        event.reason.as_deref().map(str::as_bytes),
        Some(&event.count.to_be_bytes()),
        event.key_id.as_ref().map(|id| &id.as_bytes()[..]),
    ])
}

pub(super) fn read_event(id: &[u8], packed: &[u8]) -> Result<AuditEvent, StoreError> {
    let mut fields = FieldReader::new(packed)?;
    Ok(AuditEvent {
        id: EventId::from_bytes(id.try_into().map_err(|_| damaged_record())?),
        at: read_instant(fields.bytes()?)?.ok_or_else(damaged_record)?,
        kind: text(fields.bytes()?)?.parse().map_err(StoreError::corrupt)?,
        outcome: match fields.bytes()? {
            b"1" => Outcome::Success,
            b"0" => Outcome::Failure,
            _ => return Err(damaged_record()),
        },
        tenant: text(fields.bytes()?)?.into(),
        account: optional_text(fields.optional_bytes()?)?,
        actor: text(fields.bytes()?)?.into(),
        ip: fields.optional_bytes()?.map(read_ip).transpose()?.flatten(),
        user_agent: optional_text(fields.optional_bytes()?)?,
        reason: optional_text(fields.optional_bytes()?)?,
        count: u32::from_be_bytes(fields.bytes()?.try_into().map_err(|_| damaged_record())?),
        key_id: match fields.optional_bytes()? {
            None => None,
            Some(id) => Some(KeyId::from_bytes(id.try_into().map_err(|_| damaged_record())?)),
        },
    })
}

pub(super) fn read_instant(bytes: &[u8]) -> Result<Option<Timestamp>, StoreError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| damaged_record())?);
    let instant = Timestamp::from_unix_micros(micros);
    // `from_unix_micros` clamps a value out of range.
    if instant.as_unix_micros() == micros { Ok(Some(instant)) } else { Err(damaged_record()) }
}

fn read_digest(bytes: &[u8]) -> Result<Option<SecretDigest>, StoreError> {
    match bytes {
        [] => Ok(None),
        stored => SecretDigest::from_bytes(stored).ok_or_else(damaged_record).map(Some),
    }
}

fn read_token(bytes: &[u8]) -> Result<Option<[u8; 32]>, StoreError> {
    match bytes {
        [] => Ok(None),
        token => token.try_into().map(Some).map_err(|_| damaged_record()),
    }
}

fn read_ip(bytes: &[u8]) -> Result<Option<IpAddr>, StoreError> {
    match bytes.len() {
        0 => Ok(None),
        4 => Ok(<[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)),
        16 => Ok(<[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)),
        _ => Err(damaged_record()),
    }
}

fn text(bytes: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes).map_err(StoreError::corrupt)
}

fn optional_text(bytes: Option<&[u8]>) -> Result<Option<String>, StoreError> {
    bytes.map(|bytes| text(bytes).map(Into::into)).transpose()
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Identifies an owner or a tenant in an index. Readers compare the names themselves as well.
pub(crate) type NameHash = [u8; 16];

pub(crate) fn owner_hash(owner: &Owner) -> NameHash {
    hash_names(&[owner.tenant(), owner.account()])
}

pub(super) fn tenant_hash(tenant: &str) -> NameHash {
    hash_names(&[tenant])
}

fn hash_names(names: &[&str]) -> NameHash {
    let mut hash = sha2::Sha256::new();
    for name in names {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.as_chunks();
    first[0]
}

/// Returns a new key's members of the index `index`. A sorted set with equal scores orders its
/// members by their bytes: within an owner or tenant, by what follows the hash.
pub(super) fn members_of_key(key: &Key) -> Vec<Vec<u8>> {
    let (owner, id) = (owner_hash(&key.owner), key.id.as_bytes());
    let ends_at = key.expires_at.map_or(NEVER, instant);
    let mut members =
        vec![member(b'O', &[&owner, id]), member(b'T', &[&tenant_hash(key.owner.tenant()), id])];
    if key.revoked.is_none() {
        members.push(member(b'L', &[&owner, &ends_at, id]));
    }
    if let Some(token) = &key.issue_token {
        members.push(member(b'I', &[&owner, token, id]));
    }
    if let Some(since) = key.dead_since() {
        members.push(member(b'D', &[&instant(since), id]));
    }
    members
}

/// Returns an event's members of the index `audit_index`.
pub(super) fn members_of_event(id: EventId, event: &AuditEvent) -> Vec<Vec<u8>> {
    let id = id.as_bytes();
    let mut members = vec![
        member(b'A', &[&instant(event.at), id]),
        member(b'T', &[&tenant_hash(&event.tenant), id]),
    ];
    if let Some(account) = &event.account {
        members.push(member(b'O', &[&hash_names(&[&event.tenant, account]), id]));
    }
    if let Some(key_id) = event.key_id {
        members.push(member(b'K', &[key_id.as_bytes(), id]));
    }
    members
}

/// Returns the prefix of the members of an owner's or tenant's keys or events.
pub(super) fn scope_prefix(within: OwnerScope<'_>) -> Vec<u8> {
    match within {
        OwnerScope::Owner(owner) => member(b'O', &[&owner_hash(owner)]),
        OwnerScope::Tenant(tenant) => member(b'T', &[&tenant_hash(tenant)]),
    }
}

/// Returns the bound from which the keys of the tenants after this one begin.
pub(super) fn tenants_after(tenant: Option<&str>) -> Vec<u8> {
    match tenant {
        Some(tenant) => [&b"("[..], &member(b'T', &[&tenant_hash(tenant), &LAST])].concat(),
        None => b"[T".into(),
    }
}

/// Returns the prefix of the members of a key's events.
pub(super) fn key_prefix(id: KeyId) -> Vec<u8> {
    member(b'K', &[id.as_bytes()])
}

/// Returns the prefix of the members of an owner's unrevoked keys.
pub(super) fn unrevoked_prefix(owner: &Owner) -> Vec<u8> {
    member(b'L', &[&owner_hash(owner)])
}

/// Returns the bounds of the members of an owner's live keys. A key is dead from the instant of its
/// expiry on, so the first bound lies behind all keys that expire at `now`.
pub(super) fn live_range(owner: &Owner, now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let expired = member(b'L', &[&owner_hash(owner), &instant(now), &LAST]);
    let last = [&b"("[..], &unrevoked_prefix(owner)[..], &LAST, &LAST].concat();
    ([&b"("[..], &expired].concat(), last)
}

/// Builds a member of an index: its kind, then its parts. Instants have 8 bytes, ids and hashes 16.
///
/// | index | kind | parts |
/// |---|---|---|
/// | `index` | `O`, `T` | hash of the owner or tenant, id of a key |
/// | `index` | `L` | hash of the owner, expiry, id of an unrevoked key |
/// | `index` | `I` | hash of the owner, idempotency token, id of a key that was issued with it |
/// | `index` | `D` | instant of revocation or expiry, id of a key |
/// | `index` | `K`, `H` | id of a key and hour of its usage; `H` has the hour first |
/// | `index` | `C` | end of a one-time code, digest of its address |
/// | `index` | `G` | start of the period, field of a counter of an anonymous caller |
/// | `audit_index` | `O`, `T`, `K` | hash of the owner or tenant, or id of the key; id of an event |
/// | `audit_index` | `A` | instant, id of an event |
pub(super) fn member(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind][..], &parts.concat()].concat()
}

/// Sorts after every identifier.
pub(super) const LAST: [u8; 17] = [0xff; 17];
/// Sorts after every instant.
const NEVER: [u8; 8] = [0xff; 8];
