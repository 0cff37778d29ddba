//! Keys in every state, with a store and a hasher that count their calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use keyward::{
    Access, ApiKeys, Hasher, SecretDigest, Sha256Hasher,
    http::{Guard, GuardBuilder},
    manage::Issued,
    model::{KeyLimits, Quota, Rate},
    secret::HasherTag,
};

use crate::{
    cache::faulty_store::FaultyStore,
    support::{DAY, Service, stores},
};

pub struct World {
    pub service: Service,
    pub store: FaultyStore,
    hashes: Arc<AtomicUsize>,
}

struct Counting(Arc<AtomicUsize>);

impl Hasher for Counting {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.0.fetch_add(1, Ordering::SeqCst);
        Sha256Hasher.digest(presented)
    }

    fn tag(&self) -> HasherTag {
        Sha256Hasher.tag()
    }
}

impl World {
    pub fn new() -> Self {
        let (store, hashes) = (FaultyStore::new(stores::memory().remove(0)), Arc::default());
        let service = Service::with(vec![Arc::new(store.clone())], |builder| {
            builder.hasher(Counting(Arc::clone(&hashes)))
        });
        Self { service, store, hashes }
    }

    pub fn keys(&self) -> &ApiKeys {
        self.service.keys()
    }

    pub fn guard(&self) -> Guard {
        Guard::new(self.keys().clone())
    }

    pub fn guard_builder(&self) -> GuardBuilder {
        Guard::builder(self.keys().clone())
    }

    /// Returns the number of hashed secrets and of lookups in the store.
    pub fn work(&self) -> (usize, usize) {
        (self.hashes.load(Ordering::SeqCst), self.store.finds())
    }

    pub async fn reader(&self) -> String {
        text(&self.service.issue_with(Access::only(["builds:read"]).unwrap()).await)
    }

    pub async fn limited(&self, rate: Rate) -> String {
        let limits = KeyLimits { rate: Some(rate), ..KeyLimits::default() };
        let new = self.service.new_key().limits(limits);
        text(&self.keys().issue(new, &self.service.actor).await.unwrap())
    }

    pub async fn metered(&self, quota: Quota) -> String {
        let limits = KeyLimits { quota: Some(quota), ..KeyLimits::default() };
        let new = self.service.new_key().limits(limits);
        text(&self.keys().issue(new, &self.service.actor).await.unwrap())
    }

    pub async fn revoked(&self) -> String {
        let (issued, owner, by) =
            (self.service.issue().await, &self.service.owner, &self.service.actor);
        self.keys().revoke(owner, issued.key.id, "", by).await.unwrap();
        text(&issued)
    }

    pub async fn disabled(&self) -> String {
        let (issued, owner, by) =
            (self.service.issue().await, &self.service.owner, &self.service.actor);
        self.keys().disable(owner, issued.key.id, by).await.unwrap();
        text(&issued)
    }

    pub async fn expired(&self) -> String {
        let new = self.service.new_key().expiry(keyward::model::Expiry::days(1));
        let issued = self.keys().issue(new, &self.service.actor).await.unwrap();
        self.service.clock.advance(DAY);
        text(&issued)
    }

    /// Returns a well-formed secret that was never issued.
    pub fn unknown(&self) -> String {
        self.keys().formats().current().generate().unwrap().expose().to_owned()
    }
}

pub fn text(issued: &Issued) -> String {
    issued.secret.expose().to_owned()
}
