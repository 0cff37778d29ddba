//! A wrapper around a correct store. A sabotage overrides some methods; the rest delegate.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use keyward::{
    AuditEvent, AuditQuery, Key, KeyId, KeyStore, MemoryStore, Owner, OwnerScope, SecretDigest,
    Timestamp,
    store::{
        ChangeBatch, ChangeFeed, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, Counters,
        FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, OneTimeCode,
        OneTimeCodes, RevokeOutcome, RotateOutcome, RotateSecret, StoreClock, StoreError,
        UpdateOutcome, UsageHistory,
    },
    system::{Clock, SystemClock},
};

pub type StoreResult<T> = Result<T, StoreError>;

/// A correct store with a sabotage in front of it.
#[derive(Default)]
pub struct Sabotaged<S> {
    inner: Inner,
    sabotage: S,
}

impl<S> Sabotaged<S> {
    pub fn new(sabotage: S) -> Self {
        Self { inner: Inner::default(), sabotage }
    }
}

impl<S: Sabotage> Sabotaged<S> {
    pub async fn reopened(&self) {
        self.sabotage.reopened(&self.inner).await.unwrap();
    }
}

/// Overrides nothing.
#[derive(Default)]
pub struct NoSabotage;

impl Sabotage for NoSabotage {}

/// The correct store, with two additions for sabotages: keys can be modified when they are read, and
/// the owner of a key can be looked up by its id.
#[derive(Default)]
pub struct Inner {
    memory: MemoryStore,
    owners: Mutex<HashMap<KeyId, Owner>>,
    modifications: Mutex<Vec<(KeyId, Modification)>>,
}

type Modification = Box<dyn Fn(&mut Key) + Send>;

macro_rules! methods {
    ($($trait:ident { $($accessors:tt)* } {
        $($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*
    })*) => {
        /// The broken methods. A method that is not overridden is correct.
        #[async_trait]
        pub trait Sabotage: Send + Sync + 'static {
            $($(async fn $method(&self, inner: &Inner, $($name: $type),*) -> StoreResult<$answer> {
                inner.$method($($name),*).await
            })*)*

            /// Called when the storage is opened again.
            async fn reopened(&self, _: &Inner) -> StoreResult<()> {
                Ok(())
            }
        }

        $(#[async_trait]
        impl<S: Sabotage> $trait for Sabotaged<S> {
            $($accessors)*

            $(async fn $method(&self, $($name: $type),*) -> StoreResult<$answer> {
                self.sabotage.$method(&self.inner, $($name),*).await
            })*
        })*
    };
}

methods! {
    KeyStore {
        fn change_feed(&self) -> Option<&dyn ChangeFeed> {
            Some(self)
        }

        fn counters(&self) -> Option<&dyn Counters> {
            Some(self)
        }

        fn clock(&self) -> Option<&dyn StoreClock> {
            Some(self)
        }

        fn usage_history(&self) -> Option<&dyn UsageHistory> {
            Some(self)
        }

        fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
            Some(self)
        }
    } {
        insert(new: InsertKey<'_>) -> InsertOutcome;
        find(digests: &[SecretDigest]) -> Option<FoundKey>;
        get(within: OwnerScope<'_>, id: KeyId) -> Option<Arc<Key>>;
        list(query: &KeyQuery<'_>) -> Vec<Arc<Key>>;
        tenants(after: Option<&str>, limit: u32) -> Vec<String>;
        update(key: &Key, event: &AuditEvent) -> UpdateOutcome;
        rotate(rotate: RotateSecret<'_>) -> RotateOutcome;
        revoke(within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> RevokeOutcome;
        revoke_all(owner: &Owner, event: &AuditEvent) -> Vec<AuditEvent>;
        delete(within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> bool;
        purge_keys(before: Timestamp, limit: u32, event: &AuditEvent) -> Vec<AuditEvent>;
        record_uses(uses: &[KeyUse]) -> Vec<AuditEvent>;
        rehash(from: &SecretDigest, to: &SecretDigest) -> bool;
        record_events(events: &[AuditEvent]) -> u32;
        events(query: &AuditQuery<'_>) -> Vec<AuditEvent>;
        purge_events(before: Timestamp, limit: u32) -> u32;
    }

    ChangeFeed {} {
        changes(after: Option<u64>) -> ChangeBatch;
        wait_for_changes(after: u64, at_most: Duration) -> FeedMode;
        announce_account_change(owner: &Owner, at: Timestamp) -> u32;
        purge_changes(before: Timestamp) -> u32;
    }

    StoreClock {} {
        now() -> Timestamp;
    }

    UsageHistory {} {
        add_usage(usage: &[HourlyUsage]) -> ();
        hourly_usage(within: OwnerScope<'_>, id: KeyId, from: Timestamp) -> Vec<HourlyUsage>;
        purge_usage(before: Timestamp, limit: u32) -> u32;
    }

    Counters {} {
        charge(charges: &[CounterCharge<'_>]) -> ChargeOutcome;
        refund(charges: &[CounterCharge<'_>]) -> ();
        purge_counters(before: Timestamp, limit: u32) -> u32;
    }

    OneTimeCodes {} {
        put_code(address: &SecretDigest, code: &OneTimeCode) -> ();
        try_code(attempt: &CodeAttempt) -> CodeOutcome;
        purge_codes(before: Timestamp, limit: u32) -> u32;
    }
}

impl Deref for Inner {
    type Target = MemoryStore;

    fn deref(&self) -> &MemoryStore {
        &self.memory
    }
}

/// These methods hide those of `MemoryStore`.
impl Inner {
    pub async fn insert(&self, new: InsertKey<'_>) -> StoreResult<InsertOutcome> {
        let inserted = self.memory.insert(new).await?;
        if inserted == InsertOutcome::Inserted {
            self.owners.lock().unwrap().insert(new.key.id, new.key.owner.clone());
        }
        Ok(inserted)
    }

    pub async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> StoreResult<Option<Arc<Key>>> {
        Ok(self.memory.get(within, id).await?.map(|key| self.modified(key)))
    }

    pub async fn list(&self, query: &KeyQuery<'_>) -> StoreResult<Vec<Arc<Key>>> {
        Ok(self.memory.list(query).await?.into_iter().map(|key| self.modified(key)).collect())
    }

    pub async fn find(&self, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        let found = self.memory.find(digests).await?;
        Ok(found.map(|found| FoundKey { key: self.modified(found.key), ..found }))
    }

    pub async fn now(&self) -> StoreResult<Timestamp> {
        Ok(SystemClock.now())
    }

    /// Applies a modification to the key whenever it is read.
    pub fn modify_reads(&self, id: KeyId, modification: impl Fn(&mut Key) + Send + 'static) {
        self.modifications.lock().unwrap().push((id, Box::new(modification)));
    }

    pub fn owner_of(&self, id: KeyId) -> Option<Owner> {
        self.owners.lock().unwrap().get(&id).cloned()
    }

    /// Returns a key of any owner.
    pub async fn get_unscoped(&self, id: KeyId) -> StoreResult<Option<Arc<Key>>> {
        match self.owner_of(id) {
            Some(owner) => self.get((&owner).into(), id).await,
            None => Ok(None),
        }
    }

    /// Returns all keys, newest first.
    pub async fn all_keys(&self) -> StoreResult<Vec<Arc<Key>>> {
        let mut ids: Vec<KeyId> = self.owners.lock().unwrap().keys().copied().collect();
        ids.sort_by(|a, b| b.cmp(a));
        let mut keys = Vec::new();
        for id in ids {
            keys.extend(self.get_unscoped(id).await?);
        }
        Ok(keys)
    }

    fn modified(&self, mut key: Arc<Key>) -> Arc<Key> {
        for (id, modification) in self.modifications.lock().unwrap().iter() {
            if *id == key.id {
                modification(Arc::make_mut(&mut key));
            }
        }
        key
    }
}
