use std::{sync::Arc, time::Duration};

use super::{
    commands::{RedisDatabase, Reply, pairs},
    msgpack::damaged_record,
    records::{
        LAST, instant, key_prefix, optional_instant, read_event, read_key, scope_prefix,
        tenants_after,
    },
    scripts::{GET, LIST_EVENTS, LIST_KEYS, LIST_TENANTS, TIME},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, OwnerScope, Status, Timestamp},
    secret::SecretDigest,
    store::{
        FoundKey, KeyQuery, StoreError,
        coalesced::{LookupRecord, LookupSource},
    },
};

/// Finds keys in one round trip on the shared connection.
impl LookupSource for Arc<RedisDatabase> {
    const NAME: &'static str = "Redis";
    const MAX_IN_FLIGHT: usize = 2;

    fn timeout(&self) -> Duration {
        self.primary.timeout()
    }

    async fn look_up(&self, digests: &[SecretDigest]) -> Result<Vec<LookupRecord>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.secrets());
        for digest in digests {
            command.arg(&digest.to_bytes());
        }
        // Not a script: a script makes a lookup half as expensive again.
        let records = self.read_command(&command).await?.list()?;
        let existing = digests.iter().zip(&records).filter(|(_, record)| !record.is_nil());
        Ok(existing
            .map(|(digest, record)| (*digest, read_found_key(digest, record).map(Some)))
            .collect())
    }
}

/// Reads of keys and of the audit log.
impl RedisDatabase {
    /// Returns the time of the server that holds the keys.
    pub(super) async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let time = self.read(&TIME, &[]).await?.list()?;
        let [seconds, micros] = time.as_slice() else { return Err(damaged_record()) };
        let micros = seconds.digits()?.saturating_mul(1_000_000).saturating_add(micros.digits()?);
        Ok(Timestamp::from_unix_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    pub(super) async fn get(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<Arc<Key>>, StoreError> {
        let reply = self.read(&GET, &[id.as_bytes()]).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let record = read_key(id.as_bytes(), reply.bytes()?)?;
        Ok(Some(record.key).filter(|key| within.includes(&key.owner)).map(Arc::new))
    }

    pub(super) async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let (prefix, now) = (scope_prefix(within), instant(now));
        let mut from = start_after(&prefix, after.as_ref().map(KeyId::as_bytes));
        let mut records = Vec::new();
        while records.len() < limit as usize {
            let left = (limit as usize - records.len()).to_string();
            let status = status.map_or("", Status::as_str).as_bytes();
            let arguments = [&prefix, &from[..], left.as_bytes(), status, &now];
            let (page, next) = page(self.read(&LIST_KEYS, &arguments).await?)?;
            for pair in pairs(&page) {
                let (id, packed) = pair?;
                let key = read_key(id, packed).map(|record| record.key);
                if key.as_ref().map_or(true, |key| within.includes(&key.owner)) {
                    let id = KeyId::from_bytes(id.try_into().map_err(|_| damaged_record())?);
                    records.push((id, key));
                }
            }
            let Some(next) = next else { break };
            from = next;
        }
        StoreError::page(records)
    }

    /// Lists tenants in the order of their hashes, which is the order of the index.
    pub(super) async fn tenants(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let (from, limit) = (tenants_after(after), limit.to_string());
        let found = self.read(&LIST_TENANTS, &[&from, limit.as_bytes()]).await?.list()?;
        let text =
            |name: &Reply| String::from_utf8(name.bytes()?.into()).map_err(|_| damaged_record());
        found.iter().map(text).collect()
    }

    pub(super) async fn events(
        &self,
        query: &AuditQuery<'_>,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let AuditQuery { within, key_id, kind, from: since, until, after, limit } = *query;
        let prefix = key_id.map_or_else(|| scope_prefix(within), key_prefix);
        let mut from = start_after(&prefix, after.as_ref().map(|after| after.as_bytes()));
        let (since, until) = (optional_instant(since), optional_instant(until));
        let mut events = Vec::new();
        while events.len() < limit as usize {
            let left = (limit as usize - events.len()).to_string();
            let arguments = [
                &prefix,
                &from[..],
                left.as_bytes(),
                within.tenant().as_bytes(),
                within.account().unwrap_or_default().as_bytes(),
                kind.map_or("", EventKind::as_str).as_bytes(),
                &since,
                &until,
            ];
            let (page, next) = page(self.read(&LIST_EVENTS, &arguments).await?)?;
            for pair in pairs(&page) {
                let (id, packed) = pair?;
                let event = read_event(id, packed)?;
                if query.matches(&event) {
                    events.push(event);
                }
            }
            let Some(next) = next else { break };
            from = next;
        }
        Ok(events)
    }
}

/// Returns the bound of a range that starts after an identifier, or at the newest one.
fn start_after(prefix: &[u8], id: Option<&[u8; 16]>) -> Vec<u8> {
    [&b"("[..], prefix, id.map_or(&LAST[..], |id| id)].concat()
}

/// Splits the reply of a paged script into the records found and the bound of the next page.
fn page(reply: Reply) -> Result<(Vec<Reply>, Option<Vec<u8>>), StoreError> {
    let mut page = reply.list()?;
    if page.is_empty() {
        return Err(damaged_record());
    }
    let last = page.remove(0);
    let last = Some(last.bytes()?).filter(|last| !last.is_empty());
    Ok((page, last.map(|last| [&b"("[..], last].concat())))
}

fn read_found_key(wanted: &SecretDigest, reply: &Reply) -> Result<FoundKey, StoreError> {
    let (id, packed) = reply.bytes()?.split_at_checked(16).ok_or_else(damaged_record)?;
    let record = read_key(id, packed)?;
    let (digest, ends_at) = if record.current == *wanted {
        (record.current, None)
    } else {
        let former = record.former.filter(|former| former == wanted).ok_or_else(damaged_record)?;
        let retiring = record.key.retiring.as_ref().ok_or_else(damaged_record)?;
        (former, Some(retiring.ends_at))
    };
    Ok(FoundKey { key: record.key.into(), digest, ends_at })
}
