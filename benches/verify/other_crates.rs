//! What a service would write with the other crates for API keys. They generate and check texts; the map, and the
//! policy that is checked, are the service's own. Here the map has the hashes only: no expiry, scope or rate.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use api_keys_simplified::{ApiKeyManagerV0, Environment, ExposeSecret, KeyStatus, SecureString};
use prefixed_api_key::{PrefixedApiKey, PrefixedApiKeyController, rand::rngs::OsRng};

type Controller = PrefixedApiKeyController<OsRng, prefixed_api_key::sha2::Sha256>;

/// `prefixed-api-key`: finds the hash by the short token of the text, and compares.
pub struct Prefixed {
    controller: Controller,
    hashes: RwLock<HashMap<String, Arc<str>>>,
    texts: Vec<String>,
}

impl Prefixed {
    pub fn new(count: usize) -> Self {
        let builder = PrefixedApiKeyController::configure().prefix("lc".into()).seam_defaults();
        let controller = builder.finalize().unwrap();
        let (mut hashes, mut texts) = (HashMap::new(), Vec::new());
        for _ in 0..count {
            let (key, hash) = controller.try_generate_key_and_hash().unwrap();
            hashes.insert(key.short_token().to_owned(), hash.into());
            texts.push(key.to_string());
        }
        Self { controller, hashes: hashes.into(), texts }
    }

    pub fn verify(&self, n: usize) -> bool {
        let Ok(key) = PrefixedApiKey::from_string(&self.texts[n]) else { return false };
        let Some(hash) = self.hashes.read().unwrap().get(key.short_token()).cloned() else {
            return false;
        };
        self.controller.check_hash(&key, &hash)
    }
}

/// `api-keys-simplified`: Argon2id, which is meant for passwords. Its hash has a salt, so the service has to know by
/// other means which hash to compare with.
pub struct Simplified {
    manager: ApiKeyManagerV0,
    text: SecureString,
    hash: String,
}

impl Simplified {
    pub fn new() -> Self {
        let manager = ApiKeyManagerV0::init_default_config("lc").unwrap();
        let key = manager.generate(Environment::production()).unwrap();
        let text = SecureString::from(key.key().expose_secret().to_owned());
        let hash = key.expose_hash().hash().to_owned();
        Self { manager, text, hash }
    }

    pub fn verify(&self) -> bool {
        matches!(self.manager.verify(&self.text, &self.hash), Ok(KeyStatus::Valid))
    }
}
