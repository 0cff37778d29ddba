use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::errors::PostgresFailure;
use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{EventId, Key, KeyId, Name, Owner, RetiringSecret, Revocation, Timestamp},
    secret::SecretDigest,
    store::{FoundKey, StoreError, codec},
};

pub(super) type Statement<'a> = Query<'a, Postgres, PgArguments>;

/// The columns of a key, in the order in which [`bind_key`] binds them from `$1` on.
pub(super) const KEY: &str = "id, tenant, account, name, hint, retiring_hint, retiring_ends_at, access, limits, \
    networks, metadata, created_at, expires_at, disabled_at, revoked_at, revoked_reason, rotated_at, \
    rotation_token, issue_token, first_used_at, secret_first_used_at, last_used_at, last_used_ip, revision";

pub(super) fn uuid(id: KeyId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(super) fn key_id(id: Uuid) -> KeyId {
    KeyId::from_bytes(id.into_bytes())
}

pub(super) fn event_uuid(id: EventId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(super) fn bind_key<'a>(statement: Statement<'a>, key: &'a Key) -> Statement<'a> {
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_unix_micros);
    let revoked = key.revoked.as_ref();
    statement
        .bind(uuid(key.id))
        .bind(key.owner.tenant())
        .bind(key.owner.account())
        .bind(key.name.as_str())
        .bind(&key.hint)
        .bind(key.retiring.as_ref().map(|retiring| &retiring.hint))
        .bind(micros(key.retiring.as_ref().map(|retiring| retiring.ends_at)))
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

/// Reads a key from a row that has the columns of [`KEY`].
pub(super) fn read_key(row: &PgRow) -> Result<Key, PostgresFailure> {
    let at = |column| optional_instant(row, column);
    let retiring = match (row.try_get("retiring_hint")?, at("retiring_ends_at")?) {
        (Some(hint), Some(ends_at)) => Some(RetiringSecret { hint, ends_at }),
        (None, None) => None,
        _ => return Err(corrupt_column("retiring_hint").into()),
    };
    // A reason without an instant is damage. The key must not be read as not revoked.
    let revoked = match (at("revoked_at")?, row.try_get("revoked_reason")?) {
        (Some(at), Some(reason)) => Some(Revocation { at, reason }),
        (None, None) => None,
        _ => return Err(corrupt_column("revoked_at").into()),
    };
    Ok(Key {
        id: key_id(row.try_get("id")?),
        owner: read_owner(row)?,
        name: Name::new(row.try_get("name")?).map_err(StoreError::corrupt)?,
        hint: row.try_get("hint")?,
        retiring,
        access: codec::read_access(row.try_get("access")?)?,
        limits: codec::read_limits(row.try_get("limits")?)?,
        networks: codec::read_networks(row.try_get("networks")?)?,
        metadata: codec::read_metadata(row.try_get("metadata")?)?,
        created_at: instant(row, "created_at")?,
        expires_at: at("expires_at")?,
        disabled_at: at("disabled_at")?,
        revoked,
        rotated_at: at("rotated_at")?,
        rotation_token: token(row, "rotation_token")?,
        issue_token: token(row, "issue_token")?,
        first_used_at: at("first_used_at")?,
        secret_first_used_at: at("secret_first_used_at")?,
        last_used_at: at("last_used_at")?,
        last_used_ip: ip(row, "last_used_ip")?,
        revision: number(row, "revision")?,
    })
}

/// Reads a row of a key, with `digest` and `former` of the secret under which it was found.
pub(super) fn read_found_key(row: &PgRow) -> Result<FoundKey, PostgresFailure> {
    let former: bool = row.try_get("former")?;
    let (digest, key) = (read_digest(row)?, read_key(row)?);
    let ends_at = key.retiring.as_ref().filter(|_| former).map(|retiring| retiring.ends_at);
    Ok(FoundKey { key: key.into(), digest, ends_at })
}

pub(super) fn read_digest(row: &PgRow) -> Result<SecretDigest, PostgresFailure> {
    Ok(SecretDigest::from_bytes(row.try_get("digest")?).ok_or_else(|| corrupt_column("digest"))?)
}

fn read_owner(row: &PgRow) -> Result<Owner, PostgresFailure> {
    let owner = Owner::from_parts(row.try_get("tenant")?, row.try_get("account")?);
    Ok(owner.map_err(StoreError::corrupt)?)
}

pub(super) fn bind_events<'a>(statement: Statement<'a>, events: &'a [AuditEvent]) -> Statement<'a> {
    fn all<'a, T>(events: &'a [AuditEvent], field: impl Fn(&'a AuditEvent) -> T) -> Vec<T> {
        events.iter().map(field).collect()
    }
    statement
        .bind(all(events, |event| event_uuid(event.id)))
        .bind(all(events, |event| event.at.as_unix_micros()))
        .bind(all(events, |event| event.kind.as_str()))
        .bind(all(events, |event| event.outcome == Outcome::Success))
        .bind(all(events, |event| event.tenant.as_str()))
        .bind(all(events, |event| event.account.as_deref()))
        .bind(all(events, |event| event.key_id.map(uuid)))
        .bind(all(events, |event| event.actor.as_str()))
        .bind(all(events, |event| event.ip.map(|ip| ip.to_string())))
        .bind(all(events, |event| event.user_agent.as_deref()))
        .bind(all(events, |event| event.reason.as_deref()))
        .bind(all(events, |event| i64::from(event.count)))
}

pub(super) fn read_event(row: &PgRow) -> Result<AuditEvent, PostgresFailure> {
    let kind: EventKind = row.try_get::<&str, _>("kind")?.parse().map_err(StoreError::corrupt)?;
    let success = row.try_get("success")?;
    let of_key = row.try_get::<Option<Uuid>, _>("key_id")?;
    Ok(AuditEvent {
        id: EventId::from_bytes(row.try_get::<Uuid, _>("id")?.into_bytes()),
        at: instant(row, "at")?,
        kind,
        outcome: if success { Outcome::Success } else { Outcome::Failure },
        tenant: row.try_get("tenant")?,
        account: row.try_get("account")?,
        key_id: of_key.map(key_id),
        actor: row.try_get("actor")?,
        ip: ip(row, "ip")?,
        user_agent: row.try_get("user_agent")?,
        reason: row.try_get("reason")?,
        count: number(row, "count")?,
    })
}

fn token(row: &PgRow, column: &str) -> Result<Option<[u8; 32]>, PostgresFailure> {
    let stored = row.try_get::<Option<&[u8]>, _>(column)?;
    let token = stored.map(|token| token.try_into().map_err(|_| corrupt_column(column)));
    Ok(token.transpose()?)
}

fn ip(row: &PgRow, column: &'static str) -> Result<Option<std::net::IpAddr>, PostgresFailure> {
    let text = row.try_get::<Option<&str>, _>(column)?;
    Ok(text.map(str::parse).transpose().map_err(StoreError::corrupt)?)
}

/// Reads an instant that is always there.
pub(super) fn instant(row: &PgRow, column: &str) -> Result<Timestamp, PostgresFailure> {
    optional_instant(row, column)?.ok_or_else(|| corrupt_column(column).into())
}

fn optional_instant(row: &PgRow, column: &str) -> Result<Option<Timestamp>, PostgresFailure> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.map(|micros| checked_instant(column, micros)).transpose()?)
}

/// Converts microseconds; a value outside of [`Timestamp`]'s range is corrupt.
pub(super) fn checked_instant(column: &str, micros: i64) -> Result<Timestamp, StoreError> {
    let instant = Timestamp::from_unix_micros(micros);
    if instant.as_unix_micros() == micros { Ok(instant) } else { Err(corrupt_column(column)) }
}

/// Reads an integer that fits `T`; any other is corrupt.
pub(super) fn number<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<T, PostgresFailure> {
    Ok(checked_number(column, row.try_get(column)?)?)
}

pub(super) fn checked_number<T: TryFrom<i64>>(column: &str, number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| corrupt_column(column))
}

pub(super) fn corrupt_column(column: &str) -> StoreError {
    StoreError::corrupt(format!("the column {column} has an invalid value"))
}
