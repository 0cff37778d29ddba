//! An honest store with one method broken: a sabotage overrides that one, and the rest delegates.

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
        ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, FeedMode, FoundKey,
        HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyUse, OneTimeCode, RevokeOutcome,
        RotateOutcome, RotateSecret, StoreError, UpdateOutcome,
    },
};

pub type Answer<T> = Result<T, StoreError>;

/// A store with a sabotage in front of what is inside.
#[derive(Default)]
pub struct Sabotaged<S> {
    inside: Inside,
    sabotage: S,
}

/// No sabotage at all.
#[derive(Default)]
pub struct Honest;

impl Sabotage for Honest {}

/// The honest store, with what a sabotage needs besides: a way to say what a key looks like, and
/// to whom it belongs, which no honest store tells.
#[derive(Default)]
pub struct Inside {
    memory: MemoryStore,
    owners: Mutex<HashMap<KeyId, Owner>>,
    forgeries: Mutex<Vec<(KeyId, Forgery)>>,
}

type Forgery = Box<dyn Fn(&mut Key) + Send>;

macro_rules! methods {
    ($($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {
        /// What is broken; whatever is not overridden is honest.
        #[async_trait]
        pub trait Sabotage: Send + Sync + 'static {
            $(async fn $method(&self, inside: &Inside, $($name: $type),*) -> Answer<$answer> {
                inside.$method($($name),*).await
            })*
        }

        #[async_trait]
        impl<S: Sabotage> KeyStore for Sabotaged<S> {
            $(async fn $method(&self, $($name: $type),*) -> Answer<$answer> {
                self.sabotage.$method(&self.inside, $($name),*).await
            })*
        }
    };
}

methods! {
    insert(new: InsertKey<'_>) -> InsertOutcome;
    find(digests: &[SecretDigest]) -> Option<FoundKey>;
    get(within: OwnerScope<'_>, id: KeyId) -> Option<Arc<Key>>;
    list(query: &KeyQuery<'_>) -> Vec<Arc<Key>>;
    tenants(after: Option<&str>, limit: u32) -> Vec<String>;
    update(key: &Key, event: &AuditEvent) -> UpdateOutcome;
    rotate(rotate: RotateSecret<'_>) -> RotateOutcome;
    revoke(within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> RevokeOutcome;
    revoke_all(owner: &Owner, event: &AuditEvent) -> Vec<AuditEvent>;
    announce_account_change(owner: &Owner, at: Timestamp) -> u32;
    delete(within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> bool;
    purge_keys(before: Timestamp, limit: u32, event: &AuditEvent) -> Vec<AuditEvent>;
    record_uses(uses: &[KeyUse]) -> Vec<AuditEvent>;
    rehash(from: &SecretDigest, to: &SecretDigest) -> bool;
    record_events(events: &[AuditEvent]) -> ();
    events(query: &AuditQuery<'_>) -> Vec<AuditEvent>;
    purge_events(before: Timestamp, limit: u32) -> u32;
    changes(after: Option<u64>) -> ChangeBatch;
    wait_for_changes(after: u64, at_most: Duration) -> FeedMode;
    purge_changes(before: Timestamp) -> u32;
    add_usage(tallies: &[HourlyUsage]) -> ();
    usage_history(within: OwnerScope<'_>, id: KeyId, from: Timestamp) -> Vec<HourlyUsage>;
    purge_usage(before: Timestamp, limit: u32) -> u32;
    charge(charges: &[CounterCharge<'_>]) -> ChargeOutcome;
    refund(charges: &[CounterCharge<'_>]) -> ();
    put_code(address: &SecretDigest, code: &OneTimeCode) -> ();
    try_code(guess: &CodeAttempt) -> CodeOutcome;
    purge_codes(before: Timestamp, limit: u32) -> u32;
}

impl Deref for Inside {
    type Target = MemoryStore;

    fn deref(&self) -> &MemoryStore {
        &self.memory
    }
}

/// These four stand before those of the store in memory.
impl Inside {
    pub async fn insert(&self, new: InsertKey<'_>) -> Answer<InsertOutcome> {
        let inserted = self.memory.insert(new).await?;
        if inserted == InsertOutcome::Inserted {
            self.owners.lock().unwrap().insert(new.key.id, new.key.owner.clone());
        }
        Ok(inserted)
    }

    pub async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Answer<Option<Arc<Key>>> {
        Ok(self.memory.get(within, id).await?.map(|key| self.forged(key)))
    }

    pub async fn list(&self, query: &KeyQuery<'_>) -> Answer<Vec<Arc<Key>>> {
        Ok(self.memory.list(query).await?.into_iter().map(|key| self.forged(key)).collect())
    }

    pub async fn find(&self, digests: &[SecretDigest]) -> Answer<Option<FoundKey>> {
        let found = self.memory.find(digests).await?;
        Ok(found.map(|found| FoundKey { key: self.forged(found.key), ..found }))
    }

    /// From now on, whoever reads the key sees it so.
    pub fn forge(&self, id: KeyId, forgery: impl Fn(&mut Key) + Send + 'static) {
        self.forgeries.lock().unwrap().push((id, Box::new(forgery)));
    }

    pub fn owner_of(&self, id: KeyId) -> Option<Owner> {
        self.owners.lock().unwrap().get(&id).cloned()
    }

    /// A key as it is stored, whoever it belongs to.
    pub async fn any(&self, id: KeyId) -> Answer<Option<Arc<Key>>> {
        match self.owner_of(id) {
            Some(owner) => self.get((&owner).into(), id).await,
            None => Ok(None),
        }
    }

    /// All keys, newest first.
    pub async fn all(&self) -> Answer<Vec<Arc<Key>>> {
        let mut ids: Vec<KeyId> = self.owners.lock().unwrap().keys().copied().collect();
        ids.sort_by(|a, b| b.cmp(a));
        let mut keys = Vec::new();
        for id in ids {
            keys.extend(self.any(id).await?);
        }
        Ok(keys)
    }

    fn forged(&self, mut key: Arc<Key>) -> Arc<Key> {
        for (id, forgery) in self.forgeries.lock().unwrap().iter() {
            if *id == key.id {
                forgery(Arc::make_mut(&mut key));
            }
        }
        key
    }
}
