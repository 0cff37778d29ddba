use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{EventId, Key, KeyId, Name, Owner, RetiringSecret, Revocation, Timestamp},
    secret::SecretDigest,
    store::{FoundKey, StoreError, codec},
};

use super::errors::Failure;

pub(super) type Statement<'a> = Query<'a, Postgres, PgArguments>;

/// The columns of a key, in the order in which [`bind_key`] binds them from `$1` on.
pub(super) const KEY: &str = "id, tenant, account, name, hint, retiring_hint, retiring_ends_at, access, limits, \
    networks, metadata, created_at, expires_at, disabled_at, revoked_at, revoked_reason, rotated_at, \
    rotation_token, first_used_at, last_used_at, last_used_ip, revision";

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
        .bind(micros(key.first_used_at))
        .bind(micros(key.last_used_at))
        .bind(key.last_used_ip.map(|ip| ip.to_string()))
        .bind(key.revision as i64)
}

/// Reads a key from a row of [`KEY`].
pub(super) fn key(row: &PgRow) -> Result<Key, Failure> {
    let at = |column| Ok::<_, Failure>(row.try_get::<Option<i64>, _>(column)?.map(instant));
    let retiring = match (row.try_get("retiring_hint")?, at("retiring_ends_at")?) {
        (Some(hint), Some(ends_at)) => Some(RetiringSecret { hint, ends_at }),
        _ => None,
    };
    let revoked = match (at("revoked_at")?, row.try_get("revoked_reason")?) {
        (Some(at), Some(reason)) => Some(Revocation { at, reason }),
        _ => None,
    };
    let token = row.try_get::<Option<Vec<u8>>, _>("rotation_token")?;
    let token = token.map(|token| token.try_into().map_err(|_| corrupt("rotation_token")));
    Ok(Key {
        id: key_id(row.try_get("id")?),
        owner: owner(row)?,
        name: Name::new(row.try_get("name")?).map_err(StoreError::corrupt)?,
        hint: row.try_get("hint")?,
        retiring,
        access: codec::read_access(row.try_get("access")?)?,
        limits: codec::read_limits(row.try_get("limits")?)?,
        networks: codec::read_networks(row.try_get("networks")?)?,
        metadata: codec::read_metadata(row.try_get("metadata")?)?,
        created_at: instant(row.try_get("created_at")?),
        expires_at: at("expires_at")?,
        disabled_at: at("disabled_at")?,
        revoked,
        rotated_at: at("rotated_at")?,
        rotation_token: token.transpose()?,
        first_used_at: at("first_used_at")?,
        last_used_at: at("last_used_at")?,
        last_used_ip: ip(row, "last_used_ip")?,
        revision: row.try_get::<i64, _>("revision")? as u64,
    })
}

/// Reads a row of a key with `digest` and `former` of the secret that led to it.
pub(super) fn found(row: &PgRow) -> Result<FoundKey, Failure> {
    let former: bool = row.try_get("former")?;
    let (digest, key) = (digest(row)?, key(row)?);
    let ends_at = key.retiring.as_ref().filter(|_| former).map(|retiring| retiring.ends_at);
    Ok(FoundKey { key: key.into(), digest, ends_at })
}

pub(super) fn digest(row: &PgRow) -> Result<SecretDigest, Failure> {
    Ok(SecretDigest::from_bytes(row.try_get("digest")?).ok_or_else(|| corrupt("digest"))?)
}

pub(super) fn owner(row: &PgRow) -> Result<Owner, Failure> {
    let owner = match row.try_get("tenant")? {
        "" => Owner::account_only(row.try_get("account")?),
        tenant => Owner::new(tenant, row.try_get("account")?),
    };
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

pub(super) fn event(row: &PgRow) -> Result<AuditEvent, Failure> {
    let kind: EventKind = row.try_get::<&str, _>("kind")?.parse().map_err(StoreError::corrupt)?;
    let success = row.try_get("success")?;
    let of_key = row.try_get::<Option<Uuid>, _>("key_id")?;
    Ok(AuditEvent {
        id: EventId::from_bytes(row.try_get::<Uuid, _>("id")?.into_bytes()),
        at: instant(row.try_get("at")?),
        kind,
        outcome: if success { Outcome::Success } else { Outcome::Failure },
        tenant: row.try_get("tenant")?,
        account: row.try_get("account")?,
        key_id: of_key.map(key_id),
        actor: row.try_get("actor")?,
        ip: ip(row, "ip")?,
        user_agent: row.try_get("user_agent")?,
        reason: row.try_get("reason")?,
        count: u32::try_from(row.try_get::<i64, _>("count")?).map_err(StoreError::corrupt)?,
    })
}

fn ip(row: &PgRow, column: &'static str) -> Result<Option<std::net::IpAddr>, Failure> {
    let text = row.try_get::<Option<&str>, _>(column)?;
    Ok(text.map(str::parse).transpose().map_err(StoreError::corrupt)?)
}

fn instant(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros)
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::corrupt(format!("the column {what} holds what it cannot"))
}
