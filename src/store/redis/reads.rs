use std::{sync::Arc, time::Duration};

use super::{
    Inner,
    names::{LAST, of, of_key, tenants_behind},
    pack::damaged,
    reply::{Reply, pairs},
    rows::{instant, instant_or_nothing, read_event, read_key},
    scripts::{EVENTS, GET, LIST, TENANTS},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, OwnerScope, Status},
    secret::SecretDigest,
    store::{
        FoundKey, KeyQuery, StoreError,
        coalesced::{LookupRecord, LookupSource},
    },
};

/// One round trip, on the connection that all calls share.
impl LookupSource for Arc<Inner> {
    const NAME: &'static str = "Redis";
    const MAX_IN_FLIGHT: usize = 2;

    fn timeout(&self) -> Duration {
        self.link.timeout()
    }

    async fn look_up(&self, digests: &[SecretDigest]) -> Result<Vec<LookupRecord>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.names.secrets());
        for digest in digests {
            command.arg(&digest.to_bytes());
        }
        // Not a script, which costs half of a look-up again.
        let records = self.look(&command).await?.list()?;
        let there = digests.iter().zip(&records).filter(|(_, record)| !record.is_nothing());
        Ok(there.map(|(digest, record)| (*digest, found(digest, record).map(Some))).collect())
    }
}

/// Reads of keys and of the log.
impl Inner {
    pub(super) async fn get(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<Arc<Key>>, StoreError> {
        let reply = self.read(&GET, &[id.as_bytes()]).await?;
        if reply.is_nothing() {
            return Ok(None);
        }
        let row = read_key(id.as_bytes(), reply.bytes()?)?;
        Ok(Some(row.key).filter(|key| within.includes(&key.owner)).map(Arc::new))
    }

    pub(super) async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let (prefix, now) = (of(within), instant(now));
        let mut from = behind(&prefix, after.as_ref().map(KeyId::as_bytes));
        let mut keys = Vec::new();
        while keys.len() < limit as usize {
            let left = (limit as usize - keys.len()).to_string();
            let status = status.map_or("", Status::as_str).as_bytes();
            let arguments = [&prefix, &from[..], left.as_bytes(), status, &now];
            let (page, next) = page(self.read(&LIST, &arguments).await?)?;
            for pair in pairs(&page) {
                let (id, packed) = pair?;
                let key = read_key(id, packed)?.key;
                if within.includes(&key.owner) {
                    keys.push(Arc::new(key));
                }
            }
            let Some(next) = next else { break };
            from = next;
        }
        Ok(keys)
    }

    /// In the order of their scopes: the index of keys has no other.
    pub(super) async fn tenants(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let (from, limit) = (tenants_behind(after), limit.to_string());
        let found = self.read(&TENANTS, &[&from, limit.as_bytes()]).await?.list()?;
        let text = |name: &Reply| String::from_utf8(name.bytes()?.into()).map_err(|_| damaged());
        found.iter().map(text).collect()
    }

    pub(super) async fn events(
        &self,
        query: &AuditQuery<'_>,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let AuditQuery { within, key_id, kind, from: since, until, after, limit } = *query;
        let prefix = key_id.map_or_else(|| of(within), of_key);
        let mut from = behind(&prefix, after.as_ref().map(|after| after.as_bytes()));
        let (since, until) = (instant_or_nothing(since), instant_or_nothing(until));
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
            let (page, next) = page(self.read(&EVENTS, &arguments).await?)?;
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

/// The bound of a range that begins behind an identifier, or at the newest.
fn behind(prefix: &[u8], id: Option<&[u8; 16]>) -> Vec<u8> {
    [&b"("[..], prefix, id.map_or(&LAST[..], |id| id)].concat()
}

/// What a script found on its stretch of the index, and where the next stretch begins.
fn page(reply: Reply) -> Result<(Vec<Reply>, Option<Vec<u8>>), StoreError> {
    let mut page = reply.list()?;
    if page.is_empty() {
        return Err(damaged());
    }
    let last = page.remove(0);
    let last = Some(last.bytes()?).filter(|last| !last.is_empty());
    Ok((page, last.map(|last| [&b"("[..], last].concat())))
}

fn found(wanted: &SecretDigest, record: &Reply) -> Result<FoundKey, StoreError> {
    let (id, packed) = record.bytes()?.split_at_checked(16).ok_or_else(damaged)?;
    let row = read_key(id, packed)?;
    let (digest, ends_at) = if row.current == *wanted {
        (row.current, None)
    } else {
        let former = row.former.filter(|former| former == wanted).ok_or_else(damaged)?;
        let retiring = row.key.retiring.as_ref().ok_or_else(damaged)?;
        (former, Some(retiring.ends_at))
    };
    Ok(FoundKey { key: row.key.into(), digest, ends_at })
}
