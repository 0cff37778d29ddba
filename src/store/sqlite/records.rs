use sqlx::{
    Row, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::errors::SqlFailure;
use crate::{
    audit::{AuditEvent, EventKind},
    model::{EventId, Key, KeyId},
    store::{
        FoundKey, StoreError,
        sql::{bind_key, corrupt_column, row_readers},
    },
};

pub(super) type Statement<'a> = Query<'a, Sqlite, SqliteArguments>;

row_readers!(SqliteRow, SqlFailure);

/// Binds the columns of a key, in the order of [`KEY`](crate::store::sql::KEY).
pub(super) fn bind_key<'a>(statement: Statement<'a>, key: &'a Key) -> Statement<'a> {
    bind_key!(statement, key.id.as_bytes().as_slice(), key)
}

pub(super) fn key_id(row: &SqliteRow) -> Result<KeyId, SqlFailure> {
    Ok(KeyId::from_bytes(bytes(row, "id")?.ok_or_else(|| corrupt_column("id"))?))
}

/// Reads a key from a row that has the columns of [`KEY`](crate::store::sql::KEY).
pub(super) fn read_key(row: &SqliteRow) -> Result<Key, SqlFailure> {
    read_key_with_id(row, key_id(row)?)
}

/// Reads a key, with the digest and the end of the secret under which it was found.
pub(super) fn read_found_key(row: &SqliteRow) -> Result<FoundKey, SqlFailure> {
    let ends_at = optional_instant(row, "ends_at")?;
    Ok(FoundKey { key: read_key(row)?.into(), digest: digest(row)?, ends_at })
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

pub(super) fn read_event(row: &SqliteRow) -> Result<AuditEvent, SqlFailure> {
    let kind: EventKind = row.try_get::<&str, _>("kind")?.parse().map_err(StoreError::corrupt)?;
    Ok(AuditEvent {
        id: EventId::from_bytes(bytes(row, "id")?.ok_or_else(|| corrupt_column("id"))?),
        at: instant(row, "at")?,
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
