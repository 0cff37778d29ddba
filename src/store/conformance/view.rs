use std::{collections::BTreeSet, sync::Arc};

use super::storage::{Holder, Storage};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, OwnerScope},
    secret::SecretDigest,
    store::StoreError,
};

/// Watches a tenant from an instant on: its keys, its secrets, its log and what the feed tells.
pub(super) struct Watch<'a> {
    pub(super) storage: &'a Storage,
    tenant: &'a str,
    digests: Vec<SecretDigest>,
    cursor: u64,
    /// The keys of the tenant that the feed may tell of; all there are if empty.
    keys: BTreeSet<KeyId>,
}

/// Everything that can be seen of a tenant. Two of them are equal where no call could tell a
/// difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) secrets: Vec<Holder>,
    pub(super) log: Vec<AuditEvent>,
    pub(super) told: BTreeSet<KeyId>,
}

impl<'a> Watch<'a> {
    pub(super) async fn begin(
        storage: &'a Storage,
        tenant: &'a str,
        digests: impl IntoIterator<Item = SecretDigest>,
    ) -> Result<Self, StoreError> {
        let digests = digests.into_iter().collect();
        let cursor = storage.feed_end().await?;
        Ok(Self { storage, tenant, digests, cursor, keys: BTreeSet::new() })
    }

    /// Disregards what the feed tells of other keys.
    pub(super) fn only(mut self, keys: &[Key]) -> Self {
        self.keys = keys.iter().map(|key| key.id).collect();
        self
    }

    pub(super) async fn look(&self) -> Result<View, StoreError> {
        let within = OwnerScope::Tenant(self.tenant);
        let mut secrets = Vec::new();
        for digest in &self.digests {
            secrets.push(self.storage.holder(digest).await?);
        }
        let mut told = self.storage.follow(&mut self.cursor.clone()).await?;
        told.retain(|id| self.keys.is_empty() || self.keys.contains(id));
        Ok(View {
            keys: self.storage.keys(within).await?,
            secrets,
            log: self.storage.log(within).await?,
            told,
        })
    }
}

/// The events by which a log has grown, unless it lost or changed some of those before.
pub(super) fn added(log: &[AuditEvent], before: &[AuditEvent]) -> Option<Vec<AuditEvent>> {
    let new: Vec<_> = log.iter().filter(|event| !before.contains(event)).cloned().collect();
    (log.len() == before.len() + new.len()).then_some(new)
}
