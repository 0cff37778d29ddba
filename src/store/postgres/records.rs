use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::errors::SqlFailure;
use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{EventId, Key, KeyId},
    store::{
        FoundKey, StoreError,
        sql::{bind_key, row_readers},
    },
};

pub(super) type Statement<'a> = Query<'a, Postgres, PgArguments>;

row_readers!(PgRow, SqlFailure);

pub(super) fn uuid(id: KeyId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(super) fn key_id(id: Uuid) -> KeyId {
    KeyId::from_bytes(id.into_bytes())
}

pub(super) fn event_uuid(id: EventId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// Binds the columns of a key, in the order of [`KEY`](crate::store::sql::KEY).
pub(super) fn bind_key<'a>(statement: Statement<'a>, key: &'a Key) -> Statement<'a> {
    bind_key!(statement, uuid(key.id), key)
}

/// Reads a key from a row that has the columns of [`KEY`](crate::store::sql::KEY).
pub(super) fn read_key(row: &PgRow) -> Result<Key, SqlFailure> {
    read_key_with_id(row, key_id(row.try_get("id")?))
}

/// Reads a row of a key, with `digest` and `former` of the secret under which it was found.
pub(super) fn read_found_key(row: &PgRow) -> Result<FoundKey, SqlFailure> {
    let former: bool = row.try_get("former")?;
    let (digest, key) = (digest(row)?, read_key(row)?);
    let ends_at = key.retiring.as_ref().filter(|_| former).map(|retiring| retiring.ends_at);
    Ok(FoundKey { key: key.into(), digest, ends_at })
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

pub(super) fn read_event(row: &PgRow) -> Result<AuditEvent, SqlFailure> {
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
