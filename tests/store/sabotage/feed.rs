use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    Key, KeyId, KeyStore, Owner, OwnerScope, Timestamp,
    store::{ChangeBatch, FeedMode, InsertKey, InsertOutcome, RotateOutcome, RotateSecret},
};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct DropsChanges {
    rotated: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for DropsChanges {
    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        self.rotated.lock().unwrap().insert(rotate.key.id);
        inside.rotate(rotate).await
    }

    async fn changes(&self, inside: &Inside, after: Option<u64>) -> Answer<ChangeBatch> {
        let mut changes = inside.changes(after).await?;
        let rotated = self.rotated.lock().unwrap();
        changes.keys.retain(|id| !rotated.contains(id));
        Ok(changes)
    }
}

#[derive(Default)]
pub struct BeginsAtTheStart;

#[async_trait]
impl Sabotage for BeginsAtTheStart {
    async fn changes(&self, inside: &Inside, after: Option<u64>) -> Answer<ChangeBatch> {
        inside.changes(Some(after.unwrap_or(0))).await
    }
}

/// Numbers its entries when a transaction begins. One that commits after a reader has passed its
/// number is never read.
#[derive(Default)]
pub struct CommitsOutOfOrder {
    open: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for CommitsOutOfOrder {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.open.lock().unwrap().insert(new.key.id);
        let inserted = inside.insert(new).await;
        tokio::task::yield_now().await;
        self.open.lock().unwrap().remove(&new.key.id);
        inserted
    }

    async fn changes(&self, inside: &Inside, after: Option<u64>) -> Answer<ChangeBatch> {
        // As of one instant: what is still open now is not seen, though its number is passed.
        let open = self.open.lock().unwrap().clone();
        let mut changes = inside.changes(after).await?;
        changes.keys.retain(|id| !open.contains(id));
        Ok(changes)
    }
}

/// Tells of a change on another connection than the one that makes it.
#[derive(Default)]
pub struct TellsBeforehand {
    untold: Mutex<HashSet<KeyId>>,
}

#[async_trait]
impl Sabotage for TellsBeforehand {
    async fn insert(&self, inside: &Inside, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        self.untold.lock().unwrap().insert(new.key.id);
        let inserted = inside.insert(new).await;
        tokio::task::yield_now().await;
        self.untold.lock().unwrap().remove(&new.key.id);
        inserted
    }

    async fn get(
        &self,
        inside: &Inside,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Answer<Option<Arc<Key>>> {
        if self.untold.lock().unwrap().contains(&id) {
            return Ok(None);
        }
        inside.get(within, id).await
    }
}

#[derive(Default)]
pub struct NeverSaysMore;

#[async_trait]
impl Sabotage for NeverSaysMore {
    async fn changes(&self, inside: &Inside, after: Option<u64>) -> Answer<ChangeBatch> {
        Ok(ChangeBatch { more: false, ..inside.changes(after).await? })
    }
}

#[derive(Default)]
pub struct NeverSaysMissed;

#[async_trait]
impl Sabotage for NeverSaysMissed {
    async fn changes(&self, inside: &Inside, after: Option<u64>) -> Answer<ChangeBatch> {
        Ok(ChangeBatch { missed: false, ..inside.changes(after).await? })
    }
}

/// Looks once, and then sleeps until the end.
#[derive(Default)]
pub struct SleepsThrough;

#[async_trait]
impl Sabotage for SleepsThrough {
    async fn wait_for_changes(
        &self,
        inside: &Inside,
        after: u64,
        at_most: Duration,
    ) -> Answer<FeedMode> {
        if inside.changes(Some(after)).await?.keys.is_empty() {
            tokio::time::sleep(at_most).await;
        }
        Ok(FeedMode::Pushed)
    }
}

/// As a subscription whose subscriber does not look at what was there before.
#[derive(Default)]
pub struct HearsOnlyWhatIsNew;

#[async_trait]
impl Sabotage for HearsOnlyWhatIsNew {
    async fn wait_for_changes(
        &self,
        inside: &Inside,
        _: u64,
        at_most: Duration,
    ) -> Answer<FeedMode> {
        let end = inside.changes(None).await?.cursor;
        inside.wait_for_changes(end, at_most).await
    }
}

#[derive(Default)]
pub struct WaitsForEver;

#[async_trait]
impl Sabotage for WaitsForEver {
    async fn wait_for_changes(&self, inside: &Inside, after: u64, _: Duration) -> Answer<FeedMode> {
        inside.wait_for_changes(after, Duration::MAX).await
    }
}

#[derive(Default)]
pub struct AnnouncesNothing;

#[async_trait]
impl Sabotage for AnnouncesNothing {
    async fn announce_account_change(
        &self,
        _inside: &Inside,
        _owner: &Owner,
        _at: Timestamp,
    ) -> Answer<u32> {
        Ok(2)
    }
}
