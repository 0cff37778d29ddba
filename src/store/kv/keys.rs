use std::sync::Arc;

use async_trait::async_trait;

use super::{
    KvError, KvOrder, KvPair, KvStore, Work,
    layout::{
        self, Row, after_prefix, damaged, instant, join, last, of_account, of_owner, of_tenant,
    },
};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{
        EventId, Key, KeyId, Owner, OwnerScope, Period, RetiringSecret, Revocation, Timestamp,
    },
    secret::SecretDigest,
    store::{
        ChangeFeed, CounterKey, Counters, FoundKey, InsertKey, InsertOutcome, KeyQuery, KeyStore,
        KeyUse, OneTimeCodes, PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret,
        StoreClock, StoreError, StoreErrorKind, UpdateOutcome, UsageHistory,
    },
};

#[async_trait]
impl KeyStore for KvStore {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        None
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        Some(self)
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        Some(self)
    }

    async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        self.write(async |work| {
            if let Some(id) = work.issued(key, token_since).await? {
                return Ok(InsertOutcome::TokenTaken(id));
            }
            let is_taken = work.get(&layout::key(key.id)).await?.is_some()
                || work.get(&layout::digest(digest)).await?.is_some();
            if is_taken {
                return Ok(InsertOutcome::DigestTaken);
            }
            if let Some(max) = max_active {
                let states = work.states(&key.owner).await?;
                let live = states.iter().filter(|state| state.is_live(event.at)).count();
                if live >= max as usize {
                    return Ok(InsertOutcome::LimitReached);
                }
            }
            let row = Row { key: key.clone(), current: *digest, former: None };
            work.replace_row(None, Some(&row));
            work.log(event, key.id).await?;
            Ok(InsertOutcome::Inserted)
        })
        .await
    }

    async fn find(&self, digests: &[SecretDigest]) -> Result<Option<FoundKey>, StoreError> {
        self.read(async |work| {
            for digest in digests {
                let Some(id) = work.get(&layout::digest(digest)).await? else { continue };
                let row = work.row(KeyId::from_bytes(last(&id)?)).await?.ok_or_else(damaged)?;
                let ends_at = match (&row.former, &row.key.retiring) {
                    (Some(former), Some(retiring)) if former == digest => Some(retiring.ends_at),
                    _ if row.current == *digest => None,
                    _ => return Err(damaged().into()),
                };
                return Ok(Some(FoundKey { key: Arc::new(row.key), digest: *digest, ends_at }));
            }
            Ok(None)
        })
        .await
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        self.read(async |work| Ok(work.row_within(within, id).await?.map(|row| Arc::new(row.key))))
            .await
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let prefix = match within {
            OwnerScope::Owner(owner) => of_owner(b'o', owner),
            OwnerScope::Tenant(tenant) => of_tenant(b't', tenant),
        };
        self.read(async |work| {
            let mut records = Vec::new();
            let mut end = match after {
                Some(after) => layout::with_id(&prefix, after.as_bytes()),
                None => after_prefix(&prefix),
            };
            loop {
                let page = work.scan(&prefix..&end, KvOrder::Descending, PAGE_SIZE).await?;
                for (entry, _) in &page {
                    if records.len() == limit as usize {
                        return Ok(StoreError::page(records)?);
                    }
                    let id = KeyId::from_bytes(last(entry)?);
                    let key = match work.row(id).await {
                        Ok(row) => row.map(|row| row.key).ok_or_else(damaged),
                        Err(KvError::Failed(error)) => Err(error),
                        Err(KvError::Conflict) => return Err(KvError::Conflict),
                    };
                    let is_wanted =
                        |key: &Key| status.is_none_or(|status| key.status(now) == status);
                    // A damaged key may have any status.
                    if key.as_ref().ok().is_none_or(is_wanted) {
                        records.push((id, key));
                    }
                }
                match page.into_iter().next_back() {
                    Some((lowest, _)) => end = lowest,
                    None => return Ok(StoreError::page(records)?),
                }
            }
        })
        .await
    }

    /// Jumps from one tenant to the next, past all keys between them.
    async fn tenants(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.read(async |work| {
            let mut tenants: Vec<String> = Vec::new();
            let (mut from, end) = match after {
                Some(after) => (after_prefix(&of_tenant(b't', after)), after_prefix(b"t")),
                None => (b"t".to_vec(), after_prefix(b"t")),
            };
            while tenants.len() < limit as usize {
                let next = work.scan(&from..&end, KvOrder::Ascending, 1).await?;
                let Some((entry, _)) = next.first() else { break };
                let tenant = layout::read_text(&entry[1..])?;
                from = after_prefix(&of_tenant(b't', &tenant));
                tenants.push(tenant);
            }
            Ok(tenants)
        })
        .await
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Result<UpdateOutcome, StoreError> {
        self.write(async |work| {
            let Some(row) = work.row_within((&key.owner).into(), key.id).await? else {
                return Ok(UpdateOutcome::NotFound);
            };
            if !row.key.is_unchanged_since(key) {
                return Ok(UpdateOutcome::Conflict);
            }
            let change = |row: &mut Row| {
                let stored = &mut row.key;
                stored.name = key.name.clone();
                stored.access = key.access.clone();
                stored.limits = key.limits;
                stored.networks = key.networks.clone();
                stored.metadata = key.metadata.clone();
                stored.disabled_at = key.disabled_at;
            };
            work.change(&row, event, change).await?;
            Ok(UpdateOutcome::Updated)
        })
        .await
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Result<RotateOutcome, StoreError> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        self.write(async |work| {
            let Some(row) = work.row_within((&key.owner).into(), key.id).await? else {
                return Ok(RotateOutcome::NotFound);
            };
            if !row.key.is_unchanged_since(key) {
                return Ok(RotateOutcome::Conflict);
            }
            if previous == PreviousSecret::Replaced && row.key.secret_first_used_at.is_some() {
                return Ok(RotateOutcome::SecretUsed);
            }
            if work.get(&layout::digest(digest)).await?.is_some() {
                return Ok(RotateOutcome::DigestTaken);
            }
            let change = |row: &mut Row| {
                let stored = &mut row.key;
                if let PreviousSecret::EndsAt(ends_at) = previous {
                    row.former = Some(row.current);
                    stored.retiring = Some(RetiringSecret { hint: stored.hint.clone(), ends_at });
                }
                row.current = *digest;
                stored.hint = hint.into();
                stored.rotation_token = token;
                stored.rotated_at = Some(event.at);
                stored.secret_first_used_at = None;
            };
            work.change(&row, event, change).await?;
            Ok(RotateOutcome::Rotated)
        })
        .await
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        self.write(async |work| {
            let Some(row) = work.row_within(within, id).await? else {
                return Ok(RevokeOutcome::NotFound);
            };
            if row.key.revoked.is_some() {
                return Ok(RevokeOutcome::AlreadyRevoked);
            }
            work.change(&row, event, |row| row.revoke(event)).await?;
            Ok(RevokeOutcome::Revoked)
        })
        .await
    }

    async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.write(async |work| {
            let mut events = Vec::new();
            for state in work.states(owner).await?.into_iter().filter(|state| !state.is_revoked) {
                let row = match work.row(state.id).await {
                    // Its record is unreadable, so nothing can be verified with it.
                    Err(KvError::Failed(error)) if error.kind() == StoreErrorKind::Corrupt => {
                        continue;
                    }
                    row => row?.ok_or_else(damaged)?,
                };
                let event = event.for_key(events.len() as u32, &row.key);
                work.change(&row, &event, |row| row.revoke(&event)).await?;
                events.push(event);
            }
            Ok(events)
        })
        .await
    }

    async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        self.write(async |work| {
            let Some(row) = work.row_within(within, id).await? else { return Ok(false) };
            work.delete_key(&row, event).await?;
            Ok(true)
        })
        .await
    }

    async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.write(async |work| {
            let mut events = Vec::new();
            for (entry, _) in work.older(b'r', before, limit).await? {
                let id = KeyId::from_bytes(last(&entry)?);
                let row = work.row(id).await?.ok_or_else(damaged)?;
                let event = event.for_key(events.len() as u32, &row.key);
                work.delete_key(&row, &event).await?;
                events.push(event);
            }
            Ok(events)
        })
        .await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        self.write(async |work| {
            let mut first_uses = Vec::new();
            for used in uses {
                let within = OwnerScope::Owner(&used.owner);
                let Some(before) = work.row_within(within, used.key_id).await? else { continue };
                let mut row = before.clone();
                let is_current = row.current == used.digest;
                let key = &mut row.key;
                if key.first_used_at.is_none() {
                    key.first_used_at = Some(used.first_at);
                    work.record_event(&used.first_use()).await?;
                    first_uses.push(used.first_use());
                }
                if is_current {
                    key.secret_first_used_at.get_or_insert(used.first_at);
                }
                if key.last_used_at.is_none_or(|last| last < used.last_at) {
                    key.last_used_at = Some(used.last_at);
                    key.last_used_ip = used.ip;
                }
                work.replace_row(Some(&before), Some(&row));
            }
            Ok(first_uses)
        })
        .await
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Result<bool, StoreError> {
        self.write(async |work| {
            let Some(id) = work.get(&layout::digest(from)).await? else { return Ok(false) };
            if work.get(&layout::digest(to)).await?.is_some() {
                return Ok(false);
            }
            let before = work.row(KeyId::from_bytes(last(&id)?)).await?.ok_or_else(damaged)?;
            let mut row = before.clone();
            match &mut row.former {
                Some(former) if former == from => *former = *to,
                _ => row.current = *to,
            }
            work.replace_row(Some(&before), Some(&row));
            Ok(true)
        })
        .await
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Result<u32, StoreError> {
        self.write(async |work| {
            let mut added = 0;
            for event in events {
                added += u32::from(work.record_event(event).await?);
            }
            Ok(added)
        })
        .await
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Result<Vec<AuditEvent>, StoreError> {
        let within = query.within;
        let prefix = match (query.key_id, within.account()) {
            (Some(id), _) => join(b'c', &[id.as_bytes()]),
            (None, Some(account)) => of_account(b'b', within.tenant(), account),
            (None, None) => of_tenant(b'a', within.tenant()),
        };
        self.read(async |work| {
            let mut events = Vec::new();
            let mut end = match query.after {
                Some(after) => layout::with_id(&prefix, after.as_bytes()),
                None => after_prefix(&prefix),
            };
            loop {
                let page = work.scan(&prefix..&end, KvOrder::Descending, PAGE_SIZE).await?;
                for (entry, _) in &page {
                    if events.len() == query.limit as usize {
                        return Ok(events);
                    }
                    let event = work.event(EventId::from_bytes(last(entry)?)).await?;
                    if query.matches(&event) {
                        events.push(event);
                    }
                }
                match page.into_iter().next_back() {
                    Some((lowest, _)) => end = lowest,
                    None => return Ok(events),
                }
            }
        })
        .await
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.write(async |work| {
            let old = work.older(b'w', before, limit).await?;
            for (entry, _) in &old {
                let event = work.event(EventId::from_bytes(last(entry)?)).await?;
                for (entry, _) in layout::event_entries(&event) {
                    work.delete(entry);
                }
            }
            Ok(old.len() as u32)
        })
        .await
    }
}

impl Work {
    pub(super) async fn row(&mut self, id: KeyId) -> Result<Option<Row>, KvError> {
        let Some(stored) = self.get(&layout::key(id)).await? else { return Ok(None) };
        let row = Row::read(&stored)?;
        if row.key.id == id { Ok(Some(row)) } else { Err(damaged().into()) }
    }

    pub(super) async fn row_within(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<Row>, KvError> {
        Ok(self.row(id).await?.filter(|row| within.includes(&row.key.owner)))
    }

    /// Returns for each key of an owner whether it is revoked, and when it expires.
    pub(super) async fn states(&mut self, owner: &Owner) -> Result<Vec<KeyState>, KvError> {
        let entries = self.scan_prefix(&of_owner(b'o', owner), usize::MAX).await?;
        Ok(entries.iter().map(KeyState::read).collect::<Result<_, _>>()?)
    }

    /// Returns up to `limit` entries of a kind that begin with an earlier instant.
    pub(super) async fn older(
        &mut self,
        kind: u8,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<KvPair>, KvError> {
        let (from, end) = ([kind], join(kind, &[&instant(before)]));
        self.scan(&from..&end, KvOrder::Ascending, limit as usize).await
    }

    /// Returns the newest key that the owner was issued with the token of this key.
    async fn issued(&mut self, key: &Key, since: Timestamp) -> Result<Option<KeyId>, KvError> {
        let Some(token) = &key.issue_token else { return Ok(None) };
        let prefix = join(b'x', &[&of_owner(b'o', &key.owner)[1..], token]);
        for (entry, created_at) in self.scan_prefix(&prefix, usize::MAX).await? {
            if layout::read_instant(last(&created_at)?)? >= since {
                return Ok(Some(KeyId::from_bytes(last(&entry)?)));
            }
        }
        Ok(None)
    }

    /// Changes a key, with its revision, audit event and feed entry.
    async fn change(
        &mut self,
        before: &Row,
        event: &AuditEvent,
        change: impl FnOnce(&mut Row),
    ) -> Result<(), KvError> {
        let mut row = before.clone();
        change(&mut row);
        row.key.revision += 1;
        self.replace_row(Some(before), Some(&row));
        self.log(event, row.key.id).await
    }

    fn replace_row(&mut self, before: Option<&Row>, after: Option<&Row>) {
        for (entry, _) in before.into_iter().flat_map(Row::entries) {
            self.delete(entry);
        }
        for (entry, value) in after.into_iter().flat_map(Row::entries) {
            self.put(entry, value);
        }
    }

    /// Deletes a key with its secrets, usage and counters.
    async fn delete_key(&mut self, row: &Row, event: &AuditEvent) -> Result<(), KvError> {
        let id = row.key.id;
        self.replace_row(Some(row), None);
        for period in Period::ALL {
            self.delete(join(b'q', &[&layout::counter(&CounterKey::Key(id), period)]));
        }
        for (entry, _) in self.scan_prefix(&join(b'u', &[id.as_bytes()]), usize::MAX).await? {
            let hour: [u8; 8] = last(&entry)?;
            self.delete(join(b'h', &[&hour, id.as_bytes()]));
            self.delete(entry);
        }
        self.log(event, id).await
    }

    /// Writes an event of a key to the audit log, and the key to the change feed.
    async fn log(&mut self, event: &AuditEvent, id: KeyId) -> Result<(), KvError> {
        self.record_event(event).await?;
        self.append_to_feed(id, event.at).await
    }

    /// Writes an event, unless its id exists.
    async fn record_event(&mut self, event: &AuditEvent) -> Result<bool, KvError> {
        if self.get(&layout::event(event.id)).await?.is_some() {
            return Ok(false);
        }
        for (entry, value) in layout::event_entries(event) {
            self.put(entry, value);
        }
        Ok(true)
    }

    async fn event(&mut self, id: EventId) -> Result<AuditEvent, KvError> {
        let stored = self.get(&layout::event(id)).await?.ok_or_else(damaged)?;
        Ok(layout::read_event(&stored)?)
    }
}

impl Row {
    fn revoke(&mut self, event: &AuditEvent) {
        let reason = event.reason.clone().unwrap_or_default();
        self.key.revoked = Some(Revocation { at: event.at, reason });
    }
}

/// What the index of an owner's keys knows of a key.
pub(super) struct KeyState {
    pub(super) id: KeyId,
    pub(super) is_revoked: bool,
    expires: [u8; 8],
}

impl KeyState {
    fn read((entry, state): &KvPair) -> Result<Self, StoreError> {
        let mut state = &state[..];
        let [is_revoked] = layout::take(&mut state)?;
        let expires = layout::take(&mut state)?;
        Ok(Self { id: KeyId::from_bytes(last(entry)?), is_revoked: is_revoked != 0, expires })
    }

    /// [`Key::is_live`].
    fn is_live(&self, now: Timestamp) -> bool {
        !self.is_revoked && self.expires > instant(now)
    }
}

const PAGE_SIZE: usize = 256;
