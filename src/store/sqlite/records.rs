use std::net::IpAddr;

use sqlx::{
    Row, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::errors::SqliteFailure;
use crate::{
    audit::{AuditEvent, EventKind},
    model::{EventId, Key, KeyId, Name, Owner, RetiringSecret, Revocation, Timestamp},
    secret::SecretDigest,
    store::{FoundKey, StoreError, codec},
};

pub(super) type Statement<'a> = Query<'a, Sqlite, SqliteArguments>;

/// Binds the columns of a key, in the order of `statements::KEY`.
pub(super) fn bind_key<'a>(statement: Statement<'a>, key: &'a Key) -> Statement<'a> {
    let (retiring, revoked) = (key.retiring.as_ref(), key.revoked.as_ref());
    statement
        .bind(key.id.as_bytes().as_slice())
        .bind(key.owner.tenant())
        .bind(key.owner.account())
        .bind(key.name.as_str())
        .bind(&key.hint)
        .bind(retiring.map(|retiring| &retiring.hint))
        .bind(micros(retiring.map(|retiring| retiring.ends_at)))
        .bind(codec::access(&key.access))
        .bind(codec::limits(&key.limits))
        .bind(codec::networks(&key.networks))
        .bind(codec::metadata(&key.metadata))
        .bind(key.created_at.as_unix_micros())
        .bind(micros(key.expires_at))
        .bind(micros(key.disabled_at))
        .bind(micros(revoked.map(|revoked| revoked.at)))
        .bind(revoked.map(|revoked| &revoked.reason))
        .bind(micros(key.rotated_at))
        .bind(key.rotation_token.as_ref().map(|token| token.as_slice()))
        .bind(key.issue_token.as_ref().map(|token| token.as_slice()))
        .bind(micros(key.first_used_at))
        .bind(micros(key.secret_first_used_at))
        .bind(micros(key.last_used_at))
        .bind(key.last_used_ip.map(|ip| ip.to_string()))
        .bind(i64::try_from(key.revision).unwrap_or(i64::MAX))
}

pub(super) fn key_id(row: &SqliteRow) -> Result<KeyId, SqliteFailure> {
    Ok(KeyId::from_bytes(bytes(row, "id")?.ok_or_else(|| corrupt_column("id"))?))
}

/// Reads a key from a row that has the columns of `statements::KEY`.
pub(super) fn read_key(row: &SqliteRow) -> Result<Key, SqliteFailure> {
    let retiring = match (row.try_get("retiring_hint")?, instant(row, "retiring_ends_at")?) {
        (Some(hint), Some(ends_at)) => Some(RetiringSecret { hint, ends_at }),
        (None, None) => None,
        _ => return Err(corrupt_column("retiring_hint")),
    };
    // A reason without an instant is damage. The key must not be read as not revoked.
    let revoked = match (instant(row, "revoked_at")?, row.try_get("revoked_reason")?) {
        (Some(at), Some(reason)) => Some(Revocation { at, reason }),
        (None, None) => None,
        _ => return Err(corrupt_column("revoked_at")),
    };
    Ok(Key {
        id: key_id(row)?,
        owner: owner(row)?,
        name: Name::new(row.try_get("name")?).map_err(StoreError::corrupt)?,
        hint: row.try_get("hint")?,
        retiring,
        access: codec::read_access(row.try_get("access")?)?,
        limits: codec::read_limits(row.try_get("limits")?)?,
        networks: codec::read_networks(row.try_get("networks")?)?,
        metadata: codec::read_metadata(row.try_get("metadata")?)?,
        created_at: instant(row, "created_at")?.ok_or_else(|| corrupt_column("created_at"))?,
        expires_at: instant(row, "expires_at")?,
        disabled_at: instant(row, "disabled_at")?,
        revoked,
        rotated_at: instant(row, "rotated_at")?,
        rotation_token: bytes(row, "rotation_token")?,
        issue_token: bytes(row, "issue_token")?,
        first_used_at: instant(row, "first_used_at")?,
        secret_first_used_at: instant(row, "secret_first_used_at")?,
        last_used_at: instant(row, "last_used_at")?,
        last_used_ip: ip(row, "last_used_ip")?,
        revision: number(row, "revision")?,
    })
}

/// Reads a key, with the digest and the end of the secret under which it was found.
pub(super) fn read_found_key(row: &SqliteRow) -> Result<FoundKey, SqliteFailure> {
    let digest =
        SecretDigest::from_bytes(row.try_get("digest")?).ok_or_else(|| corrupt_column("digest"))?;
    Ok(FoundKey { key: read_key(row)?.into(), digest, ends_at: instant(row, "ends_at")? })
}

/// Binds the columns of an event, in the order of `statements::EVENT`.
pub(super) fn bind_event<'a>(statement: Statement<'a>, event: &'a AuditEvent) -> Statement<'a> {
    statement
        .bind(event.id.as_bytes().as_slice())
        .bind(event.at.as_unix_micros())
        .bind(event.kind.as_str())
        .bind(event.outcome.as_str())
        .bind(&event.tenant)
        .bind(event.account.as_deref())
        .bind(event.key_id.as_ref().map(|id| id.as_bytes().as_slice()))
        .bind(&event.actor)
        .bind(event.ip.map(|ip| ip.to_string()))
        .bind(event.user_agent.as_deref())
        .bind(event.reason.as_deref())
        .bind(i64::from(event.count))
}

pub(super) fn read_event(row: &SqliteRow) -> Result<AuditEvent, SqliteFailure> {
    let kind: EventKind = row.try_get::<&str, _>("kind")?.parse().map_err(StoreError::corrupt)?;
    Ok(AuditEvent {
        id: EventId::from_bytes(bytes(row, "id")?.ok_or_else(|| corrupt_column("id"))?),
        at: instant(row, "at")?.ok_or_else(|| corrupt_column("at"))?,
        kind,
        outcome: row.try_get::<&str, _>("outcome")?.parse().map_err(StoreError::corrupt)?,
        tenant: row.try_get("tenant")?,
        account: row.try_get("account")?,
        key_id: bytes(row, "key_id")?.map(KeyId::from_bytes),
        actor: row.try_get("actor")?,
        ip: ip(row, "ip")?,
        user_agent: row.try_get("user_agent")?,
        reason: row.try_get("reason")?,
        count: number(row, "count")?,
    })
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_unix_micros)
}

/// Reads an integer that fits `T`; any other is corrupt.
pub(super) fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T, SqliteFailure> {
    T::try_from(row.try_get::<i64, _>(column)?).map_err(|_| corrupt_column(column))
}

/// Reads exactly `N` bytes.
pub(super) fn bytes<const N: usize>(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<[u8; N]>, SqliteFailure> {
    let stored: Option<&[u8]> = row.try_get(column)?;
    stored.map(|bytes| bytes.try_into().map_err(|_| corrupt_column(column))).transpose()
}

pub(super) fn corrupt_column(column: &str) -> SqliteFailure {
    StoreError::corrupt(format!("the column {column} has an invalid value")).into()
}

fn owner(row: &SqliteRow) -> Result<Owner, SqliteFailure> {
    let owner = Owner::from_parts(row.try_get("tenant")?, row.try_get("account")?);
    Ok(owner.map_err(StoreError::corrupt)?)
}

/// Reads an instant; a value outside of [`Timestamp`]'s range is corrupt.
pub(super) fn instant(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, SqliteFailure> {
    let Some(micros) = row.try_get(column)? else { return Ok(None) };
    let instant = Timestamp::from_unix_micros(micros);
    if instant.as_unix_micros() == micros { Ok(Some(instant)) } else { Err(corrupt_column(column)) }
}

fn ip(row: &SqliteRow, column: &str) -> Result<Option<IpAddr>, SqliteFailure> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.map(str::parse).transpose().map_err(StoreError::corrupt)?)
}
