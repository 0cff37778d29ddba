use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{
        EventId, Key, KeyId, Owner, OwnerScope, Period, RetiringSecret, Revocation, Timestamp,
    },
    secret::SecretDigest,
    store::{
        ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey,
        FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, OneTimeCode,
        PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret, UpdateOutcome,
    },
};

/// The contents of the store. Each method is one atomic operation of the contract.
#[derive(Default)]
pub(super) struct State {
    rows: BTreeMap<KeyId, Row>,
    /// Index of `rows` by digest. Only [`put_row`](State::put_row) and
    /// [`take_row`](State::take_row) write to either.
    secrets: HashMap<SecretDigest, IndexedSecret>,
    owners: HashMap<Owner, BTreeSet<KeyId>>,
    /// The newest key that was issued with a token.
    issue_tokens: HashMap<(Owner, [u8; 32]), KeyId>,
    events: BTreeMap<EventId, AuditEvent>,
    changes: VecDeque<(u64, Timestamp, KeyId)>,
    last_change: u64,
    /// The number of the last purged change.
    last_purged_change: u64,
    pub(super) counters: Counters,
}

#[derive(Clone)]
struct Row {
    key: Arc<Key>,
    current: SecretDigest,
    former: Option<(SecretDigest, Timestamp)>,
}

struct IndexedSecret {
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
        let InsertKey { key, digest, max_active, token_since, event } = new;
        let token = key.issue_token.map(|token| (key.owner.clone(), token));
        let earlier = token.as_ref().and_then(|token| self.issue_tokens.get(token));
        if let Some(id) = earlier.filter(|id| self.rows[id].key.created_at >= token_since) {
            return InsertOutcome::TokenTaken(*id);
        }
        if self.rows.contains_key(&key.id) || self.secrets.contains_key(digest) {
            return InsertOutcome::DigestTaken;
        }
        let live = self.rows_of(&key.owner).filter(|row| row.key.is_live(event.at)).count();
        if max_active.is_some_and(|max| live >= max as usize) {
            return InsertOutcome::LimitReached;
        }
        self.issue_tokens.extend(token.map(|token| (token, key.id)));
        self.put_row(Row { key: Arc::new(key.clone()), current: *digest, former: None });
        self.record_change(event.clone(), key.id);
        InsertOutcome::Inserted
    }

    pub(super) fn find(&self, digests: &[SecretDigest]) -> Option<FoundKey> {
        digests.iter().find_map(|digest| {
            let (stored, secret) = self.secrets.get_key_value(digest)?;
            Some(FoundKey { key: secret.key.clone(), digest: *stored, ends_at: secret.ends_at })
        })
    }

    pub(super) fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Option<Arc<Key>> {
        self.row(within, id).map(|row| row.key.clone())
    }

    pub(super) fn list(&self, query: &KeyQuery<'_>) -> Vec<Arc<Key>> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let is_after = |id: &KeyId| after.is_none_or(|after| *id < after);
        let wanted = |row: &&Row| status.is_none_or(|status| row.key.status(now) == status);
        let page = |rows: &mut dyn Iterator<Item = &Row>| {
            rows.filter(wanted).take(limit as usize).map(|row| row.key.clone()).collect()
        };
        match within {
            OwnerScope::Owner(owner) => {
                let ids = self.owners.get(owner).into_iter().flatten().rev();
                page(&mut ids.filter(|id| is_after(id)).map(|id| &self.rows[id]))
            }
            OwnerScope::Tenant(tenant) => {
                let rows = self.rows.iter().rev().filter(|(id, _)| is_after(id));
                page(&mut rows.map(|(_, row)| row).filter(|row| row.key.owner.tenant() == tenant))
            }
        }
    }

    pub(super) fn tenants(&self, after: Option<&str>, limit: u32) -> Vec<String> {
        let is_after = |tenant: &&str| after.is_none_or(|after| *tenant > after);
        let tenants: BTreeSet<&str> =
            self.owners.keys().map(Owner::tenant).filter(is_after).collect();
        tenants.into_iter().take(limit as usize).map(str::to_owned).collect()
    }

    pub(super) fn update(&mut self, key: &Key, event: &AuditEvent) -> UpdateOutcome {
        let Some(row) = self.row((&key.owner).into(), key.id) else {
            return UpdateOutcome::NotFound;
        };
        if !row.key.is_unchanged_since(key) {
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
        if !row.key.is_unchanged_since(key) {
            return RotateOutcome::Conflict;
        }
        if previous == PreviousSecret::Replaced && row.key.secret_first_used_at.is_some() {
            return RotateOutcome::SecretUsed;
        }
        if self.secrets.contains_key(digest) {
            return RotateOutcome::DigestTaken;
        }
        self.change(key.id, event.clone(), |row| {
            let stored = Arc::make_mut(&mut row.key);
            if let PreviousSecret::EndsAt(ends_at) = previous {
                row.former = Some((row.current, ends_at));
                stored.retiring = Some(RetiringSecret { hint: stored.hint.clone(), ends_at });
            }
            row.current = *digest;
            stored.hint = hint.into();
            stored.rotation_token = token;
            stored.rotated_at = Some(event.at);
            stored.secret_first_used_at = None;
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
        let rows = self.rows_of(owner).filter(|row| row.key.revoked.is_none());
        let events = (0..).zip(rows).map(|(n, row)| (row.key.id, event.for_key(n, &row.key)));
        let events: Vec<(KeyId, AuditEvent)> = events.collect();
        for (id, event) in &events {
            self.change(*id, event.clone(), |row| row.revoke(event));
        }
        events.into_iter().map(|(_, event)| event).collect()
    }

    pub(super) fn announce_account_change(&mut self, owner: &Owner, at: Timestamp) -> u32 {
        let rows = self.rows_of(owner).filter(|row| row.key.revoked.is_none());
        let ids: Vec<KeyId> = rows.map(|row| row.key.id).collect();
        for id in &ids {
            self.add_to_feed(*id, at);
        }
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn delete(&mut self, within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> bool {
        let exists = self.row(within, id).is_some();
        if exists {
            self.remove_key(id);
            self.record_change(event.clone(), id);
        }
        exists
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
            self.remove_key(*id);
            self.record_change(event.clone(), *id);
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
            if row.current == used.digest {
                key.secret_first_used_at.get_or_insert(used.first_at);
            }
            if key.last_used_at.is_none_or(|last| last < used.last_at) {
                key.last_used_at = Some(used.last_at);
                key.last_used_ip = used.ip;
            }
            self.put_row(row);
        }
        self.record_events(&firsts);
        firsts
    }

    pub(super) fn rehash(&mut self, from: &SecretDigest, to: &SecretDigest) -> bool {
        let Some(secret) = self.secrets.get(from) else { return false };
        if self.secrets.contains_key(to) {
            return false;
        }
        let mut row = self.rows[&secret.key.id].clone();
        match &mut row.former {
            Some((former, _)) if former == from => *former = *to,
            _ => row.current = *to,
        }
        self.put_row(row);
        true
    }

    pub(super) fn record_events(&mut self, events: &[AuditEvent]) -> u32 {
        let before = self.events.len();
        for event in events {
            self.events.entry(event.id).or_insert_with(|| event.clone());
        }
        (self.events.len() - before) as u32
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
        // A reader that missed entries continues at the end, so that it does not report the loss again.
        let cursor = page.last().map_or(self.last_change, |(sequence, ..)| *sequence);
        ChangeBatch {
            keys: page.iter().map(|(_, _, id)| *id).collect(),
            cursor,
            // A cursor after the end belongs to an earlier store instance.
            missed: after < self.last_purged_change || after > self.last_change,
            more: cursor < self.last_change,
        }
    }

    pub(super) fn purge_changes(&mut self, before: Timestamp) -> u32 {
        let count = self.changes.iter().take_while(|(_, at, _)| *at < before).count();
        if let Some((sequence, ..)) = self.changes.drain(..count).next_back() {
            self.last_purged_change = sequence;
        }
        count as u32
    }

    pub(super) fn add_usage(&mut self, usage: &[HourlyUsage]) {
        for hour in usage.iter().filter(|hour| self.rows.contains_key(&hour.key_id)) {
            self.counters.add_usage(hour);
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

    /// Removes a key with its usage and counters.
    fn remove_key(&mut self, id: KeyId) {
        if let Some(Row { key, .. }) = self.rows.get(&id)
            && let Some(token) = key.issue_token
        {
            let token = (key.owner.clone(), token);
            if self.issue_tokens.get(&token) == Some(&id) {
                self.issue_tokens.remove(&token);
            }
        }
        self.take_row(id);
        self.counters.remove_key(id);
    }

    fn row(&self, within: OwnerScope<'_>, id: KeyId) -> Option<&Row> {
        self.rows.get(&id).filter(|row| within.includes(&row.key.owner))
    }

    fn rows_of(&self, owner: &Owner) -> impl Iterator<Item = &Row> {
        self.owners.get(owner).into_iter().flatten().map(|id| &self.rows[id])
    }

    /// Changes an existing key, with its revision, audit event and feed entry.
    fn change(&mut self, id: KeyId, event: AuditEvent, change: impl FnOnce(&mut Row)) {
        let mut row = self.rows[&id].clone();
        change(&mut row);
        Arc::make_mut(&mut row.key).revision += 1;
        self.put_row(row);
        self.record_change(event, id);
    }

    fn put_row(&mut self, row: Row) {
        self.take_row(row.key.id);
        let secret = |ends_at| IndexedSecret { key: row.key.clone(), ends_at };
        self.secrets.insert(row.current, secret(None));
        if let Some((former, ends_at)) = row.former {
            self.secrets.insert(former, secret(Some(ends_at)));
        }
        self.owners.entry(row.key.owner.clone()).or_default().insert(row.key.id);
        self.rows.insert(row.key.id, row);
    }

    fn take_row(&mut self, id: KeyId) {
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

    fn record_change(&mut self, event: AuditEvent, id: KeyId) {
        self.add_to_feed(id, event.at);
        self.events.insert(event.id, event);
    }

    fn add_to_feed(&mut self, id: KeyId, at: Timestamp) {
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

/// Quota counters, usage history and one-time codes.
#[derive(Default)]
pub(super) struct Counters {
    quotas: HashMap<(Vec<u8>, Period), Counter>,
    usage: BTreeMap<(KeyId, Timestamp), HourlyUsage>,
    codes: HashMap<SecretDigest, OneTimeCode>,
}

impl Counters {
    pub(super) fn charge(&mut self, charges: &[CounterCharge<'_>]) -> ChargeOutcome {
        let stored: Vec<Counter> = charges.iter().map(|charge| *self.counter(charge)).collect();
        let (outcome, after) = CounterCharge::charge_all(charges, &stored);
        for (charge, after) in charges.iter().zip(after.into_iter().flatten()) {
            *self.counter(charge) = after;
        }
        outcome
    }

    pub(super) fn refund(&mut self, charges: &[CounterCharge<'_>]) {
        for charge in charges {
            let counter = self.counter(charge);
            *counter = charge.refund(*counter);
        }
    }

    pub(super) fn purge_counters(&mut self, before: Timestamp, limit: u32) -> u32 {
        let old = self.quotas.iter().filter(|((counter_key, _), counter)| {
            CounterKey::is_anonymous(counter_key) && counter.window < before
        });
        let old: Vec<_> = old.map(|(quota, _)| quota.clone()).take(limit as usize).collect();
        for quota in &old {
            self.quotas.remove(quota);
        }
        old.len() as u32
    }

    fn add_usage(&mut self, added: &HourlyUsage) {
        let HourlyUsage { key_id, hour, accepted, denied, limited } = *added;
        let sum = self.usage.entry((key_id, hour)).or_insert(HourlyUsage::none(key_id, hour));
        sum.accepted += accepted;
        sum.denied += denied;
        sum.limited += limited;
    }

    fn usage_history(&self, id: KeyId, from: Timestamp) -> Vec<HourlyUsage> {
        let of_key = self.usage.range((id, from)..=(id, Timestamp::MAX));
        of_key.map(|(_, hour)| *hour).collect()
    }

    pub(super) fn purge_usage(&mut self, before: Timestamp, limit: u32) -> u32 {
        let old = self.usage.keys().filter(|(_, hour)| *hour < before).copied();
        let old: Vec<_> = old.take(limit as usize).collect();
        for hour in &old {
            self.usage.remove(hour);
        }
        old.len() as u32
    }

    pub(super) fn put_code(&mut self, address: &SecretDigest, code: &OneTimeCode) {
        self.codes.insert(*address, *code);
    }

    pub(super) fn try_code(&mut self, attempt: &CodeAttempt) -> CodeOutcome {
        let Some(code) = self.codes.get_mut(&attempt.address) else { return CodeOutcome::NotFound };
        let outcome = attempt.check(code);
        match outcome {
            CodeOutcome::Accepted => _ = self.codes.remove(&attempt.address),
            CodeOutcome::Wrong => code.tries -= 1,
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {}
        }
        outcome
    }

    pub(super) fn purge_codes(&mut self, before: Timestamp, limit: u32) -> u32 {
        let expired = self.codes.iter().filter(|(_, code)| code.ends_at < before);
        let expired: Vec<_> = expired.map(|(address, _)| *address).take(limit as usize).collect();
        for address in &expired {
            self.codes.remove(address);
        }
        expired.len() as u32
    }

    /// Removes the usage and the counters of a deleted key.
    fn remove_key(&mut self, id: KeyId) {
        let counter_key = CounterKey::Key(id).to_bytes();
        for period in Period::ALL {
            self.quotas.remove(&(counter_key.clone(), period));
        }
        for hour in self.usage_history(id, Timestamp::MIN) {
            self.usage.remove(&(id, hour.hour));
        }
    }

    fn counter(&mut self, charge: &CounterCharge<'_>) -> &mut Counter {
        self.quotas.entry((charge.counter_key.to_bytes(), charge.period)).or_default()
    }
}

const CHANGES_PER_PAGE: usize = 1_000;
