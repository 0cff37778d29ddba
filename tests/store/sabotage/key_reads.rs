//! Broken reads of keys and tenants.

use std::{
    collections::{BTreeSet, HashMap},
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

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct FindsOnlyTheFirstCandidate;

#[async_trait]
impl Sabotage for FindsOnlyTheFirstCandidate {
    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        inner.find(&digests[..digests.len().min(1)]).await
    }
}

#[derive(Default)]
pub struct IgnoresTheTag;

#[async_trait]
impl Sabotage for IgnoresTheTag {
    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let sha256 = |digest: &SecretDigest| {
            SecretDigest::from_parts(HasherTag::SHA256, digest.to_bytes()[3..].try_into().unwrap())
        };
        inner.find(&digests.iter().map(sha256).collect::<Vec<_>>()).await
    }
}

/// Compares only the prefix of a digest that is indexed.
#[derive(Default)]
pub struct ComparesOnlyAPrefix {
    stored: Mutex<HashMap<[u8; 16], SecretDigest>>,
}

#[async_trait]
impl Sabotage for ComparesOnlyAPrefix {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.stored.lock().unwrap().insert(prefix(new.digest), *new.digest);
        inner.insert(new).await
    }

    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let stored = |digest| self.stored.lock().unwrap().get(&prefix(digest)).copied();
        inner.find(&digests.iter().filter_map(stored).collect::<Vec<_>>()).await
    }
}

fn prefix(digest: &SecretDigest) -> [u8; 16] {
    *digest.to_bytes().first_chunk().unwrap()
}

/// Reads from a replica that lags.
#[derive(Default)]
pub struct ReadsStaleData {
    found: Mutex<HashMap<SecretDigest, FoundKey>>,
}

#[async_trait]
impl Sabotage for ReadsStaleData {
    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let known =
            digests.iter().find_map(|digest| self.found.lock().unwrap().get(digest).cloned());
        if known.is_some() {
            return Ok(known);
        }
        let found = inner.find(digests).await?;
        if let Some(found) = &found {
            self.found.lock().unwrap().insert(found.digest, found.clone());
        }
        Ok(found)
    }
}

#[derive(Default)]
pub struct ConfusesNoScopesWithInherited;

#[async_trait]
impl Sabotage for ConfusesNoScopesWithInherited {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        let mut key = new.key.clone();
        if matches!(&key.access, Access::Only(scopes) if scopes.iter().next().is_none()) {
            key.access = Access::Inherited;
        }
        inner.insert(InsertKey { key: &key, ..new }).await
    }
}

#[derive(Default)]
pub struct TruncatesReasons;

#[async_trait]
impl Sabotage for TruncatesReasons {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        let reason = event.reason.as_deref().and_then(|reason| reason.lines().next());
        let mut event = event.clone();
        event.reason = reason.map(Into::into);
        inner.revoke(within, id, &event).await
    }
}

#[derive(Default)]
pub struct ListsOldestFirst;

#[async_trait]
impl Sabotage for ListsOldestFirst {
    async fn list(&self, inner: &Inner, query: &KeyQuery<'_>) -> StoreResult<Vec<Arc<Key>>> {
        let mut keys = inner.list(query).await?;
        keys.reverse();
        Ok(keys)
    }
}

/// Compares `now > expires_at` instead of `>=`.
#[derive(Default)]
pub struct ExpiresTooLate;

#[async_trait]
impl Sabotage for ExpiresTooLate {
    async fn list(&self, inner: &Inner, query: &KeyQuery<'_>) -> StoreResult<Vec<Arc<Key>>> {
        let now = query.now.before(Duration::from_micros(1));
        inner.list(&KeyQuery { now, ..*query }).await
    }
}

/// Pages by offset from the top, where keys are added in the meantime.
#[derive(Default)]
pub struct PagesByOffset {
    keys: Mutex<HashMap<KeyId, usize>>,
    events: Mutex<HashMap<EventId, usize>>,
}

#[async_trait]
impl Sabotage for PagesByOffset {
    async fn list(&self, inner: &Inner, query: &KeyQuery<'_>) -> StoreResult<Vec<Arc<Key>>> {
        let offset = query.after.map_or(0, |after| self.keys.lock().unwrap()[&after]);
        let all = inner.list(&KeyQuery { after: None, limit: 1_000, ..*query }).await?;
        let page: Vec<_> = all.into_iter().skip(offset).take(query.limit as usize).collect();
        if let Some(last) = page.last() {
            self.keys.lock().unwrap().insert(last.id, offset + page.len());
        }
        Ok(page)
    }

    async fn events(&self, inner: &Inner, query: &AuditQuery<'_>) -> StoreResult<Vec<AuditEvent>> {
        let offset = query.after.map_or(0, |after| self.events.lock().unwrap()[&after]);
        let all = inner.events(&AuditQuery { after: None, limit: 1_000, ..*query }).await?;
        let page: Vec<_> = all.into_iter().skip(offset).take(query.limit as usize).collect();
        if let Some(last) = page.last() {
            self.events.lock().unwrap().insert(last.id, offset + page.len());
        }
        Ok(page)
    }
}

/// Treats the empty tenant as no tenant.
#[derive(Default)]
pub struct SkipsTheEmptyTenant;

#[async_trait]
impl Sabotage for SkipsTheEmptyTenant {
    async fn tenants(
        &self,
        inner: &Inner,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Vec<String>> {
        inner.tenants(after.or(Some("")), limit).await
    }
}

/// Lists a tenant once per key.
#[derive(Default)]
pub struct ListsTenantsOncePerKey;

#[async_trait]
impl Sabotage for ListsTenantsOncePerKey {
    async fn tenants(
        &self,
        inner: &Inner,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Vec<String>> {
        let keys = inner.all_keys().await?;
        let mut tenants: Vec<_> = keys.iter().map(|key| key.owner.tenant().to_owned()).collect();
        tenants.sort();
        Ok(page(tenants, after, limit))
    }
}

/// Pages by offset from the first tenant, which may be removed in the meantime.
#[derive(Default)]
pub struct PagesTenantsByOffset {
    offsets: Mutex<HashMap<String, usize>>,
}

#[async_trait]
impl Sabotage for PagesTenantsByOffset {
    async fn tenants(
        &self,
        inner: &Inner,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Vec<String>> {
        let offset = after.map_or(0, |after| self.offsets.lock().unwrap()[after]);
        let all = inner.tenants(None, 1_000).await?;
        let page: Vec<_> = all.into_iter().skip(offset).take(limit as usize).collect();
        if let Some(last) = page.last() {
            self.offsets.lock().unwrap().insert(last.clone(), offset + page.len());
        }
        Ok(page)
    }
}

/// Looks up the last tenant of the previous page to continue after it.
#[derive(Default)]
pub struct StopsAfterARemovedTenant;

#[async_trait]
impl Sabotage for StopsAfterARemovedTenant {
    async fn tenants(
        &self,
        inner: &Inner,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Vec<String>> {
        let all = inner.tenants(None, 1_000).await?;
        match after {
            Some(after) if !all.iter().any(|tenant| tenant == after) => Ok(Vec::new()),
            after => inner.tenants(after, limit).await,
        }
    }
}

/// Never forgets a tenant.
#[derive(Default)]
pub struct KeepsTenantsWithoutKeys {
    seen: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Sabotage for KeepsTenantsWithoutKeys {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.seen.lock().unwrap().insert(new.key.owner.tenant().to_owned());
        inner.insert(new).await
    }

    async fn tenants(
        &self,
        _: &Inner,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Vec<String>> {
        Ok(page(self.seen.lock().unwrap().clone(), after, limit))
    }
}

/// Does not list tenants whose keys are all revoked.
#[derive(Default)]
pub struct SkipsTenantsWithOnlyRevokedKeys;

#[async_trait]
impl Sabotage for SkipsTenantsWithOnlyRevokedKeys {
    async fn tenants(
        &self,
        inner: &Inner,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Vec<String>> {
        let keys = inner.all_keys().await?;
        let unrevoked = keys.iter().filter(|key| key.revoked.is_none());
        let tenants: BTreeSet<_> = unrevoked.map(|key| key.owner.tenant().to_owned()).collect();
        Ok(page(tenants, after, limit))
    }
}

/// Returns up to `limit` tenants after `after`.
fn page(sorted: impl IntoIterator<Item = String>, after: Option<&str>, limit: u32) -> Vec<String> {
    let is_after = |tenant: &String| after.is_none_or(|after| tenant.as_str() > after);
    sorted.into_iter().filter(is_after).take(limit as usize).collect()
}

/// Reports the digest under which the key was issued.
#[derive(Default)]
pub struct ReportsTheFirstDigest {
    first: Mutex<HashMap<KeyId, SecretDigest>>,
}

#[async_trait]
impl Sabotage for ReportsTheFirstDigest {
    async fn find(&self, inner: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let found = inner.find(digests).await?;
        let mut first = self.first.lock().unwrap();
        Ok(found.map(|found| {
            let digest = *first.entry(found.key.id).or_insert(found.digest);
            FoundKey { digest, ..found }
        }))
    }
}

/// Compares owners by their names with a separator in between.
#[derive(Default)]
pub struct JoinsTheNamesOfOwners {
    owners: Mutex<Vec<keyward::Owner>>,
}

#[async_trait]
impl Sabotage for JoinsTheNamesOfOwners {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.owners.lock().unwrap().push(new.key.owner.clone());
        inner.insert(new).await
    }

    async fn list(&self, inner: &Inner, query: &KeyQuery<'_>) -> StoreResult<Vec<Arc<Key>>> {
        let OwnerScope::Owner(owner) = query.within else { return inner.list(query).await };
        let joined = |owner: &keyward::Owner| format!("{}/{}", owner.tenant(), owner.account());
        let same: BTreeSet<_> = {
            let owners = self.owners.lock().unwrap();
            owners.iter().filter(|other| joined(other) == joined(owner)).cloned().collect()
        };
        let mut keys = Vec::new();
        for owner in &same {
            let within = OwnerScope::Owner(owner);
            keys.extend(inner.list(&KeyQuery { within, ..*query }).await?);
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.id));
        Ok(keys)
    }
}
