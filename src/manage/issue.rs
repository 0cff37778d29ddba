use std::{borrow::Cow, sync::Arc};

use sha2::Digest as _;

use super::{
    change::{check_within_actor, check_within_owner},
    manager::Manager,
};
use crate::{
    accounts::{Account, SensitiveChange},
    audit::EventKind,
    error::{Error, ErrorKind},
    model::{
        Access, Actor, Expiry, Invalid, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner,
        Timestamp, checked_text, one_line,
    },
    secret::{Secret, SecretDigest},
    store::{InsertKey, InsertOutcome},
    verify::Cache,
};

/// A key to be issued. By default it may do all that its owner may do, from any network, and does not expire.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewKey {
    /// The key, without what is set when it is issued: id, hint and dates.
    key: Key,
    expiry: Expiry,
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
        let key = Key {
            id: KeyId::from_bytes([0; 16]),
            owner: owner.clone(),
            name: Name::new(name)?,
            hint: String::new(),
            retiring: None,
            access: Access::default(),
            limits: KeyLimits::default(),
            networks: Networks::default(),
            metadata: Metadata::default(),
            created_at: Timestamp::MIN,
            expires_at: None,
            disabled_at: None,
            revoked: None,
            rotated_at: None,
            rotation_token: None,
            first_used_at: None,
            last_used_at: None,
            last_used_ip: None,
            revision: 0,
        };
        Ok(Self { key, expiry: Expiry::default() })
    }

    /// Sets what the key may do.
    pub fn access(mut self, access: Access) -> Self {
        self.key.access = access;
        self
    }

    /// Sets when the key expires.
    pub fn expiry(self, expiry: Expiry) -> Self {
        Self { expiry, ..self }
    }

    /// Sets how often the key may be used, within its owner's plan.
    pub fn limits(mut self, limits: KeyLimits) -> Self {
        self.key.limits = limits;
        self
    }

    /// Sets the networks that the key may be used from.
    pub fn networks(mut self, networks: Networks) -> Self {
        self.key.networks = networks;
        self
    }

    /// Sets the host's metadata.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.key.metadata = metadata;
        self
    }
}

#[cfg(feature = "manage")]
impl NewKey {
    /// Sets the token by which a retry of this issue is recognized. It is stored as a [`Rotation`](super::Rotation)'s
    /// token, so that the retry can replace the secret whose answer was lost.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.key.rotation_token = Some(token_hash(token));
        self
    }

    pub(crate) fn has_token_of(&self, key: &Key) -> bool {
        self.key.rotation_token.is_some() && self.key.rotation_token == key.rotation_token
    }

    /// Returns whether a key is the one that is asked for here, its dates aside.
    pub(crate) fn describes(&self, key: &Key) -> bool {
        let new = &self.key;
        (&new.owner, &new.name, &new.access) == (&key.owner, &key.name, &key.access)
            && (new.limits, &new.networks, &new.metadata)
                == (key.limits, &key.networks, &key.metadata)
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
        let invalid = |message: &'static str| Err(Error::new(ErrorKind::Invalid, message));
        if !self.hashers.accepts(digest.tag()) {
            return invalid("no hasher accepts this digest: build with `also_accept`");
        }
        let hints = self.formats.accepted().map(|format| format.hint_len);
        let longest = hints.fold(MAX_FOREIGN_HINT, usize::max);
        let hint = checked_text("hint", hint.trim(), longest)?;
        if self.formats.parse(hint).is_ok() {
            return invalid("the hint is the whole secret: pass its first characters only");
        }
        if let Cow::Owned(_) = one_line(hint) {
            return invalid("the hint contains characters that cannot be shown: remove them");
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
        let NewKey { key, expiry } = new;
        let owner = key.owner.clone();
        let check = |account: &Account| {
            let event = self.event(kind, by)?;
            let (id, created_at) = (self.ids.key_id(event.at)?, event.at);
            let expires_at = expiry.resolve(created_at);
            let key = Arc::new(Key { id, hint, created_at, expires_at, ..key });
            check_new_key(&key, account, by)?;
            Ok((event.of_key(&key), key, account.limits.active_keys()))
        };
        let (event, key, max_active) = self.authorize_change(&owner, by, change, check).await?;
        let (store, inserted) = (self.store.clone(), key.clone());
        let write = async move {
            let insert = InsertKey { key: &inserted, digest: &digest, max_active, event: &event };
            let outcome = store.insert(insert).await?;
            Ok((outcome, (outcome == InsertOutcome::Inserted).then_some(event)))
        };
        match self.change(Cache::invalidate_unknown, write).await? {
            InsertOutcome::Inserted => Ok(key),
            InsertOutcome::LimitReached => Err(Error::limit_reached(max_active)),
            InsertOutcome::DigestTaken => {
                let message = "a key with this secret exists already: it was imported before";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }
}

/// Checks a new key against its owner's permissions and plan, and against its actor.
fn check_new_key(key: &Key, account: &Account, by: &Actor) -> Result<(), Error> {
    let now = key.created_at;
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
