//! Broken change feeds.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, Key, KeyId, KeyStore, Owner, OwnerScope, Timestamp,
    store::{
        ChangeBatch, ChangeFeed, FeedMode, InsertKey, InsertOutcome, RevokeOutcome, RotateOutcome,
        RotateSecret,
    },
};

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct DropsChanges {
    rotated: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for DropsChanges {
    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        self.rotated.lock().unwrap().insert(rotate.key.id);
        inner.rotate(rotate).await
    }

    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        let mut changes = inner.changes(after).await?;
        let rotated = self.rotated.lock().unwrap();
        changes.keys.retain(|id| !rotated.contains(id));
        Ok(changes)
    }
}

#[derive(Default)]
pub struct StartsAtTheBeginning;

#[async_trait]
impl Sabotage for StartsAtTheBeginning {
    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        inner.changes(Some(after.unwrap_or(0))).await
    }
}

/// Numbers entries when a transaction begins. An entry that commits after a reader has passed its
/// number is never read.
#[derive(Default)]
pub struct CommitsOutOfOrder {
    open: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for CommitsOutOfOrder {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.open.lock().unwrap().insert(new.key.id);
        let inserted = inner.insert(new).await;
        tokio::task::yield_now().await;
        self.open.lock().unwrap().remove(&new.key.id);
        inserted
    }

    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        // A snapshot: entries of open transactions are invisible, but the cursor passes them.
        let open = self.open.lock().unwrap().clone();
        let mut changes = inner.changes(after).await?;
        changes.keys.retain(|id| !open.contains(id));
        Ok(changes)
    }
}

/// Writes the feed entry on another connection, before the change commits.
#[derive(Default)]
pub struct AnnouncesBeforeCommit {
    uncommitted: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for AnnouncesBeforeCommit {
    async fn insert(&self, inner: &Inner, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        self.uncommitted.lock().unwrap().insert(new.key.id);
        let inserted = inner.insert(new).await;
        tokio::task::yield_now().await;
        self.uncommitted.lock().unwrap().remove(&new.key.id);
        inserted
    }

    async fn get(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> StoreResult<Option<Arc<Key>>> {
        if self.uncommitted.lock().unwrap().contains(&id) {
            return Ok(None);
        }
        inner.get(within, id).await
    }
}

#[derive(Default)]
pub struct NeverReportsMore;

#[async_trait]
impl Sabotage for NeverReportsMore {
    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        Ok(ChangeBatch { more: false, ..inner.changes(after).await? })
    }
}

#[derive(Default)]
pub struct NeverReportsMissed;

#[async_trait]
impl Sabotage for NeverReportsMissed {
    async fn changes(&self, inner: &Inner, after: Option<u64>) -> StoreResult<ChangeBatch> {
        Ok(ChangeBatch { missed: false, ..inner.changes(after).await? })
    }
}

/// Checks once, and then sleeps until the timeout.
#[derive(Default)]
pub struct SleepsUntilTheTimeout;

#[async_trait]
impl Sabotage for SleepsUntilTheTimeout {
    async fn wait_for_changes(
        &self,
        inner: &Inner,
        after: u64,
        at_most: Duration,
    ) -> StoreResult<FeedMode> {
        if inner.changes(Some(after)).await?.keys.is_empty() {
            tokio::time::sleep(at_most).await;
        }
        Ok(FeedMode::Pushed)
    }
}

/// Polls ten times a second, and says that it is notified.
#[derive(Default)]
pub struct PollsInSecret;

#[async_trait]
impl Sabotage for PollsInSecret {
    async fn wait_for_changes(
        &self,
        inner: &Inner,
        after: u64,
        _: Duration,
    ) -> StoreResult<FeedMode> {
        while inner.changes(Some(after)).await?.keys.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(FeedMode::Pushed)
    }
}

/// Wakes one reader of each change.
#[derive(Default)]
pub struct WakesOneWaiter {
    woken: Mutex<HashSet<u64>>,
}

#[async_trait]
impl Sabotage for WakesOneWaiter {
    async fn wait_for_changes(
        &self,
        inner: &Inner,
        after: u64,
        at_most: Duration,
    ) -> StoreResult<FeedMode> {
        let mode = inner.wait_for_changes(after, at_most).await?;
        let is_first = self.woken.lock().unwrap().insert(after);
        if !is_first {
            tokio::time::sleep(at_most).await;
        }
        Ok(mode)
    }
}

/// Notifies readers of every change but revocations.
#[derive(Default)]
pub struct RevocationsWakeNoReader {
    revoked: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for RevocationsWakeNoReader {
    async fn revoke(
        &self,
        inner: &Inner,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> StoreResult<RevokeOutcome> {
        self.revoked.lock().unwrap().insert(id);
        inner.revoke(within, id, event).await
    }

    async fn wait_for_changes(
        &self,
        inner: &Inner,
        after: u64,
        at_most: Duration,
    ) -> StoreResult<FeedMode> {
        let mode = inner.wait_for_changes(after, at_most).await?;
        let changed = inner.changes(Some(after)).await?.keys;
        let is_silent = changed.iter().all(|id| self.revoked.lock().unwrap().contains(id));
        if is_silent {
            tokio::time::sleep(at_most).await;
        }
        Ok(mode)
    }
}

/// Subscribes without checking for changes from before the subscription.
#[derive(Default)]
pub struct IgnoresExistingChanges;

#[async_trait]
impl Sabotage for IgnoresExistingChanges {
    async fn wait_for_changes(
        &self,
        inner: &Inner,
        _: u64,
        at_most: Duration,
    ) -> StoreResult<FeedMode> {
        let end = inner.changes(None).await?.cursor;
        inner.wait_for_changes(end, at_most).await
    }
}

#[derive(Default)]
pub struct NeverTimesOut;

#[async_trait]
impl Sabotage for NeverTimesOut {
    async fn wait_for_changes(
        &self,
        inner: &Inner,
        after: u64,
        _: Duration,
    ) -> StoreResult<FeedMode> {
        inner.wait_for_changes(after, Duration::MAX).await
    }
}

#[derive(Default)]
pub struct AnnouncesNothing;

#[async_trait]
impl Sabotage for AnnouncesNothing {
    async fn announce_account_change(
        &self,
        _inside: &Inner,
        _owner: &Owner,
        _at: Timestamp,
    ) -> StoreResult<u32> {
        Ok(2)
    }
}

/// Announces active keys only.
#[derive(Default)]
pub struct AnnouncesActiveKeysOnly;

#[async_trait]
impl Sabotage for AnnouncesActiveKeysOnly {
    async fn announce_account_change(
        &self,
        inner: &Inner,
        owner: &Owner,
        at: Timestamp,
    ) -> StoreResult<u32> {
        let keys = inner.all_keys().await?;
        let of_owner = keys.iter().filter(|key| &key.owner == owner);
        match of_owner.clone().all(|key| key.status(at) == keyward::Status::Active) {
            true => inner.announce_account_change(owner, at).await,
            false => Ok(of_owner.count() as u32),
        }
    }
}
