use std::{borrow::Cow, sync::Arc};

use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, EventKind},
    model::{
        Access, Actor, Expiry, Invalid, Key, KeyLimits, Metadata, Name, Networks, Owner, Timestamp,
        checked_text, one_line,
    },
    secret::{Secret, SecretDigest},
    store::{InsertKey, InsertOutcome},
};
use crate::{
    api::ApiKeys,
    error::{Error, ErrorKind},
    manage::change::{Done, Touches},
};

/// What a key to be issued shall be. Unless told otherwise it may do all that its owner may do,
/// from anywhere, and does not expire.
///
/// # Examples
/// ```
/// use keyward::{Access, Expiry, Owner, manage::NewKey};
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

/// A key and the secret that was made for it.
#[derive(Clone, Debug)]
#[must_use = "the secret cannot be shown again"]
pub struct Issued {
    /// The key.
    pub key: Arc<Key>,
    /// What the client has to present. This is the one time that it is known.
    pub secret: Secret,
}

impl NewKey {
    /// A key for an owner, with a name for people.
    ///
    /// # Errors
    /// If the name is empty, longer than 100 characters, or holds a NUL.
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

    /// What it may do.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// When it stops by itself.
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// How often it may be used, within its owner's plan.
    pub fn limits(mut self, limits: KeyLimits) -> Self {
        self.limits = limits;
        self
    }

    /// From where it may be used.
    pub fn networks(mut self, networks: Networks) -> Self {
        self.networks = networks;
        self
    }

    /// What to remember with it.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}

#[cfg(feature = "manage")]
impl NewKey {
    /// What making this key again is known by: as a [`Rotation`](crate::manage::rotate::Rotation)'s token, which
    /// then replaces the secret that nobody received.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(crate::manage::rotate::hashed(token));
        self
    }

    pub(crate) fn has_token_of(&self, key: &Key) -> bool {
        self.token.is_some() && self.token == key.rotation_token
    }

    /// Whether a key is what is asked for here, its dates aside.
    pub(crate) fn describes(&self, key: &Key) -> bool {
        let Self { owner, name, access, limits, networks, metadata, .. } = self;
        (owner, name, access) == (&key.owner, &key.name, &key.access)
            && (limits, networks, metadata) == (&key.limits, &key.networks, &key.metadata)
    }
}

impl ApiKeys {
    /// Issues a key. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`LimitReached`](ErrorKind::LimitReached) if the owner has as many live keys as its plan
    /// allows; [`Forbidden`](ErrorKind::Forbidden) if the key would reach further than the owner or
    /// the actor, or live longer than the plan allows; [`Suspended`](ErrorKind::Suspended);
    /// [`Invalid`](ErrorKind::Invalid) if the expiry is not in the future;
    /// [`SecondFactorRequired`](ErrorKind::SecondFactorRequired) if the host's policy demands one; and
    /// what stores, accounts and policy have to say when they fail.
    pub async fn issue(&self, new: NewKey, by: &Actor) -> Result<Issued, Error> {
        let (formats, hashers) = (&self.inner.formats, &self.inner.hashers);
        let secret = formats.current().generate()?;
        let digest = hashers.digest(secret.expose().as_bytes());
        let hint = formats.hint(&secret);
        let key = self.add(new, digest, hint, EventKind::Created, by).await?;
        Ok(Issued { key, secret })
    }

    /// Takes over a key of another system, of which only the hash is known. Its secret must have a
    /// format, and its digest be made by a hasher, that this `ApiKeys` accepts. `hint` is what
    /// people shall see of the secret: its first characters.
    ///
    /// Import each key once, before it is used here: its first use moves it to the current hasher,
    /// and nobody can tell from the old hash that it is the same secret.
    ///
    /// # Errors
    /// As [`issue`](ApiKeys::issue), and [`AlreadyExists`](ErrorKind::AlreadyExists) if there is a
    /// key with this digest.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, SecretDigest, Owner, VerifyRequest, manage::NewKey, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let keys = TestKeys::new().keys;
    /// # let old_secret = keys.formats().current().generate()?;
    /// # let row_sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(old_secret.expose()));
    /// let owner = Owner::new("acme", "ada")?;
    /// let digest = SecretDigest::from_sha256_text(&row_sha256)?;
    /// keys.import(NewKey::new(&owner, "from the old table")?, digest, "lc_a1b2", &Actor::system("import"))
    ///     .await?;
    /// assert!(keys.verify(old_secret.expose(), &VerifyRequest::new()).await.is_ok());
    /// # Ok(()) }
    /// ```
    pub async fn import(
        &self,
        new: NewKey,
        digest: SecretDigest,
        hint: &str,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        if !self.inner.hashers.accepts(digest.tag()) {
            let message = "no hasher here could verify this digest: build with `also_accept`";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let longest = self.inner.formats.longest_hint().max(MAX_HINT);
        let hint = checked_text("hint", hint.trim(), longest)?;
        if self.inner.formats.parse(hint).is_ok() {
            let message = "the hint is the whole secret: pass its first characters only";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Cow::Owned(_) = one_line(hint) {
            let message = "the hint holds characters that cannot be shown";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let hint = hint.into();
        self.add(new, digest, hint, EventKind::Imported, by).await
    }

    async fn add(
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
        let judge = |account: &Account| {
            let now = self.inner.now();
            let key = Arc::new(new.into_key(self.inner.ids.key_id(now)?, hint, now));
            allowed(&key, account, by, now)?;
            Ok((key, account.limits.active_keys()))
        };
        let (key, max_active) = self.inner.sanction(&owner, by, change, judge).await?;
        let at = key.created_at;
        let event = AuditEvent::of(self.inner.ids.event_id(at)?, at, kind, &key, by);
        let (store, added) = (self.inner.store.clone(), key.clone());
        let write = async move {
            let row = InsertKey { key: &added, digest: &digest, max_active, event: &event };
            match store.insert(row).await? {
                InsertOutcome::Inserted => Ok(Done::written(InsertOutcome::Inserted, event)),
                refused => Ok(Done::nothing(refused)),
            }
        };
        match self.inner.change(Touches::Nothing, write).await? {
            InsertOutcome::Inserted => Ok(key),
            InsertOutcome::LimitReached => Err(Error::limit_reached(max_active)),
            InsertOutcome::DigestTaken => {
                let message = "a key with this secret exists: it needs no second import";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }
}

impl NewKey {
    fn into_key(self, id: crate::model::KeyId, hint: String, now: Timestamp) -> Key {
        Key {
            id,
            owner: self.owner,
            name: self.name,
            hint,
            retiring: None,
            access: self.access,
            limits: self.limits,
            networks: self.networks,
            metadata: self.metadata,
            created_at: now,
            expires_at: self.expiry.resolve(now),
            disabled_at: None,
            revoked: None,
            rotated_at: None,
            rotation_token: self.token,
            first_used_at: None,
            last_used_at: None,
            last_used_ip: None,
            revision: 0,
        }
    }
}

/// Whether owner, plan and actor let a key come into being.
fn allowed(key: &Key, account: &Account, by: &Actor, now: Timestamp) -> Result<(), Error> {
    within_owner(key, account)?;
    if !by.can_grant(key) {
        return Err(Error::beyond_reach());
    }
    let Some(longest) = account.limits.lifetime() else {
        return if key.expires_at.is_some_and(|end| end <= now) { Err(past()) } else { Ok(()) };
    };
    match key.expires_at {
        Some(end) if end <= now => Err(past()),
        Some(end) if end <= now.after(longest) => Ok(()),
        _ => Err(Error::lives_too_long(longest)),
    }
}

/// Whether a key reaches no further than its owner.
pub(crate) fn within_owner(key: &Key, account: &Account) -> Result<(), Error> {
    if let Access::Only(scopes) = &key.access
        && let Some(scope) = scopes.iter().find(|scope| !account.permissions.allows(scope))
    {
        let message = format!("the owner of the key does not have the scope `{scope}`");
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    Ok(())
}

fn past() -> Error {
    Error::new(ErrorKind::Invalid, "the expiry is not in the future: choose a later one")
}

/// Of a key of unknown form: too short for a whole secret, but for the shortest ones.
const MAX_HINT: usize = 24;
