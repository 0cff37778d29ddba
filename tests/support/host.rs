use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use keyward::{Account, Accounts, Limits, Owner, accounts::AccountsError, model::Permissions};

/// A host whose accounts the test sets. An account that is not set has no limits.
#[derive(Clone, Default)]
pub struct Host {
    accounts: Arc<Mutex<HashMap<Owner, Account>>>,
    down: Arc<Mutex<bool>>,
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
}

#[async_trait::async_trait]
impl Accounts for Host {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
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
