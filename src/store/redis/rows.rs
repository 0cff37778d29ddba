//! Keys and events as records. The scripts know the fields of a key by their numbers: `prelude.lua`.

use std::net::IpAddr;

use super::{
    names::{owner_scope, tenant_scope},
    pack::{Fields, damaged, pack, pack_options},
};
use crate::{
    audit::{AuditEvent, Outcome},
    model::{EventId, Key, KeyId, Name, Owner, RetiringSecret, Revocation, Timestamp},
    secret::SecretDigest,
    store::{StoreError, codec},
};

/// A key, and the digests that lead to it.
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) current: SecretDigest,
    pub(super) former: Option<SecretDigest>,
}

/// Eight bytes that sort as the instants do.
pub(super) fn instant(at: Timestamp) -> [u8; 8] {
    at.as_unix_micros().to_be_bytes()
}

/// As [`instant`]; nothing where there is none.
pub(super) fn instant_or_nothing(at: Option<Timestamp>) -> Vec<u8> {
    at.map_or_else(Vec::new, |at| instant(at).into())
}

/// Four bytes or sixteen; nothing where there is none.
pub(super) fn address(ip: Option<IpAddr>) -> Vec<u8> {
    match ip {
        None => Vec::new(),
        Some(IpAddr::V4(ip)) => ip.octets().into(),
        Some(IpAddr::V6(ip)) => ip.octets().into(),
    }
}

/// The fields that an update writes: what the script puts from `NAME` on, and `DISABLED`.
pub(super) struct Told {
    pub(super) access: String,
    pub(super) limits: String,
    pub(super) networks: String,
    pub(super) metadata: String,
}

impl Told {
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
    let told = Told::of(key);
    let (revoked, retiring) = (key.revoked.as_ref(), key.retiring.as_ref());
    let reason = revoked.map_or("", |revoked| &revoked.reason);
    let token = key.rotation_token.as_ref().map_or(&[][..], |token| token);
    pack([
        &key.revision.to_be_bytes()[..],
        key.owner.tenant().as_bytes(),
        key.owner.account().as_bytes(),
        &tenant_scope(key.owner.tenant()),
        &owner_scope(&key.owner),
        &current.to_bytes(),
        &[],
        &instant_or_nothing(key.expires_at),
        &instant_or_nothing(key.disabled_at),
        &instant_or_nothing(revoked.map(|revoked| revoked.at)),
        reason.as_bytes(),
        key.name.as_str().as_bytes(),
        key.hint.as_bytes(),
        told.access.as_bytes(),
        told.limits.as_bytes(),
        told.networks.as_bytes(),
        told.metadata.as_bytes(),
        &instant(key.created_at),
        retiring.map_or("", |retiring| &retiring.hint).as_bytes(),
        &instant_or_nothing(retiring.map(|retiring| retiring.ends_at)),
        &instant_or_nothing(key.rotated_at),
        token,
        &instant_or_nothing(key.first_used_at),
        &instant_or_nothing(key.last_used_at),
        &address(key.last_used_ip),
    ])
}

pub(super) fn read_key(id: &[u8], packed: &[u8]) -> Result<Row, StoreError> {
    let id = KeyId::from_bytes(id.try_into().map_err(|_| damaged())?);
    let mut fields = Fields::of(packed)?;
    let revision = u64::from_be_bytes(fields.bytes()?.try_into().map_err(|_| damaged())?);
    let owner = match text(fields.bytes()?)? {
        "" => Owner::account_only(text(fields.bytes()?)?),
        tenant => Owner::new(tenant, text(fields.bytes()?)?),
    };
    let _scopes = (fields.bytes()?, fields.bytes()?);
    let current = read_digest(fields.bytes()?)?.ok_or_else(damaged)?;
    let former = read_digest(fields.bytes()?)?;
    let expires_at = read_instant(fields.bytes()?)?;
    let disabled_at = read_instant(fields.bytes()?)?;
    let (revoked_at, reason) = (read_instant(fields.bytes()?)?, text(fields.bytes()?)?);
    let revoked = revoked_at.map(|at| Revocation { at, reason: reason.into() });
    let name = Name::new(text(fields.bytes()?)?).map_err(StoreError::corrupt)?;
    let hint = text(fields.bytes()?)?.into();
    let access = codec::read_access(filled(text(fields.bytes()?)?))?;
    let limits = codec::read_limits(filled(text(fields.bytes()?)?))?;
    let networks = codec::read_networks(filled(text(fields.bytes()?)?))?;
    let metadata = codec::read_metadata(text(fields.bytes()?)?)?;
    let created_at = read_instant(fields.bytes()?)?.ok_or_else(damaged)?;
    let (retiring_hint, ends_at) = (text(fields.bytes()?)?, read_instant(fields.bytes()?)?);
    let retiring = ends_at.map(|ends_at| RetiringSecret { hint: retiring_hint.into(), ends_at });
    let rotated_at = read_instant(fields.bytes()?)?;
    let rotation_token = match fields.bytes()? {
        [] => None,
        token => Some(token.try_into().map_err(|_| damaged())?),
    };
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
        first_used_at: read_instant(fields.bytes()?)?,
        last_used_at: read_instant(fields.bytes()?)?,
        last_used_ip: read_address(fields.bytes()?)?,
        revision,
    };
    Ok(Row { key, current, former })
}

/// The key of an event comes last: a change of many keys appends each key's id itself.
pub(super) fn pack_event(event: &AuditEvent) -> Vec<u8> {
    let ip = event.ip.map(|ip| address(Some(ip)));
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
    let mut fields = Fields::of(packed)?;
    Ok(AuditEvent {
        id: EventId::from_bytes(id.try_into().map_err(|_| damaged())?),
        at: read_instant(fields.bytes()?)?.ok_or_else(damaged)?,
        kind: text(fields.bytes()?)?.parse().map_err(StoreError::corrupt)?,
        outcome: match fields.bytes()? {
            b"1" => Outcome::Success,
            b"0" => Outcome::Failure,
            _ => return Err(damaged()),
        },
        tenant: text(fields.bytes()?)?.into(),
        account: owned(fields.option()?)?,
        actor: text(fields.bytes()?)?.into(),
        ip: fields.option()?.map(read_address).transpose()?.flatten(),
        user_agent: owned(fields.option()?)?,
        reason: owned(fields.option()?)?,
        count: u32::from_be_bytes(fields.bytes()?.try_into().map_err(|_| damaged())?),
        key_id: match fields.option()? {
            None => None,
            Some(id) => Some(KeyId::from_bytes(id.try_into().map_err(|_| damaged())?)),
        },
    })
}

pub(super) fn read_instant(bytes: &[u8]) -> Result<Option<Timestamp>, StoreError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| damaged())?);
    Ok(Some(Timestamp::from_unix_micros(micros)))
}

fn read_digest(bytes: &[u8]) -> Result<Option<SecretDigest>, StoreError> {
    match bytes {
        [] => Ok(None),
        stored => SecretDigest::from_bytes(stored).ok_or_else(damaged).map(Some),
    }
}

fn read_address(bytes: &[u8]) -> Result<Option<IpAddr>, StoreError> {
    match bytes.len() {
        0 => Ok(None),
        4 => Ok(<[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)),
        16 => Ok(<[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)),
        _ => Err(damaged()),
    }
}

fn text(bytes: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes).map_err(StoreError::corrupt)
}

fn owned(bytes: Option<&[u8]>) -> Result<Option<String>, StoreError> {
    bytes.map(|bytes| text(bytes).map(Into::into)).transpose()
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
