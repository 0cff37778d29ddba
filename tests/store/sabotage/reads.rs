use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    Access, AuditEvent, AuditQuery, Key, KeyId, KeyStore, OwnerScope, SecretDigest,
    model::EventId,
    secret::HasherTag,
    store::{FoundKey, InsertKey, InsertOutcome, KeyQuery, RevokeOutcome},
};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct LooksForTheFirstCandidate;

#[async_trait]
impl Sabotage for LooksForTheFirstCandidate {
    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        inside.find(&digests[..digests.len().min(1)]).await
    }
}

#[derive(Default)]
pub struct IgnoresTheTag;

#[async_trait]
impl Sabotage for IgnoresTheTag {
    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        let sha256 = |digest: &SecretDigest| {
            SecretDigest::from_parts(HasherTag::SHA256, digest.to_bytes()[3..].try_into().unwrap())
        };
        inside.find(&digests.iter().map(sha256).collect::<Vec<_>>()).await
    }
}

/// An index over a prefix, taken for the whole.
#[derive(Default)]
pub struct ComparesTheBeginning {
    stored: Mutex<HashMap<[u8; 16], SecretDigest>>,
}

#[async_trait]
impl Sabotage for ComparesTheBeginning {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.stored.lock().unwrap().insert(beginning(new.digest), *new.digest);
        inside.insert(new).await
    }

    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        let stored = |digest| self.stored.lock().unwrap().get(&beginning(digest)).copied();
        inside.find(&digests.iter().filter_map(stored).collect::<Vec<_>>()).await
    }
}

fn beginning(digest: &SecretDigest) -> [u8; 16] {
    *digest.to_bytes().first_chunk().unwrap()
}

/// Reads from something that lags.
#[derive(Default)]
pub struct RemembersWhatItFound {
    found: Mutex<HashMap<SecretDigest, FoundKey>>,
}

#[async_trait]
impl Sabotage for RemembersWhatItFound {
    async fn find(&self, inside: &Inside, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        let known =
            digests.iter().find_map(|digest| self.found.lock().unwrap().get(digest).cloned());
        if known.is_some() {
            return Ok(known);
        }
        let found = inside.find(digests).await?;
        if let Some(found) = &found {
            self.found.lock().unwrap().insert(found.digest, found.clone());
        }
        Ok(found)
    }
}

#[derive(Default)]
pub struct TakesNoScopesForAllScopes;

#[async_trait]
impl Sabotage for TakesNoScopesForAllScopes {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        let mut key = new.key.clone();
        if matches!(&key.access, Access::Only(scopes) if scopes.iter().next().is_none()) {
            key.access = Access::Inherited;
        }
        inside.insert(InsertKey { key: &key, ..new }).await
    }
}

#[derive(Default)]
pub struct TrimsReasons;

#[async_trait]
impl Sabotage for TrimsReasons {
    async fn revoke(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Answer<RevokeOutcome> {
        let mut event = event.clone();
        event.reason = event.reason.and_then(|reason| reason.lines().next().map(Into::into));
        inside.revoke(within, id, &event).await
    }
}

#[derive(Default)]
pub struct ListsOldestFirst;

#[async_trait]
impl Sabotage for ListsOldestFirst {
    async fn list(&self, inside: &Inside, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        let mut keys = inside.list(query).await?;
        keys.reverse();
        Ok(keys)
    }
}

/// Says `now > expires_at` where it has to be `>=`.
#[derive(Default)]
pub struct ExpiresTooLate;

#[async_trait]
impl Sabotage for ExpiresTooLate {
    async fn list(&self, inside: &Inside, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        let now = query.now.before(Duration::from_micros(1));
        inside.list(&KeyQuery { now, ..*query }).await
    }
}

/// Counts from the top, where keys are added in the meantime.
#[derive(Default)]
pub struct PagesByOffset {
    keys: Mutex<HashMap<KeyId, usize>>,
    events: Mutex<HashMap<EventId, usize>>,
}

#[async_trait]
impl Sabotage for PagesByOffset {
    async fn list(&self, inside: &Inside, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        let offset = query.after.map_or(0, |after| self.keys.lock().unwrap()[&after]);
        let all = inside.list(&KeyQuery { after: None, limit: 1_000, ..*query }).await?;
        let page: Vec<_> = all.into_iter().skip(offset).take(query.limit as usize).collect();
        if let Some(last) = page.last() {
            self.keys.lock().unwrap().insert(last.id, offset + page.len());
        }
        Ok(page)
    }

    async fn events(&self, inside: &Inside, query: &AuditQuery<'_>) -> Answer<Vec<AuditEvent>> {
        let offset = query.after.map_or(0, |after| self.events.lock().unwrap()[&after]);
        let all = inside.events(&AuditQuery { after: None, limit: 1_000, ..*query }).await?;
        let page: Vec<_> = all.into_iter().skip(offset).take(query.limit as usize).collect();
        if let Some(last) = page.last() {
            self.events.lock().unwrap().insert(last.id, offset + page.len());
        }
        Ok(page)
    }
}
