use std::{borrow::Cow, sync::Arc};

use super::{
    change::{check_within_actor, check_within_owner},
    manager::{Manager, Target},
    repeat::{TOKEN_LIFETIME, replaced_if_unused, token_hash},
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
    store::{InsertKey, InsertOutcome, PreviousSecret},
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
            issue_token: None,
            first_used_at: None,
            secret_first_used_at: None,
            last_used_at: None,
            last_used_ip: None,
            revision: 0,
        };
        Ok(Self { key, expiry: Expiry::default() })
    }

    /// Sets what the key may do.
    pub fn access(self, access: Access) -> Self {
        Self { key: Key { access, ..self.key }, ..self }
    }

    /// Sets when the key expires.
    pub fn expiry(self, expiry: Expiry) -> Self {
        Self { expiry, ..self }
    }

    /// Sets how often the key may be used, within its owner's plan.
    pub fn limits(self, limits: KeyLimits) -> Self {
        Self { key: Key { limits, ..self.key }, ..self }
    }

    /// Sets the networks that the key may be used from.
    pub fn networks(self, networks: Networks) -> Self {
        Self { key: Key { networks, ..self.key }, ..self }
    }

    /// Sets the host's metadata.
    pub fn metadata(self, metadata: Metadata) -> Self {
        Self { key: Key { metadata, ..self.key }, ..self }
    }

    /// Makes a repetition safe after the answer was lost: of all calls of an owner with one token within a day, one
    /// issues the key. A later one returns the same key, with a new secret in place of the one that was not received.
    ///
    /// Concurrent calls do not end each other's secrets: in the first 10 seconds after a secret was made, a repetition
    /// is [`InProgress`](crate::ErrorKind::InProgress). The clocks of all nodes must agree to within a few seconds.
    ///
    /// A repetition is [`TokenReused`](crate::ErrorKind::TokenReused) if it asks for another key, including its expiry,
    /// if the key was changed, disabled, rotated or revoked since, or if its secret was used. The node that is called
    /// considers all uses that it has accepted; verifications of the key wait until the repetition is written. It
    /// considers uses on other nodes once they are written: a node writes the first use of a secret immediately and
    /// others within 5 seconds, unless the store fails.
    ///
    /// The token issues another key if the first was deleted, or was issued more than a day ago. Only a hash of the
    /// token is stored. For an import, the token only prevents a second one.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, ErrorKind, NewKey, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, owner, by) = (&test.keys, &test.owner, Actor::system("orders"));
    /// let new = NewKey::new(owner, "ci")?.token("order-4711");
    /// let lost = keys.issue(new.clone(), &by).await?;
    /// let early = keys.issue(new.clone(), &by).await.unwrap_err();
    /// assert_eq!(early.kind(), ErrorKind::InProgress);
    /// # test.clock.advance(early.retry_after().unwrap());
    /// // After `early.retry_after()`:
    /// let received = keys.issue(new, &by).await?;
    /// assert_eq!(received.key.id, lost.key.id);
    /// # Ok(()) }
    /// ```
    pub fn token(mut self, token: &str) -> Self {
        let token = Some(token_hash("issue", token));
        (self.key.issue_token, self.key.rotation_token) = (token, token);
        self
    }

    /// Returns what a repetition of this call does to the secret of the earlier key. All fields are destructured, so that
    /// a new one does not compile until it is considered here.
    fn previous_secret(&self, earlier: &Key, now: Timestamp) -> Result<PreviousSecret, Error> {
        let Key {
            name,
            access,
            limits,
            networks,
            metadata,
            disabled_at,
            // A rotation sets another token, or none.
            rotation_token,
            id: _,
            owner: _,
            hint: _,
            retiring: _,
            created_at: _,
            expires_at: _,
            revoked: _,
            rotated_at: _,
            issue_token: _,
            first_used_at: _,
            secret_first_used_at: _,
            last_used_at: _,
            last_used_ip: _,
            revision: _,
        } = &self.key;
        let is_same = (name, access) == (&earlier.name, &earlier.access)
            && (limits, networks) == (&earlier.limits, &earlier.networks)
            && (metadata, disabled_at) == (&earlier.metadata, &earlier.disabled_at)
            && *rotation_token == earlier.rotation_token
            && self.expiry.resolve(earlier.created_at) == earlier.expires_at;
        if is_same { replaced_if_unused(earlier, now) } else { Err(Error::token_reused()) }
    }
}

/// The key that a call with an idempotency token inserted, or the key of an earlier call.
enum Inserted {
    New(Arc<Key>),
    Earlier(KeyId),
}

impl Manager {
    pub(crate) async fn issue(&self, new: NewKey, by: &Actor) -> Result<Issued, Error> {
        for _ in self.attempts() {
            let secret = self.formats.current().generate()?;
            let digest = self.hashers.digest(secret.expose().as_bytes());
            let hint = self.formats.hint(&secret);
            match self.insert(new.clone(), digest, hint, EventKind::Created, by).await? {
                Inserted::New(key) => return Ok(Issued { key, secret }),
                Inserted::Earlier(id) => match self.repeat_issue(&new, id, by).await {
                    // The earlier key was deleted meanwhile, and its token with it.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) if error.kind() == ErrorKind::NotLive => {
                        return Err(Error::token_reused());
                    }
                    repeated => return repeated,
                },
            }
        }
        Err(Error::conflict())
    }

    async fn repeat_issue(&self, new: &NewKey, id: KeyId, by: &Actor) -> Result<Issued, Error> {
        let target = Target { within: (&new.key.owner).into(), id, by };
        let token = new.key.rotation_token;
        self.replace_secret(target, token, |earlier, now| new.previous_secret(earlier, now)).await
    }

    pub(crate) async fn import(
        &self,
        mut new: NewKey,
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
        // The secret of an import was never sent, so that no repetition may replace it.
        new.key.rotation_token = None;
        match self.insert(new, digest, hint.into(), EventKind::Imported, by).await? {
            Inserted::New(key) => Ok(key),
            Inserted::Earlier(_) => {
                let message = "a key with this idempotency token exists already";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }

    async fn insert(
        &self,
        new: NewKey,
        digest: SecretDigest,
        hint: String,
        kind: EventKind,
        by: &Actor,
    ) -> Result<Inserted, Error> {
        let change = match kind {
            EventKind::Imported => SensitiveChange::Import,
            _ => SensitiveChange::Issue,
        };
        let NewKey { key, expiry } = new;
        let owner = key.owner.clone();
        let check = |account: &Account| {
            let event = self.event_after_check(kind, by)?;
            let (id, created_at) = (self.ids.key_id(event.at)?, event.at);
            let expires_at = expiry.resolve(created_at);
            let key = Arc::new(Key { id, hint, created_at, expires_at, ..key });
            check_new_key(&key, account, by)?;
            self.check_counted(key.limits.quota.or(account.limits.shared_quota()))?;
            Ok((event.of_key(&key), key, account.limits.active_keys()))
        };
        let (event, key, max_active) = self.authorize_change(&owner, by, change, check).await?;
        let (store, inserted) = (self.store.clone(), key.clone());
        let write = async move {
            let insert = InsertKey {
                key: &inserted,
                digest: &digest,
                max_active,
                token_since: inserted.created_at.before(TOKEN_LIFETIME),
                event: &event,
            };
            let outcome = store.insert(insert).await?;
            Ok((outcome, (outcome == InsertOutcome::Inserted).then_some(event)))
        };
        match self.change(Cache::invalidate_unknown, write).await? {
            InsertOutcome::Inserted => Ok(Inserted::New(key)),
            InsertOutcome::TokenTaken(id) => Ok(Inserted::Earlier(id)),
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
    key.access.check_bound()?;
    key.networks.check_bound()?;
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
