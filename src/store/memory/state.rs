use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::counters::Counters;
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{EventId, Key, KeyId, Owner, OwnerScope, Retiring, Revocation, Timestamp},
    secret::SecretDigest,
    store::{
        ChangeBatch, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse,
        PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome,
    },
    system::BuildPrehashed,
};

/// All that the store holds. Each method is one operation of the contract, whole.
#[derive(Default)]
pub(super) struct State {
    rows: BTreeMap<KeyId, Row>,
    /// The way of a verification: from digest to key in one step. Kept in step with `rows` by
    /// [`put`](State::put) and [`take`](State::take), the only two that write either.
    secrets: HashMap<SecretDigest, Slot, BuildPrehashed>,
    owners: HashMap<Owner, BTreeSet<KeyId>>,
    events: BTreeMap<EventId, AuditEvent>,
    changes: VecDeque<(u64, Timestamp, KeyId)>,
    last_change: u64,
    /// Up to which change the feed was purged.
    forgotten: u64,
    pub(super) counters: Counters,
}

#[derive(Clone)]
struct Row {
    key: Arc<Key>,
    current: SecretDigest,
    former: Option<(SecretDigest, Timestamp)>,
}

struct Slot {
    key: Arc<Key>,
    ends_at: Option<Timestamp>,
}

impl State {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn last_change(&self) -> u64 {
        self.last_change
    }

    pub(super) fn insert(&mut self, new: InsertKey<'_>) -> InsertOutcome {
        let InsertKey { key, digest, max_active, event } = new;
        if self.rows.contains_key(&key.id) || self.secrets.contains_key(digest) {
            return InsertOutcome::DigestTaken;
        }
        let live = self.of_owner(&key.owner).filter(|row| row.key.is_live(event.at)).count();
        if max_active.is_some_and(|max| live >= max as usize) {
            return InsertOutcome::LimitReached;
        }
        self.put(Row { key: Arc::new(key.clone()), current: *digest, former: None });
        self.log(event.clone(), key.id);
        InsertOutcome::Inserted
    }

    #[inline(always)]
    pub(super) fn find(&self, digests: &[SecretDigest]) -> Option<FoundKey> {
        digests.iter().find_map(|digest| {
            let (stored, slot) = self.secrets.get_key_value(digest)?;
            Some(FoundKey { key: slot.key.clone(), digest: *stored, ends_at: slot.ends_at })
        })
    }

    pub(super) fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Option<Arc<Key>> {
        self.row(within, id).map(|row| row.key.clone())
    }

    pub(super) fn list(&self, query: &KeyQuery<'_>) -> Vec<Arc<Key>> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let behind = |id: &KeyId| after.is_none_or(|after| *id < after);
        let wanted = |row: &&Row| status.is_none_or(|status| row.key.status(now) == status);
        let page = |rows: &mut dyn Iterator<Item = &Row>| {
            rows.filter(wanted).take(limit as usize).map(|row| row.key.clone()).collect()
        };
        match within {
            OwnerScope::Owner(owner) => {
                let ids = self.owners.get(owner).into_iter().flatten().rev();
                page(&mut ids.filter(|id| behind(id)).map(|id| &self.rows[id]))
            }
            OwnerScope::Tenant(tenant) => {
                let rows = self.rows.iter().rev().filter(|(id, _)| behind(id));
                page(&mut rows.map(|(_, row)| row).filter(|row| row.key.owner.tenant() == tenant))
            }
        }
    }

    pub(super) fn tenants(&self, after: Option<&str>, limit: u32) -> Vec<String> {
        let behind = |tenant: &&str| after.is_none_or(|after| *tenant > after);
        let tenants: BTreeSet<&str> =
            self.owners.keys().map(Owner::tenant).filter(behind).collect();
        tenants.into_iter().take(limit as usize).map(str::to_owned).collect()
    }

    pub(super) fn update(&mut self, key: &Key, event: &AuditEvent) -> UpdateOutcome {
        let Some(row) = self.row((&key.owner).into(), key.id) else {
            return UpdateOutcome::NotFound;
        };
        if row.key.revoked.is_some() || row.key.revision != key.revision {
            return UpdateOutcome::Conflict;
        }
        self.change(key.id, event.clone(), |row| {
            let stored = Arc::make_mut(&mut row.key);
            stored.name = key.name.clone();
            stored.access = key.access.clone();
            stored.limits = key.limits;
            stored.networks = key.networks.clone();
            stored.metadata = key.metadata.clone();
            stored.disabled_at = key.disabled_at;
        });
        UpdateOutcome::Updated
    }

    pub(super) fn rotate(&mut self, rotate: RotateSecret<'_>) -> RotateOutcome {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let Some(row) = self.row((&key.owner).into(), key.id) else {
            return RotateOutcome::NotFound;
        };
        if row.key.revoked.is_some() || row.key.revision != key.revision {
            return RotateOutcome::Conflict;
        }
        if self.secrets.contains_key(digest) {
            return RotateOutcome::DigestTaken;
        }
        self.change(key.id, event.clone(), |row| {
            let stored = Arc::make_mut(&mut row.key);
            if let PreviousSecret::EndsAt(ends_at) = previous {
                row.former = Some((row.current, ends_at));
                stored.retiring = Some(Retiring { hint: stored.hint.clone(), ends_at });
            }
            row.current = *digest;
            stored.hint = hint.into();
            stored.rotation_token = token;
            stored.rotated_at = Some(event.at);
        });
        RotateOutcome::Rotated
    }

    pub(super) fn revoke(
        &mut self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> RevokeOutcome {
        let Some(row) = self.row(within, id) else { return RevokeOutcome::NotFound };
        if row.key.revoked.is_some() {
            return RevokeOutcome::AlreadyRevoked;
        }
        self.change(id, event.clone(), |row| row.revoke(event));
        RevokeOutcome::Revoked
    }

    pub(super) fn revoke_all(&mut self, owner: &Owner, event: &AuditEvent) -> Vec<AuditEvent> {
        let rows = self.of_owner(owner).filter(|row| row.key.revoked.is_none());
        let events = (0..).zip(rows).map(|(n, row)| (row.key.id, event.for_key(n, &row.key)));
        let events: Vec<(KeyId, AuditEvent)> = events.collect();
        for (id, event) in &events {
            self.change(*id, event.clone(), |row| row.revoke(event));
        }
        events.into_iter().map(|(_, event)| event).collect()
    }

    pub(super) fn announce_account_change(&mut self, owner: &Owner, at: Timestamp) -> u32 {
        let rows = self.of_owner(owner).filter(|row| row.key.revoked.is_none());
        let ids: Vec<KeyId> = rows.map(|row| row.key.id).collect();
        for id in &ids {
            self.feed(*id, at);
        }
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn delete(&mut self, within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> bool {
        let known = self.row(within, id).is_some();
        if known {
            self.forget(id);
            self.log(event.clone(), id);
        }
        known
    }

    pub(super) fn purge_keys(
        &mut self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Vec<AuditEvent> {
        let dead = |row: &&Row| row.key.dead_since().is_some_and(|since| since < before);
        let rows = self.rows.values().filter(dead).take(limit as usize);
        let events = (0..).zip(rows).map(|(n, row)| (row.key.id, event.for_key(n, &row.key)));
        let events: Vec<(KeyId, AuditEvent)> = events.collect();
        for (id, event) in &events {
            self.forget(*id);
            self.log(event.clone(), *id);
        }
        events.into_iter().map(|(_, event)| event).collect()
    }

    pub(super) fn record_uses(&mut self, uses: &[KeyUse]) -> Vec<AuditEvent> {
        let mut firsts = Vec::new();
        for used in uses {
            let Some(mut row) = self.row((&used.owner).into(), used.key_id).cloned() else {
                continue;
            };
            let key = Arc::make_mut(&mut row.key);
            if key.first_used_at.is_none() {
                key.first_used_at = Some(used.first_at);
                firsts.push(used.first_use());
            }
            if key.last_used_at.is_none_or(|last| last < used.last_at) {
                key.last_used_at = Some(used.last_at);
                key.last_used_ip = used.ip;
            }
            self.put(row);
        }
        self.record_events(&firsts);
        firsts
    }

    pub(super) fn rehash(&mut self, from: &SecretDigest, to: &SecretDigest) -> bool {
        let Some(slot) = self.secrets.get(from) else { return false };
        if self.secrets.contains_key(to) {
            return false;
        }
        let mut row = self.rows[&slot.key.id].clone();
        match &mut row.former {
            Some((former, _)) if former == from => *former = *to,
            _ => row.current = *to,
        }
        self.put(row);
        true
    }

    pub(super) fn record_events(&mut self, events: &[AuditEvent]) {
        for event in events {
            self.events.entry(event.id).or_insert_with(|| event.clone());
        }
    }

    pub(super) fn events(&self, query: &AuditQuery<'_>) -> Vec<AuditEvent> {
        let newest_first = self.events.values().rev().filter(|event| query.matches(event));
        newest_first.take(query.limit as usize).cloned().collect()
    }

    pub(super) fn purge_events(&mut self, before: Timestamp, limit: u32) -> u32 {
        let old = self.events.values().filter(|event| event.at < before).map(|event| event.id);
        let ids: Vec<EventId> = old.take(limit as usize).collect();
        for id in &ids {
            self.events.remove(id);
        }
        ids.len() as u32
    }

    pub(super) fn changes(&self, after: Option<u64>) -> ChangeBatch {
        let after = after.unwrap_or(self.last_change);
        let first = self.changes.partition_point(|(sequence, ..)| *sequence <= after);
        let page: Vec<_> = self.changes.range(first..).take(CHANGES_PER_PAGE).collect();
        // Whoever missed something goes on from the end, or it would miss it again and again.
        let cursor = page.last().map_or(self.last_change, |(sequence, ..)| *sequence);
        ChangeBatch {
            keys: page.iter().map(|(_, _, id)| *id).collect(),
            cursor,
            // A cursor from the future is one of another store's life.
            missed: after < self.forgotten || after > self.last_change,
            more: cursor < self.last_change,
        }
    }

    pub(super) fn purge_changes(&mut self, before: Timestamp) -> u32 {
        let count = self.changes.iter().take_while(|(_, at, _)| *at < before).count();
        if let Some((sequence, ..)) = self.changes.drain(..count).next_back() {
            self.forgotten = sequence;
        }
        count as u32
    }

    pub(super) fn add_usage(&mut self, tallies: &[HourlyUsage]) {
        for tally in tallies.iter().filter(|tally| self.rows.contains_key(&tally.key_id)) {
            self.counters.add(tally);
        }
    }

    pub(super) fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Vec<HourlyUsage> {
        self.row(within, id).map_or_else(Vec::new, |_| self.counters.usage_history(id, from))
    }

    /// Removes a key with all that is counted for it.
    fn forget(&mut self, id: KeyId) {
        self.take(id);
        self.counters.forget(id);
    }

    fn row(&self, within: OwnerScope<'_>, id: KeyId) -> Option<&Row> {
        self.rows.get(&id).filter(|row| within.includes(&row.key.owner))
    }

    fn of_owner(&self, owner: &Owner) -> impl Iterator<Item = &Row> {
        self.owners.get(owner).into_iter().flatten().map(|id| &self.rows[id])
    }

    /// Changes a key that is there: row, revision, log and feed together.
    fn change(&mut self, id: KeyId, event: AuditEvent, change: impl FnOnce(&mut Row)) {
        let mut row = self.rows[&id].clone();
        change(&mut row);
        Arc::make_mut(&mut row.key).revision += 1;
        self.put(row);
        self.log(event, id);
    }

    fn put(&mut self, row: Row) {
        self.take(row.key.id);
        let slot = |ends_at| Slot { key: row.key.clone(), ends_at };
        self.secrets.insert(row.current, slot(None));
        if let Some((former, ends_at)) = row.former {
            self.secrets.insert(former, slot(Some(ends_at)));
        }
        self.owners.entry(row.key.owner.clone()).or_default().insert(row.key.id);
        self.rows.insert(row.key.id, row);
    }

    fn take(&mut self, id: KeyId) {
        let Some(row) = self.rows.remove(&id) else { return };
        self.secrets.remove(&row.current);
        if let Some((former, _)) = row.former {
            self.secrets.remove(&former);
        }
        if let Some(ids) = self.owners.get_mut(&row.key.owner) {
            ids.remove(&id);
            if ids.is_empty() {
                self.owners.remove(&row.key.owner);
            }
        }
    }

    fn log(&mut self, event: AuditEvent, id: KeyId) {
        self.feed(id, event.at);
        self.events.insert(event.id, event);
    }

    fn feed(&mut self, id: KeyId, at: Timestamp) {
        self.last_change += 1;
        self.changes.push_back((self.last_change, at, id));
    }
}

impl Row {
    fn revoke(&mut self, event: &AuditEvent) {
        let reason = event.reason.clone().unwrap_or_default();
        Arc::make_mut(&mut self.key).revoked = Some(Revocation { at: event.at, reason });
    }
}

const CHANGES_PER_PAGE: usize = 1_000;
