//! Users, teams and sessions, in a JSON file that all servers share. A real service uses its database.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::http::StatusCode;
use keyward::async_trait;
use keyward::{
    Account, Accounts, Actor, Limits, Owner,
    accounts::{AccountsError, Roles, SensitiveChange, StepUp, StepUpError},
    enroll::EmailAddress,
    model::{Invalid, Permissions, Rate},
};
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::{Passkey, Uuid};

use super::ApiError;

/// A user. Each user is a member of one team.
#[derive(Clone, Deserialize, Serialize)]
pub struct User {
    pub email: String,
    /// The id of the account that created the team.
    pub team: String,
    pub role: Role,
    /// Whether the user has published a paid extension. Then all members of the team need a second factor.
    pub has_paid_extension: bool,
    pub totp: Option<String>,
    pub passkeys: Vec<Passkey>,
}

impl User {
    pub fn has_second_factor(&self) -> bool {
        self.totp.is_some() || !self.passkeys.is_empty()
    }
}

/// Ordered: a user who may grant a role may also grant lower roles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Member,
    Admin,
    Owner,
}

#[derive(Clone)]
pub struct UserStore {
    folder: Arc<PathBuf>,
    roles: Roles<Role>,
}

/// The contents of the file.
#[derive(Default, Deserialize, Serialize)]
pub struct UserData {
    /// Users by account id. A deleted user who signs up again gets a new account: old keys, sessions and
    /// teams are not restored.
    pub users: BTreeMap<String, User>,
    /// Sessions by the hash of the token in the cookie.
    pub sessions: BTreeMap<String, StoredSession>,
}

#[derive(Clone, Deserialize, Serialize)]
pub struct StoredSession {
    pub account: String,
    /// When the second factor was verified, as Unix time in microseconds.
    pub confirmed_at: Option<i64>,
}

impl UserData {
    /// Creates a user in this team, or in a new team.
    pub fn create_user(
        &mut self,
        email: &str,
        team: Option<String>,
        role: Role,
    ) -> Result<StatusCode, ApiError> {
        let email = email.parse::<EmailAddress>();
        let email = email.map_err(|_| ApiError(StatusCode::UNPROCESSABLE_ENTITY, "no_address"))?;
        let email = email.as_str().to_owned();
        if self.account(&email).is_some() {
            return Err(ApiError(StatusCode::CONFLICT, "has_an_account"));
        }
        let account = Uuid::new_v4().to_string();
        let team = team.unwrap_or_else(|| account.clone());
        let user =
            User { email, team, role, has_paid_extension: false, totp: None, passkeys: Vec::new() };
        self.users.insert(account, user);
        Ok(StatusCode::CREATED)
    }

    /// Finds the account with this email address.
    pub fn account(&self, email: &str) -> Option<(&String, &User)> {
        let email: EmailAddress = email.parse().ok()?;
        self.users.iter().find(|(_, user)| user.email == email.as_str())
    }
}

impl UserData {
    /// Returns whether sensitive changes of an account need a recent second factor.
    pub fn needs_step_up(&self, account: &str) -> bool {
        let team = self.users.get(account).map(|user| &user.team);
        self.users.values().any(|user| user.has_paid_extension && Some(&user.team) == team)
    }
}

impl UserStore {
    pub fn new(folder: PathBuf) -> Result<Self, Invalid> {
        let roles = Roles::new()
            .role(Role::Owner, Permissions::All)
            .role(Role::Admin, Permissions::only(["deploy", "publish", "invite"])?)
            .role(Role::Member, Permissions::only(["deploy"])?);
        Ok(Self { folder: Arc::new(folder), roles })
    }

    pub fn load(&self) -> io::Result<UserData> {
        match fs::read(self.folder.join("users.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(UserData::default()),
            Err(error) => Err(error),
        }
    }

    /// Edits the file under an exclusive lock. Concurrent readers see the old contents.
    pub fn update<T>(
        &self,
        edit: impl FnOnce(&mut UserData) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let lock = File::create(self.folder.join("users.lock"))?;
        lock.lock()?;
        let mut data = self.load()?;
        let result = edit(&mut data)?;
        let new = self.folder.join("users.json.new");
        let mut file = create_private(&new)?;
        file.write_all(&serde_json::to_vec(&data).map_err(io::Error::from)?)?;
        fs::rename(new, self.folder.join("users.json"))?;
        Ok(result)
    }

    pub fn allows(&self, role: Role, permission: &str) -> bool {
        self.roles.permissions(&[role]).allows(permission)
    }
}

/// Creates a file that only this user may read: it has the secrets of second factors. One that was left behind is
/// replaced, because it keeps its mode.
fn create_private(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A user without a team has no role, so the account is suspended.
#[async_trait]
impl Accounts for UserStore {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
        let role = self.load()?.users.get(owner.account()).map(|user| user.role);
        let limits = Limits::default().rate(Rate::per_minute(60));
        Ok(Arc::new(self.roles.account(&role, limits)))
    }
}

/// Teams that publish paid extensions need a recent second factor to create or rotate keys: all of their members, so
/// that no one gets around it by inviting another one.
#[async_trait]
impl StepUp for UserStore {
    async fn max_age(
        &self,
        owner: &Owner,
        _: &Actor,
        _: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError> {
        Ok(self.load()?.needs_step_up(owner.account()).then_some(STEP_UP_MAX_AGE))
    }
}

/// How recent a second factor must be: 15 minutes.
pub const STEP_UP_MAX_AGE: Duration = Duration::from_secs(900);
