use std::sync::Arc;

use async_trait::async_trait;

use super::{
    RedisStore,
    commands::{Arguments, RedisDatabase, Reply, pairs, unexpected_reply},
    msgpack::{damaged_record, pack},
    records::{
        LAST, UpdatedFields, instant, ip_address, key_prefix, live_range, member, members_of_event,
        members_of_key, optional_instant, owner_hash, pack_event, pack_key, read_event, read_key,
        scope_prefix, tenant_hash, tenants_after, unrevoked_prefix,
    },
    scripts::{
        DELETE, GET, INSERT, LIST_DEAD_KEYS, LIST_EVENTS, LIST_KEYS, LIST_OLD_EVENTS, LIST_TENANTS,
        PURGE_EVENTS, PURGE_KEYS, RECORD_EVENTS, RECORD_USES, REHASH, REVOKE, REVOKE_ALL, ROTATE,
        Script, TIME, UPDATE,
    },
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Key, KeyId, Owner, OwnerScope, Status, Timestamp},
    secret::SecretDigest,
    store::{
        ChangeFeed, Counters, FoundKey, InsertKey, InsertOutcome, KeyQuery, KeyStore, KeyUse,
        OneTimeCodes, PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret, StoreClock,
        StoreError, UpdateOutcome, UsageHistory,
    },
};

/// Replicas confirm a removal even if there was nothing to do: the change may have been made by an
/// earlier call that was never confirmed.
#[async_trait]
impl KeyStore for RedisStore {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        Some(self)
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        Some(self)
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        Some(self)
    }

    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        let (tag, digest, record) =
            (self.database.tag()?, digest.to_bytes(), pack_key(key, digest));
        let (at, event_packed) = (instant(event.at), packed_event(event));
        let token_since = instant(token_since);
        let max = max_active.map(|max| max.to_string()).unwrap_or_default();
        let (first_live, last_live) = live_range(&key.owner, event.at);
        let members = members_of_key(key);
        let mut arguments: Vec<&[u8]> = vec![&tag, key.id.as_bytes(), &digest, &record, &at];
        arguments.extend([&event_packed[..], max.as_bytes(), &first_live, &last_live]);
        arguments.push(&token_since);
        arguments.extend(members.iter().map(Vec::as_slice));
        let reply = self.database.write(&INSERT, &arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(InsertOutcome::Inserted),
            b"limit" => Ok(InsertOutcome::LimitReached),
            b"taken" => Ok(InsertOutcome::DigestTaken),
            [b't', b'o', b'k', b'e', b'n', id @ ..] => {
                let id = id.try_into().map_err(|_| unexpected_reply(&reply))?;
                Ok(InsertOutcome::TokenTaken(KeyId::from_bytes(id)))
            }
            _ => Err(unexpected_reply(&reply)),
        }
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.lookups.find(digests).await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        let reply = self.database.read(&GET, &[id.as_bytes()]).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let record = read_key(id.as_bytes(), reply.bytes()?)?;
        Ok(Some(record.key).filter(|key| within.includes(&key.owner)).map(Arc::new))
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let (prefix, now) = (scope_prefix(within), instant(now));
        let mut from = start_after(&prefix, after.as_ref().map(KeyId::as_bytes));
        let mut records = Vec::new();
        while records.len() < limit as usize {
            let left = (limit as usize - records.len()).to_string();
            let status = status.map_or("", Status::as_str).as_bytes();
            let arguments = [&prefix, &from[..], left.as_bytes(), status, &now];
            let (page, next) = page(self.database.read(&LIST_KEYS, &arguments).await?)?;
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
    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        let (from, limit) = (tenants_after(after), limit.to_string());
        let found = self.database.read(&LIST_TENANTS, &[&from, limit.as_bytes()]).await?.list()?;
        let text =
            |name: &Reply| String::from_utf8(name.bytes()?.into()).map_err(|_| damaged_record());
        found.iter().map(text).collect()
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        let UpdatedFields { access, limits, networks, metadata } = UpdatedFields::of(key);
        let arguments: Arguments<'_> = &[
            &self.database.tag()?,
            key.id.as_bytes(),
            key.owner.tenant().as_bytes(),
            key.owner.account().as_bytes(),
            &key.revision.to_be_bytes(),
            &instant(event.at),
            &packed_event(event),
            key.name.as_str().as_bytes(),
            access.as_bytes(),
            limits.as_bytes(),
            networks.as_bytes(),
            metadata.as_bytes(),
            &optional_instant(key.disabled_at),
        ];
        let reply = self.database.write(&UPDATE, arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(UpdateOutcome::Updated),
            b"conflict" => Ok(UpdateOutcome::Conflict),
            b"none" => Ok(UpdateOutcome::NotFound),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let ends_at = match previous {
            PreviousSecret::EndsAt(ends_at) => Some(ends_at),
            PreviousSecret::Replaced => None,
        };
        let arguments: Arguments<'_> = &[
            &self.database.tag()?,
            key.id.as_bytes(),
            key.owner.tenant().as_bytes(),
            key.owner.account().as_bytes(),
            &key.revision.to_be_bytes(),
            &instant(event.at),
            &packed_event(event),
            &digest.to_bytes(),
            hint.as_bytes(),
            token.as_ref().map_or(&[], |token| token),
            &optional_instant(ends_at),
        ];
        let reply = self.database.write(&ROTATE, arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(RotateOutcome::Rotated),
            b"conflict" => Ok(RotateOutcome::Conflict),
            b"none" => Ok(RotateOutcome::NotFound),
            b"taken" => Ok(RotateOutcome::DigestTaken),
            b"used" => Ok(RotateOutcome::SecretUsed),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        let arguments: Arguments<'_> = &[
            &self.database.tag()?,
            self.database.waits_for_replicas(),
            id.as_bytes(),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
            &instant(event.at),
            event.reason.as_deref().unwrap_or_default().as_bytes(),
            &packed_event(event),
        ];
        let reply = self.database.write(&REVOKE, arguments, |_| true).await?;
        match reply.bytes()? {
            b"done" => Ok(RevokeOutcome::Revoked),
            b"already" => Ok(RevokeOutcome::AlreadyRevoked),
            b"none" => Ok(RevokeOutcome::NotFound),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        // The script writes the events of the keys that it finds. Everything but the ids of the key
        // and of the event is known here.
        let placeholder = KeyId::from_bytes([0; 16]);
        let (tenant, account) = (owner.tenant().into(), Some(owner.account().into()));
        let template = AuditEvent { tenant, account, key_id: Some(placeholder), ..event.clone() };
        let record = pack_event(&template);
        let (id, number) = event.id.as_bytes().split_at(12);
        let number =
            u32::from_be_bytes(number.try_into().expect("16 bytes without 12 are 4")).to_string();
        let arguments: Arguments<'_> = &[
            &self.database.tag()?,
            self.database.waits_for_replicas(),
            &unrevoked_prefix(owner),
            owner.tenant().as_bytes(),
            owner.account().as_bytes(),
            &instant(event.at),
            event.reason.as_deref().unwrap_or_default().as_bytes(),
            id,
            number.as_bytes(),
            &record[..record.len() - 16],
            &member(b'A', &[&instant(event.at)]),
            &member(b'T', &[&tenant_hash(owner.tenant())]),
            &member(b'O', &[&owner_hash(owner)]),
        ];
        let reply = self.database.write(&REVOKE_ALL, arguments, |_| true).await?.list()?;
        let event_of = |(n, id): (u32, &Reply)| {
            let id = id.bytes()?.try_into().map_err(|_| unexpected_reply(id))?;
            Ok(event.for_key_of(n, KeyId::from_bytes(id), owner))
        };
        (0..).zip(&reply).map(event_of).collect()
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        let arguments: Arguments<'_> = &[
            &self.database.tag()?,
            self.database.waits_for_replicas(),
            id.as_bytes(),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
            &instant(event.at),
            &packed_event(event),
        ];
        Ok(self.database.write(&DELETE, arguments, |_| true).await?.number()? == 1)
    }

    /// Lists dead keys, then removes those that are still dead in one atomic step.
    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let (before, limit) = (instant(before), limit.to_string());
        loop {
            let dead =
                self.database.read(&LIST_DEAD_KEYS, &[&before, limit.as_bytes()]).await?.list()?;
            let rows = pairs(&dead).map(|pair| pair.and_then(|(id, packed)| read_key(id, packed)));
            let keys: Vec<Key> = rows.map(|row| Ok(row?.key)).collect::<Result<_, StoreError>>()?;
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut events: Vec<AuditEvent> =
                (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            let packed: Vec<Vec<u8>> = events.iter().map(packed_event).collect();
            let (tag, at) = (self.database.tag()?, instant(event.at));
            let mut arguments: Vec<&[u8]> = vec![&tag, &before, &at];
            for (key, event) in keys.iter().zip(&packed) {
                arguments.extend([&key.id.as_bytes()[..], event]);
            }
            let removed = self.database.write(&PURGE_KEYS, &arguments, |_| true).await?.list()?;
            let removed: Vec<&[u8]> =
                removed.iter().map(|id| id.bytes()).collect::<Result<_, _>>()?;
            events.retain(|event| {
                event.key_id.is_some_and(|id| removed.contains(&&id.as_bytes()[..]))
            });
            // If other nodes removed all of them, there may be more.
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let packed: Vec<Vec<u8>> = uses.iter().map(packed_use).collect();
        let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        let mut first_uses = Vec::new();
        for n in self.database.write(&RECORD_USES, &arguments, |_| true).await?.list()? {
            let used = uses.get(n.number()? as usize).ok_or_else(|| unexpected_reply(&n))?;
            first_uses.push(used.first_use());
        }
        Ok(first_uses)
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        let arguments: Arguments<'_> = &[&from.to_bytes(), &to.to_bytes()];
        let reply = self
            .database
            .write(&REHASH, arguments, |reply| matches!(reply.number(), Ok(1)))
            .await?;
        Ok(reply.number()? == 1)
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        if events.is_empty() {
            return Ok(0);
        }
        let packed: Vec<Vec<u8>> = events.iter().map(packed_event).collect();
        let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        self.database.write(&RECORD_EVENTS, &arguments, |_| true).await?.number()
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
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
            let (page, next) = page(self.database.read(&LIST_EVENTS, &arguments).await?)?;
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

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let before = instant(before);
        let mut removed = 0;
        while removed < limit {
            let step = (limit - removed).min(PURGE_STEP).to_string();
            let old =
                self.database.read(&LIST_OLD_EVENTS, &[&before, step.as_bytes()]).await?.list()?;
            if old.is_empty() {
                break;
            }
            let mut packed = Vec::with_capacity(old.len() / 2);
            for pair in pairs(&old) {
                let (id, record) = pair?;
                let event = read_event(id, record)?;
                let members = members_of_event(event.id, &event);
                packed.push(pack([id].into_iter().chain(members.iter().map(Vec::as_slice))));
            }
            let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
            // Another node may have removed some of them.
            removed += self.database.write(&PURGE_EVENTS, &arguments, |_| true).await?.number()?;
        }
        Ok(removed)
    }
}

#[async_trait]
impl StoreClock for RedisStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        let time = self.database.read(&TIME, &[]).await?.list()?;
        let [seconds, micros] = time.as_slice() else { return Err(damaged_record()) };
        let micros = seconds.digits()?.saturating_mul(1_000_000).saturating_add(micros.digits()?);
        Ok(Timestamp::from_unix_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
    }
}

impl RedisDatabase {
    /// Purges in steps that do not block the server's other clients for long.
    pub(super) async fn purge(
        &self,
        script: &Script,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let before = instant(before);
        let mut removed = 0;
        while removed < limit {
            let step = (limit - removed).min(PURGE_STEP).to_string();
            let arguments = [&before[..], step.as_bytes()];
            match self.write(script, &arguments, |_| true).await?.number()? {
                0 => break,
                more => removed += more,
            }
        }
        Ok(removed)
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

/// Packs an event for the scripts: its id, its record, and its members of the index.
fn packed_event(event: &AuditEvent) -> Vec<u8> {
    let (record, members) = (pack_event(event), members_of_event(event.id, event));
    let fields = [&event.id.as_bytes()[..], &record];
    pack(fields.into_iter().chain(members.iter().map(Vec::as_slice)))
}

fn packed_use(used: &KeyUse) -> Vec<u8> {
    pack([
        &used.key_id.as_bytes()[..],
        used.owner.tenant().as_bytes(),
        used.owner.account().as_bytes(),
        &instant(used.first_at),
        &instant(used.last_at),
        &ip_address(used.ip),
        &packed_event(&used.first_use()),
        &used.digest.to_bytes(),
    ])
}

const PURGE_STEP: u32 = 1_000;
