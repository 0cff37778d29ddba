use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::Semaphore;

use keyward::{Account, Accounts, Limits, Owner, accounts::AccountsError, model::Permissions};

/// A host whose accounts the test sets. An account that is not set has no limits.
#[derive(Clone)]
pub struct Host {
    accounts: Arc<Mutex<HashMap<Owner, Account>>>,
    down: Arc<Mutex<bool>>,
    /// Each answer takes one permit.
    gate: Arc<Semaphore>,
}

impl Host {
    pub fn set(&self, owner: &Owner, edit: impl FnOnce(&mut Account)) {
        let mut accounts = self.accounts.lock().unwrap();
        edit(accounts.entry(owner.clone()).or_insert_with(unlimited));
    }

    pub fn limit(&self, owner: &Owner, limits: Limits) {
        self.set(owner, |account| account.limits = limits);
    }

    pub fn fail(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    /// Holds answers until they are released.
    pub fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release(&self) {
        self.gate.add_permits(1_000);
    }
}

impl Default for Host {
    fn default() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { accounts: Arc::default(), down: Arc::default(), gate }
    }
}

#[async_trait::async_trait]
impl Accounts for Host {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
        self.gate.acquire().await.unwrap().forget();
        if *self.down.lock().unwrap() {
            return Err("the host's database is down".into());
        }
        let accounts = self.accounts.lock().unwrap();
        Ok(Arc::new(accounts.get(owner).cloned().unwrap_or_else(unlimited)))
    }
}

fn unlimited() -> Account {
    Account::new(Permissions::All, Limits::default())
}
