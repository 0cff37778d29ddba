use super::{
    commands::{Arguments, RedisDatabase, Reply, pairs, unexpected_reply},
    msgpack::pack,
    records::{
        UpdatedFields, instant, ip_address, live_range, member, members_of_event, members_of_key,
        optional_instant, owner_hash, pack_event, pack_key, read_event, read_key, tenant_hash,
        unrevoked_prefix,
    },
    scripts::{
        ANNOUNCE_ACCOUNT_CHANGE, DELETE, INSERT, LIST_DEAD_KEYS, LIST_OLD_EVENTS, PURGE_CHANGES,
        PURGE_CODES, PURGE_COUNTERS, PURGE_EVENTS, PURGE_KEYS, PURGE_USAGE, RECORD_EVENTS,
        RECORD_USES, REHASH, REVOKE, REVOKE_ALL, ROTATE, Script, UPDATE,
    },
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        InsertKey, InsertOutcome, KeyUse, PreviousSecret, RevokeOutcome, RotateOutcome,
        RotateSecret, StoreError, UpdateOutcome,
    },
};

/// Writes of keys and of the audit log.
impl RedisDatabase {
    pub(super) async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        let (tag, digest, record) = (self.tag()?, digest.to_bytes(), pack_key(key, digest));
        let (at, event_packed) = (instant(event.at), packed_event(event));
        let token_since = instant(token_since);
        let max = max_active.map(|max| max.to_string()).unwrap_or_default();
        let (first_live, last_live) = live_range(&key.owner, event.at);
        let members = members_of_key(key);
        let mut arguments: Vec<&[u8]> = vec![&tag, key.id.as_bytes(), &digest, &record, &at];
        arguments.extend([&event_packed[..], max.as_bytes(), &first_live, &last_live]);
        arguments.push(&token_since);
        arguments.extend(members.iter().map(Vec::as_slice));
        let reply = self.write(&INSERT, &arguments, |reply| reply.is("done")).await?;
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

    pub(super) async fn update(
        &self,
        key: &Key,
        event: &AuditEvent,
    ) -> Result<UpdateOutcome, StoreError> {
        let UpdatedFields { access, limits, networks, metadata } = UpdatedFields::of(key);
        let arguments: Arguments<'_> = &[
            &self.tag()?,
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
        let reply = self.write(&UPDATE, arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(UpdateOutcome::Updated),
            b"conflict" => Ok(UpdateOutcome::Conflict),
            b"none" => Ok(UpdateOutcome::NotFound),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    pub(super) async fn rotate(
        &self,
        rotate: RotateSecret<'_>,
    ) -> Result<RotateOutcome, StoreError> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let ends_at = match previous {
            PreviousSecret::EndsAt(ends_at) => Some(ends_at),
            PreviousSecret::Replaced => None,
        };
        let arguments: Arguments<'_> = &[
            &self.tag()?,
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
        let reply = self.write(&ROTATE, arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(RotateOutcome::Rotated),
            b"conflict" => Ok(RotateOutcome::Conflict),
            b"none" => Ok(RotateOutcome::NotFound),
            b"taken" => Ok(RotateOutcome::DigestTaken),
            b"used" => Ok(RotateOutcome::SecretUsed),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    pub(super) async fn rehash(
        &self,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Result<bool, StoreError> {
        let arguments: Arguments<'_> = &[&from.to_bytes(), &to.to_bytes()];
        let reply = self.write(&REHASH, arguments, |reply| matches!(reply.number(), Ok(1))).await?;
        Ok(reply.number()? == 1)
    }

    pub(super) async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let packed: Vec<Vec<u8>> = uses.iter().map(packed_use).collect();
        let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        let mut first_uses = Vec::new();
        for n in self.write(&RECORD_USES, &arguments, |_| true).await?.list()? {
            let used = uses.get(n.number()? as usize).ok_or_else(|| unexpected_reply(&n))?;
            first_uses.push(used.first_use());
        }
        Ok(first_uses)
    }

    pub(super) async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        if events.is_empty() {
            return Ok(0);
        }
        let packed: Vec<Vec<u8>> = events.iter().map(packed_event).collect();
        let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        self.write(&RECORD_EVENTS, &arguments, |_| true).await?.number()
    }
}

/// Removal of keys. Replicas confirm a removal even if there was nothing to do: the change may have
/// been made by an earlier call that was never confirmed.
impl RedisDatabase {
    pub(super) async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            self.waits_for_replicas(),
            id.as_bytes(),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
            &instant(event.at),
            event.reason.as_deref().unwrap_or_default().as_bytes(),
            &packed_event(event),
        ];
        let reply = self.write(&REVOKE, arguments, |_| true).await?;
        match reply.bytes()? {
            b"done" => Ok(RevokeOutcome::Revoked),
            b"already" => Ok(RevokeOutcome::AlreadyRevoked),
            b"none" => Ok(RevokeOutcome::NotFound),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    pub(super) async fn revoke_all(
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
            &self.tag()?,
            self.waits_for_replicas(),
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
        let reply = self.write(&REVOKE_ALL, arguments, |_| true).await?.list()?;
        let event_of = |(n, id): (u32, &Reply)| {
            let id = id.bytes()?.try_into().map_err(|_| unexpected_reply(id))?;
            Ok(event.for_key_of(n, KeyId::from_bytes(id), owner))
        };
        (0..).zip(&reply).map(event_of).collect()
    }

    pub(super) async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let arguments: Arguments<'_> = &[&self.tag()?, &unrevoked_prefix(owner), &instant(at)];
        let changed = |reply: &Reply| !matches!(reply.number(), Ok(0));
        self.write(&ANNOUNCE_ACCOUNT_CHANGE, arguments, changed).await?.number()
    }

    pub(super) async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            self.waits_for_replicas(),
            id.as_bytes(),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
            &instant(event.at),
            &packed_event(event),
        ];
        Ok(self.write(&DELETE, arguments, |_| true).await?.number()? == 1)
    }

    /// Lists dead keys, then removes those that are still dead in one atomic step.
    pub(super) async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let (before, limit) = (instant(before), limit.to_string());
        loop {
            let dead = self.read(&LIST_DEAD_KEYS, &[&before, limit.as_bytes()]).await?.list()?;
            let rows = pairs(&dead).map(|pair| pair.and_then(|(id, packed)| read_key(id, packed)));
            let keys: Vec<Key> = rows.map(|row| Ok(row?.key)).collect::<Result<_, StoreError>>()?;
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut events: Vec<AuditEvent> =
                (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            let packed: Vec<Vec<u8>> = events.iter().map(packed_event).collect();
            let (tag, at) = (self.tag()?, instant(event.at));
            let mut arguments: Vec<&[u8]> = vec![&tag, &before, &at];
            for (key, event) in keys.iter().zip(&packed) {
                arguments.extend([&key.id.as_bytes()[..], event]);
            }
            let removed = self.write(&PURGE_KEYS, &arguments, |_| true).await?.list()?;
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
}

/// Purges, in steps that do not block the server's other clients for long.
impl RedisDatabase {
    pub(super) async fn purge_events(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let before = instant(before);
        let mut removed = 0;
        while removed < limit {
            let step = (limit - removed).min(PURGE_STEP).to_string();
            let old = self.read(&LIST_OLD_EVENTS, &[&before, step.as_bytes()]).await?.list()?;
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
            removed += self.write(&PURGE_EVENTS, &arguments, |_| true).await?.number()?;
        }
        Ok(removed)
    }

    pub(super) async fn purge_usage(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.purge(&PURGE_USAGE, before, limit).await
    }

    pub(super) async fn purge_codes(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.purge(&PURGE_CODES, before, limit).await
    }

    pub(super) async fn purge_counters(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.purge(&PURGE_COUNTERS, before, limit).await
    }

    async fn purge(
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

    pub(super) async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        let mut removed = 0u32;
        loop {
            let step = self.write(&PURGE_CHANGES, &[&instant(before)], |_| true).await?.number()?;
            removed = removed.saturating_add(step);
            if step == 0 {
                return Ok(removed);
            }
        }
    }
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
