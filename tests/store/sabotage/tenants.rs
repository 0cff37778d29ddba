use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
};

use async_trait::async_trait;
use keyward::{
    KeyStore,
    store::{InsertKey, InsertOutcome},
};

use super::wrapper::{Answer, Inside, Sabotage};

/// Takes the empty text for nothing.
#[derive(Default)]
pub struct KnowsOnlyTenantsWithNames;

#[async_trait]
impl Sabotage for KnowsOnlyTenantsWithNames {
    async fn tenants(
        &self,
        inside: &Inside,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<String>> {
        inside.tenants(after.or(Some("")), limit).await
    }
}

/// One for each key of theirs.
#[derive(Default)]
pub struct ListsTenantsOfKeys;

#[async_trait]
impl Sabotage for ListsTenantsOfKeys {
    async fn tenants(
        &self,
        inside: &Inside,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<String>> {
        let keys = inside.all().await?;
        let mut tenants: Vec<_> = keys.iter().map(|key| key.owner.tenant().to_owned()).collect();
        tenants.sort();
        Ok(page(tenants, after, limit))
    }
}

/// Counts from the first one, which may be gone in the meantime.
#[derive(Default)]
pub struct PagesTenantsByOffset {
    offsets: Mutex<HashMap<String, usize>>,
}

#[async_trait]
impl Sabotage for PagesTenantsByOffset {
    async fn tenants(
        &self,
        inside: &Inside,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<String>> {
        let offset = after.map_or(0, |after| self.offsets.lock().unwrap()[after]);
        let all = inside.tenants(None, 1_000).await?;
        let page: Vec<_> = all.into_iter().skip(offset).take(limit as usize).collect();
        if let Some(last) = page.last() {
            self.offsets.lock().unwrap().insert(last.clone(), offset + page.len());
        }
        Ok(page)
    }
}

/// Looks for the last one of the page before, to go on behind it.
#[derive(Default)]
pub struct StopsBehindWhoIsGone;

#[async_trait]
impl Sabotage for StopsBehindWhoIsGone {
    async fn tenants(
        &self,
        inside: &Inside,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<String>> {
        let all = inside.tenants(None, 1_000).await?;
        match after {
            Some(after) if !all.iter().any(|tenant| tenant == after) => Ok(Vec::new()),
            after => inside.tenants(after, limit).await,
        }
    }
}

/// A tenant is one for ever.
#[derive(Default)]
pub struct KeepsTenantsWithoutKeys {
    seen: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Sabotage for KeepsTenantsWithoutKeys {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.seen.lock().unwrap().insert(new.key.owner.tenant().to_owned());
        inside.insert(new).await
    }

    async fn tenants(&self, _: &Inside, after: Option<&str>, limit: u32) -> Answer<Vec<String>> {
        Ok(page(self.seen.lock().unwrap().clone(), after, limit))
    }
}

/// Whose keys are all revoked has none.
#[derive(Default)]
pub struct ListsTenantsOfUnrevokedKeys;

#[async_trait]
impl Sabotage for ListsTenantsOfUnrevokedKeys {
    async fn tenants(
        &self,
        inside: &Inside,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<String>> {
        let keys = inside.all().await?;
        let unrevoked = keys.iter().filter(|key| key.revoked.is_none());
        let tenants: BTreeSet<_> = unrevoked.map(|key| key.owner.tenant().to_owned()).collect();
        Ok(page(tenants, after, limit))
    }
}

/// As every store has it: up to so many, behind one.
fn page(sorted: impl IntoIterator<Item = String>, after: Option<&str>, limit: u32) -> Vec<String> {
    let behind = |tenant: &String| after.is_none_or(|after| tenant.as_str() > after);
    sorted.into_iter().filter(behind).take(limit as usize).collect()
}
