//! The platform's people, their teams and who has signed in: a file that its servers share. A stand-in: a
//! real service has tables.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use axum::http::StatusCode;
use keyward::{
    Account, Accounts, Actor, Limits, Owner,
    accounts::{AccountsError, Roles, SensitiveChange, StepUp, StepUpError},
    enroll::EmailAddress,
    model::{Invalid, Permissions, Rate},
};
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::{Passkey, Uuid};

use super::Refused;

/// Someone with an account, who is in one team.
#[derive(Clone, Deserialize, Serialize)]
pub struct Person {
    pub email: String,
    /// By the account that began it.
    pub team: String,
    pub role: Role,
    /// Whether they have published something that costs.
    pub sells: bool,
    pub totp: Option<String>,
    pub passkeys: Vec<Passkey>,
}

impl Person {
    pub fn has_a_factor(&self) -> bool {
        self.totp.is_some() || !self.passkeys.is_empty()
    }
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

/// All that is in the file.
#[derive(Default, Deserialize, Serialize)]
pub struct Everyone {
    /// By their account. Who comes back by an old address has a new one: neither keys nor sessions nor a
    /// team come back.
    pub people: BTreeMap<String, Person>,
    /// By a hash of the token in the browser's cookie.
    pub sessions: BTreeMap<String, SignedIn>,
}

#[derive(Clone, Deserialize, Serialize)]
pub struct SignedIn {
    pub account: String,
    /// When the second factor was checked, in microseconds.
    pub confirmed_at: Option<i64>,
}

impl Everyone {
    /// An account in this team, or with a team of its own.
    pub fn admit(
        &mut self,
        email: &str,
        team: Option<String>,
        role: Role,
    ) -> Result<StatusCode, Refused> {
        let email = email.parse::<EmailAddress>();
        let email = email.map_err(|_| Refused(StatusCode::UNPROCESSABLE_ENTITY, "no_address"))?;
        let email = email.as_str().to_owned();
        if self.account(&email).is_some() {
            return Err(Refused(StatusCode::CONFLICT, "has_an_account"));
        }
        let account = Uuid::new_v4().to_string();
        let team = team.unwrap_or_else(|| account.clone());
        let person = Person { email, team, role, sells: false, totp: None, passkeys: Vec::new() };
        self.people.insert(account, person);
        Ok(StatusCode::CREATED)
    }

    /// Whose address this is.
    pub fn account(&self, email: &str) -> Option<(&String, &Person)> {
        let email: EmailAddress = email.parse().ok()?;
        self.people.iter().find(|(_, person)| person.email == email.as_str())
    }
}

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
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Everyone::default()),
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
        let role = self.everyone()?.people.get(owner.account()).map(|person| person.role);
        let limits = Limits::default().rate(Rate::per_minute(60));
        Ok(Arc::new(self.roles.account(&role, limits)))
    }
}

/// Who sells makes and rotates keys with a fresh second factor only.
#[async_trait]
impl StepUp for People {
    async fn max_age(
        &self,
        owner: &Owner,
        _: &Actor,
        _: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError> {
        let sells = self.everyone()?.people.get(owner.account()).is_some_and(|person| person.sells);
        Ok(sells.then_some(FRESH))
    }
}

/// A quarter of an hour.
pub const FRESH: Duration = Duration::from_secs(900);
