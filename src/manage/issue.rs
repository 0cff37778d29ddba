use std::{borrow::Cow, sync::Arc};

use sha2::Digest as _;

use super::{
    authorize_change::{check_within_actor, check_within_owner},
    change::{Affected, Written},
    manager::Manager,
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, EventKind},
    error::{Error, ErrorKind},
    model::{
        Access, Actor, Expiry, Invalid, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner,
        Timestamp, checked_text, one_line,
    },
    secret::{Secret, SecretDigest},
    store::{InsertKey, InsertOutcome},
};

/// A key to be issued. By default it may do all that its owner may do, from any network, and does not expire.
///
/// # Examples
/// ```
/// use keyward::{Access, Expiry, NewKey, Owner};
///
/// let ada = Owner::new("acme", "ada")?;
/// let new = NewKey::new(&ada, "ci-pipeline")?
///     .access(Access::only(["builds:read"])?)
///     .expiry(Expiry::DAYS_90);
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct NewKey {
    owner: Owner,
    name: Name,
    access: Access,
    expiry: Expiry,
    limits: KeyLimits,
    networks: Networks,
    metadata: Metadata,
    token: Option<[u8; 32]>,
}

/// A key and its secret.
#[derive(Clone, Debug)]
#[must_use = "the secret cannot be shown again"]
pub struct Issued {
    /// The key.
    pub key: Arc<Key>,
    /// The secret that the client presents. It is not stored and cannot be shown again.
    pub secret: Secret,
}

impl NewKey {
    /// Creates a key of an owner, with a name for people.
    ///
    /// # Errors
    /// If the name is empty, longer than 100 characters, or contains a NUL.
    pub fn new(owner: &Owner, name: &str) -> Result<Self, Invalid> {
        Ok(Self {
            owner: owner.clone(),
            name: Name::new(name)?,
            access: Access::default(),
            expiry: Expiry::default(),
            limits: KeyLimits::default(),
            networks: Networks::default(),
            metadata: Metadata::default(),
            token: None,
        })
    }

    /// Sets what the key may do.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets when the key expires.
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Sets how often the key may be used, within its owner's plan.
    pub fn limits(mut self, limits: KeyLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the networks that the key may be used from.
    pub fn networks(mut self, networks: Networks) -> Self {
        self.networks = networks;
        self
    }

    /// Sets the host's metadata.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}

#[cfg(feature = "manage")]
impl NewKey {
    /// Sets the token by which a retry of this issue is recognized. It is stored as a [`Rotation`](super::Rotation)'s
    /// token, so that the retry can replace the secret whose answer was lost.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token_hash(token));
        self
    }

    pub(crate) fn has_token_of(&self, key: &Key) -> bool {
        self.token.is_some() && self.token == key.rotation_token
    }

    /// Returns whether a key is the one that is asked for here, its dates aside.
    pub(crate) fn describes(&self, key: &Key) -> bool {
        let Self { owner, name, access, limits, networks, metadata, expiry: _, token: _ } = self;
        (owner, name, access) == (&key.owner, &key.name, &key.access)
            && (limits, networks, metadata) == (&key.limits, &key.networks, &key.metadata)
    }
}

pub(super) fn token_hash(token: &str) -> [u8; 32] {
    sha2::Sha256::digest(token).into()
}

impl Manager {
    pub(crate) async fn issue(&self, new: NewKey, by: &Actor) -> Result<Issued, Error> {
        let secret = self.formats.current().generate()?;
        let digest = self.hashers.digest(secret.expose().as_bytes());
        let hint = self.formats.hint(&secret);
        let key = self.insert(new, digest, hint, EventKind::Created, by).await?;
        Ok(Issued { key, secret })
    }

    pub(crate) async fn import(
        &self,
        new: NewKey,
        digest: SecretDigest,
        hint: &str,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        if !self.hashers.accepts(digest.tag()) {
            let message = "no hasher accepts this digest: build with `also_accept`";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let hints = self.formats.accepted().map(|format| format.hint_len);
        let longest = hints.fold(MAX_FOREIGN_HINT, usize::max);
        let hint = checked_text("hint", hint.trim(), longest)?;
        if self.formats.parse(hint).is_ok() {
            let message = "the hint is the whole secret: pass its first characters only";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Cow::Owned(_) = one_line(hint) {
            let message = "the hint contains characters that cannot be shown: remove them";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.insert(new, digest, hint.into(), EventKind::Imported, by).await
    }

    async fn insert(
        &self,
        new: NewKey,
        digest: SecretDigest,
        hint: String,
        kind: EventKind,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        let change = match kind {
            EventKind::Imported => SensitiveChange::Import,
            _ => SensitiveChange::Issue,
        };
        let owner = new.owner.clone();
        let check = |account: &Account| {
            let now = self.clock.now();
            let key = Arc::new(new.into_key(self.ids.key_id(now)?, hint, now));
            check_new_key(&key, account, by, now)?;
            Ok((key, account.limits.active_keys()))
        };
        let (key, max_active) = self.authorize_change(&owner, by, change, check).await?;
        let at = key.created_at;
        let event = AuditEvent::of(self.ids.event_id(at)?, at, kind, &key, by);
        let (store, inserted) = (self.store.clone(), key.clone());
        let write = async move {
            let insert = InsertKey { key: &inserted, digest: &digest, max_active, event: &event };
            match store.insert(insert).await? {
                InsertOutcome::Inserted => Ok(Written::with_event(InsertOutcome::Inserted, event)),
                refused => Ok(Written::nothing(refused)),
            }
        };
        match self.change(Affected::UnknownDigests, write).await? {
            InsertOutcome::Inserted => Ok(key),
            InsertOutcome::LimitReached => Err(Error::limit_reached(max_active)),
            InsertOutcome::DigestTaken => {
                let message = "a key with this secret exists already: it was imported before";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }
}

impl NewKey {
    fn into_key(self, id: KeyId, hint: String, now: Timestamp) -> Key {
        let Self { owner, name, access, expiry, limits, networks, metadata, token } = self;
        Key {
            id,
            owner,
            name,
            hint,
            retiring: None,
            access,
            limits,
            networks,
            metadata,
            created_at: now,
            expires_at: expiry.resolve(now),
            disabled_at: None,
            revoked: None,
            rotated_at: None,
            rotation_token: token,
            first_used_at: None,
            last_used_at: None,
            last_used_ip: None,
            revision: 0,
        }
    }
}

/// Checks a new key against its owner's permissions and plan, and against its actor.
fn check_new_key(key: &Key, account: &Account, by: &Actor, now: Timestamp) -> Result<(), Error> {
    check_within_owner(key, account)?;
    check_within_actor(key, by)?;
    if key.expires_at.is_some_and(|end| end <= now) {
        let message = "the expiry is not in the future: choose a later one";
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    match account.limits.lifetime() {
        Some(longest) if key.expires_at.is_none_or(|end| end > now.after(longest)) => {
            Err(Error::lives_too_long(longest))
        }
        _ => Ok(()),
    }
}

/// The longest hint of a key whose format is not known: too short to be a whole secret.
const MAX_FOREIGN_HINT: usize = 24;
