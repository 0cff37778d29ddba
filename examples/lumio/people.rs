//! The platform's people and their teams: a file that its servers share. A stand-in: a real service
//! has tables.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use keyward::{
    Account, Accounts, Limits, Owner,
    accounts::{AccountsError, Roles},
    key::{Invalid, Permissions},
    limits::Rate,
};
use serde::{Deserialize, Serialize};

use super::Refused;

/// Someone with an account, who is in one team.
#[derive(Clone, Deserialize, Serialize)]
pub struct Person {
    /// By the address of who began it.
    pub team: String,
    pub role: Role,
}

/// Who may hand out a role may hand out lower ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Member,
    Admin,
    Owner,
}

#[derive(Clone)]
pub struct People {
    folder: Arc<PathBuf>,
    roles: Roles<Role>,
}

pub type Everyone = BTreeMap<String, Person>;

impl People {
    pub fn new(folder: PathBuf) -> Result<Self, Invalid> {
        let roles = Roles::new()
            .role(Role::Owner, Permissions::All)
            .role(Role::Admin, Permissions::only(["deploy", "publish", "invite"])?)
            .role(Role::Member, Permissions::only(["deploy"])?);
        Ok(Self { folder: Arc::new(folder), roles })
    }

    pub fn everyone(&self) -> io::Result<Everyone> {
        match fs::read(self.folder.join("people.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Everyone::new()),
            Err(error) => Err(error),
        }
    }

    /// Changes them, one server at a time; whoever reads meanwhile sees what was before.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&mut Everyone) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let lock = File::create(self.folder.join("people.lock"))?;
        lock.lock()?;
        let mut everyone = self.everyone()?;
        let done = edit(&mut everyone)?;
        let new = self.folder.join("people.new");
        fs::write(&new, serde_json::to_vec(&everyone).map_err(io::Error::from)?)?;
        fs::rename(new, self.folder.join("people.json"))?;
        Ok(done)
    }

    pub fn may(&self, role: Role, power: &str) -> bool {
        self.roles.permissions(&[role]).allows(power)
    }
}

/// Who is in no team (any more) has no role, and so is suspended.
#[async_trait]
impl Accounts for People {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
        let role = self.everyone()?.get(owner.account()).map(|person| person.role);
        let limits = Limits::default().rate(Rate::per_minute(60));
        Ok(Arc::new(self.roles.account(&role, limits)))
    }
}
