// A store for a few hundred keys, from nothing: one JSON file, which every change replaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keyward::{AuditEvent, AuditQuery, SecretDigest, model::*, store::*};
use serde::{Deserialize, Serialize};

pub type Stored<T> = Result<T, StoreError>;
type Events = Stored<Vec<AuditEvent>>;

/// A store in a folder, which only one process may open.
pub struct JsonStore(PathBuf, Mutex<State>);

#[derive(Clone, Default)]
struct State {
    rows: BTreeMap<KeyId, Row>,
    events: BTreeMap<EventId, AuditEvent>,
}

#[derive(Clone)]
struct Row {
    key: Key,
    current: SecretDigest,
    former: Option<SecretDigest>,
}

/// What the file has. Keys and events have versions; a later version of the crate reads them.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keys: Vec<(KeyDocument, Vec<u8>, Option<Vec<u8>>)>,
    events: Vec<EventDocument>,
}

impl JsonStore {
    /// Opens the store. A file that is damaged is *corrupt*, not empty.
    pub fn open(folder: PathBuf) -> Stored<Self> {
        let document: Document = match fs::read(folder.join("keys.json")) {
            Ok(json) => serde_json::from_slice(&json).map_err(StoreError::corrupt)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Document::default(),
            Err(error) => return Err(StoreError::unavailable(error)),
        };
        let mut state = State::default();
        for (key, current, former) in document.keys {
            let digest = |bytes: Vec<u8>| {
                SecretDigest::from_bytes(&bytes).ok_or_else(|| StoreError::corrupt("a digest"))
            };
            let (key, former) = (Key::try_from(key)?, former.map(digest).transpose()?);
            state.rows.insert(key.id, Row { key, current: digest(current)?, former });
        }
        for event in document.events {
            state.log(event.try_into()?);
        }
        Ok(Self(folder, Mutex::new(state)))
    }

    fn read(&self) -> MutexGuard<'_, State> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change to the file, and then to what readers see. There is no `await`, so no caller can drop it halfway.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> Stored<T> {
        let mut state = self.read();
        let mut next = state.clone();
        let outcome = change(&mut next);
        next.save(&self.0)?;
        *state = next;
        Ok(outcome)
    }
}

impl State {
    fn save(&self, folder: &Path) -> Stored<()> {
        let key = |row: &Row| {
            let former = row.former.map(|former| former.to_bytes().into());
            (KeyDocument::from(&row.key), row.current.to_bytes().into(), former)
        };
        let keys = self.rows.values().map(key).collect();
        let events = self.events.values().map(EventDocument::from).collect();
        let json = serde_json::to_vec(&Document { keys, events }).expect("text and numbers");
        let new = folder.join("keys.new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        written.map_err(StoreError::unavailable)?;
        // Until the folder is on the disk, a power failure may undo this.
        let replaced = fs::rename(&new, folder.join("keys.json"));
        let synced = replaced.and_then(|()| File::open(folder)?.sync_all());
        synced.map_err(StoreError::outcome_unknown)
    }

    /// A larger store has indexes: of digests, owners, tokens, and of when keys ended.
    fn row(&self, within: OwnerScope<'_>, id: KeyId) -> Option<Row> {
        self.rows.get(&id).filter(|row| within.includes(&row.key.owner)).cloned()
    }

    fn rows(&self, which: impl Fn(&Row) -> bool) -> Vec<Row> {
        self.rows.values().filter(|row| which(row)).cloned().collect()
    }

    fn holder(&self, digest: &SecretDigest) -> Option<&Row> {
        self.rows.values().find(|row| row.current == *digest || row.former == Some(*digest))
    }

    fn log(&mut self, event: AuditEvent) {
        self.events.entry(event.id).or_insert(event);
    }

    /// Changes a key, with its revision and its event.
    fn change(&mut self, mut row: Row, event: &AuditEvent, change: impl FnOnce(&mut Key)) {
        change(&mut row.key);
        row.key.revision += 1;
        self.rows.insert(row.key.id, row);
        self.log(event.clone());
    }

    fn revoke(&mut self, row: Row, event: &AuditEvent) {
        let reason = event.reason.clone().unwrap_or_default();
        self.change(row, event, |key| key.revoked = Some(Revocation { at: event.at, reason }));
    }

    fn delete(&mut self, row: Row, event: &AuditEvent) {
        self.rows.remove(&row.key.id);
        self.log(event.clone());
    }
}

#[async_trait::async_trait]
impl KeyStore for JsonStore {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        None
    }

    fn counters(&self) -> Option<&dyn Counters> {
        None
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        None
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        None
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        None
    }

    async fn insert(&self, new: InsertKey<'_>) -> Stored<InsertOutcome> {
        let InsertKey { key, digest, max_active, token_since, event } = new;
        self.write(|state| {
            let of_owner = state.rows(|row| row.key.owner == key.owner);
            let is_repeated = |row: &&Row| {
                row.key.issue_token == key.issue_token && row.key.created_at >= token_since
            };
            let earlier = key.issue_token.and_then(|_| of_owner.iter().find(is_repeated));
            let is_taken = state.rows.contains_key(&key.id) || state.holder(digest).is_some();
            let live = of_owner.iter().filter(|row| row.key.is_live(event.at)).count();
            let is_full = max_active.is_some_and(|max| live >= max as usize);
            match earlier {
                Some(row) => InsertOutcome::TokenTaken(row.key.id),
                None if is_taken => InsertOutcome::DigestTaken,
                None if is_full => InsertOutcome::LimitReached,
                None => {
                    let row = Row { key: key.clone(), current: *digest, former: None };
                    state.rows.insert(key.id, row);
                    state.log(event.clone());
                    InsertOutcome::Inserted
                }
            }
        })
    }

    async fn find(&self, digests: &[SecretDigest]) -> Stored<Option<FoundKey>> {
        let state = self.read();
        Ok(digests.iter().find_map(|digest| {
            let Row { key, current, .. } = state.holder(digest)?;
            let ends_at = key.retiring.as_ref().filter(|_| current != digest).map(|s| s.ends_at);
            Some(FoundKey { key: Arc::new(key.clone()), digest: *digest, ends_at })
        }))
    }

    async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Stored<Option<Arc<Key>>> {
        Ok(self.read().row(within, id).map(|row| Arc::new(row.key)))
    }

    async fn list(&self, query: &KeyQuery<'_>) -> Stored<Vec<Arc<Key>>> {
        let KeyQuery { within, status, after, limit, now } = *query;
        let rows = self.read().rows(|Row { key, .. }| {
            let is_wanted = status.is_none_or(|status| key.status(now) == status);
            is_wanted && within.includes(&key.owner) && after.is_none_or(|after| key.id < after)
        });
        Ok(rows.into_iter().rev().take(limit as usize).map(|row| Arc::new(row.key)).collect())
    }

    async fn tenants(&self, after: Option<&str>, limit: u32) -> Stored<Vec<String>> {
        let rows = self.read().rows(|row| after.is_none_or(|after| row.key.owner.tenant() > after));
        let tenants: BTreeSet<_> = rows.iter().map(|row| row.key.owner.tenant()).collect();
        Ok(tenants.into_iter().take(limit as usize).map(str::to_owned).collect())
    }

    async fn update(&self, key: &Key, event: &AuditEvent) -> Stored<UpdateOutcome> {
        self.write(|state| match state.row((&key.owner).into(), key.id) {
            None => UpdateOutcome::NotFound,
            Some(row) if !row.key.is_unchanged_since(key) => UpdateOutcome::Conflict,
            Some(row) => {
                let Key { name, access, limits, networks, metadata, disabled_at, .. } = key.clone();
                state.change(row, event, |key| {
                    let kept = key.clone();
                    *key = Key { name, access, limits, networks, metadata, disabled_at, ..kept };
                });
                UpdateOutcome::Updated
            }
        })
    }

    async fn rotate(&self, rotate: RotateSecret<'_>) -> Stored<RotateOutcome> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let replaces = previous == PreviousSecret::Replaced;
        self.write(|state| match state.row((&key.owner).into(), key.id) {
            None => RotateOutcome::NotFound,
            Some(row) if !row.key.is_unchanged_since(key) => RotateOutcome::Conflict,
            Some(row) if replaces && row.key.secret_first_used_at.is_some() => {
                RotateOutcome::SecretUsed
            }
            Some(_) if state.holder(digest).is_some() => RotateOutcome::DigestTaken,
            Some(mut row) => {
                if let PreviousSecret::EndsAt(ends_at) = previous {
                    row.former = Some(row.current);
                    let hint = row.key.hint.clone();
                    row.key.retiring = Some(RetiringSecret { hint, ends_at });
                }
                row.current = *digest;
                state.change(row, event, |key| {
                    (key.hint, key.rotation_token) = (hint.into(), token);
                    (key.rotated_at, key.secret_first_used_at) = (Some(event.at), None);
                });
                RotateOutcome::Rotated
            }
        })
    }

    async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Stored<RevokeOutcome> {
        self.write(|state| match state.row(within, id) {
            None => RevokeOutcome::NotFound,
            Some(row) if row.key.revoked.is_some() => RevokeOutcome::AlreadyRevoked,
            Some(row) => {
                state.revoke(row, event);
                RevokeOutcome::Revoked
            }
        })
    }

    async fn revoke_all(&self, owner: &Owner, by: &AuditEvent) -> Events {
        self.write(|state| {
            let rows = state.rows(|row| row.key.owner == *owner && row.key.revoked.is_none());
            let events = (0..).zip(&rows).map(|(n, row)| by.for_key(n, &row.key)).collect();
            rows.into_iter().zip(&events).for_each(|(row, event)| state.revoke(row, event));
            events
        })
    }

    async fn delete(&self, within: OwnerScope<'_>, id: KeyId, by: &AuditEvent) -> Stored<bool> {
        self.write(|state| state.row(within, id).map(|row| state.delete(row, by)).is_some())
    }

    async fn purge_keys(&self, before: Timestamp, limit: u32, by: &AuditEvent) -> Events {
        self.write(|state| {
            let mut rows = state.rows(|row| row.key.dead_since().is_some_and(|at| at < before));
            rows.truncate(limit as usize);
            let events = (0..).zip(&rows).map(|(n, row)| by.for_key(n, &row.key)).collect();
            rows.into_iter().zip(&events).for_each(|(row, event)| state.delete(row, event));
            events
        })
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Events {
        self.write(|state| {
            let mut firsts = Vec::new();
            for used in uses {
                let row = state.rows.get_mut(&used.key_id);
                let Some(row) = row.filter(|row| row.key.owner == used.owner) else { continue };
                let key = &mut row.key;
                if key.first_used_at.is_none() {
                    key.first_used_at = Some(used.first_at);
                    firsts.push(used.first_use());
                }
                if row.current == used.digest {
                    key.secret_first_used_at.get_or_insert(used.first_at);
                }
                if key.last_used_at.is_none_or(|last| last < used.last_at) {
                    (key.last_used_at, key.last_used_ip) = (Some(used.last_at), used.ip);
                }
            }
            firsts.iter().for_each(|first| state.log(first.clone()));
            firsts
        })
    }

    async fn rehash(&self, from: &SecretDigest, to: &SecretDigest) -> Stored<bool> {
        self.write(|state| match state.holder(from).cloned() {
            Some(mut row) if state.holder(to).is_none() => {
                *if row.current == *from { &mut row.current } else { row.former.insert(*to) } = *to;
                state.rows.insert(row.key.id, row);
                true
            }
            _ => false,
        })
    }

    async fn record_events(&self, events: &[AuditEvent]) -> Stored<u32> {
        self.write(|state| {
            let before = state.events.len();
            events.iter().for_each(|event| state.log(event.clone()));
            (state.events.len() - before) as u32
        })
    }

    async fn events(&self, query: &AuditQuery<'_>) -> Events {
        let state = self.read();
        let matching = state.events.values().rev().filter(|event| query.matches(event));
        Ok(matching.take(query.limit as usize).cloned().collect())
    }

    async fn purge_events(&self, before: Timestamp, limit: u32) -> Stored<u32> {
        self.write(|state| {
            let old = state.events.extract_if(.., |_, event| event.at < before);
            old.take(limit as usize).count() as u32
        })
    }
}
