//! The facade: [`ApiKeys`], which joins the part that verifies and the part that manages.

mod builder;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub use builder::{ApiKeysBuilder, WeakApiKeys};

#[cfg(feature = "manage")]
use crate::verify::Introspection;
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind, ExportFormat, Outcome},
    error::Error,
    manage::{
        AuditExport, DuePage, Edit, Issued, KeyChange, KeyPage, Manager, NewKey, Page, Purged,
        Reminders, Retention, Rotation, Target, purge_while, remind_while,
    },
    model::{Actor, Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::{Formats, SecretDigest},
    store::{Capability, Counters, HourlyUsage, KeyStore},
    verify::{
        Attempt, FeedState, IdentifiedKey, Reservation, Verified, Verifier, VerifyError,
        VerifyRequest,
    },
};

/// Issues keys, verifies secrets, and manages both. Cheap to clone; clones share everything.
///
/// Every change is written atomically, together with its audit event, before it is acknowledged. A change has up to
/// three steps: it reads the key and the owner's account, asks the host's policy, and writes. If the caller's future is
/// dropped, a write that has begun runs to its end; before that, nothing is changed.
///
/// # Errors
/// A method that returns an [`Error`] can fail with each error of the store, and with
/// [`NotFound`](crate::ErrorKind::NotFound) if the owner or tenant `within` has no such key. The methods name what else
/// they return. [`ErrorKind`](crate::ErrorKind) says what each kind means.
///
/// # Examples
/// ```
/// use keyward::{
///     Access, Actor, ApiKeys, Expiry, KeyFormat, MemoryStore, NewKey, Owner, VerifyRequest,
///     manage::{KeyChange, Rotation},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?).build();
/// let (ada, actor) = (Owner::new("acme", "ada")?, Actor::account("ada@example.com"));
/// let new = NewKey::new(&ada, "ci")?.access(Access::only(["builds:read", "deploy"])?);
/// let old = keys.issue(new.expiry(Expiry::DAYS_90), &actor).await?;
/// let verified = keys.verify(old.secret.expose(), &VerifyRequest::new()).await?;
/// assert_eq!(verified.owner(), &ada);
///
/// let change = KeyChange::default().name("read only")?.access(Access::only(["builds:read"])?);
/// let key = keys.update(&ada, old.key.id, &change, &actor).await?;
/// let day = std::time::Duration::from_secs(24 * 3_600);
/// let new = keys.rotate(&ada, key.id, Rotation::overlap(day), &actor).await?;
/// for issued in [&old, &new] {
///     assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
/// }
///
/// let revoked = keys.revoke_all(&ada, "left the company", &actor).await?;
/// assert_eq!(revoked, [key.id]);
/// assert!(keys.verify(new.secret.expose(), &VerifyRequest::new()).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ApiKeys {
    verifier: Arc<Verifier>,
    manager: Arc<Manager>,
}

/// The state of a node, for health checks and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// How this node learns of changes that other nodes make.
    pub feed: FeedState,
    /// What the store lacks. Nothing of it counts as a failure.
    pub not_supported: Vec<Capability>,
    /// The age of this node's knowledge of such changes; `None` if it has none yet. Beyond
    /// [`max_staleness`](crate::verify::CacheOptions::max_staleness), entries that were read before are not trusted.
    pub staleness: Option<Duration>,
    /// The number of cached keys.
    pub cached_keys: usize,
    /// The number of cached digests that no key has.
    pub cached_unknown: usize,
    /// The number of keys with uses that are not written yet.
    pub unwritten_uses: usize,
    /// The number of events that wait to be written.
    pub unwritten_events: usize,
    /// The number of hourly jobs that failed since this node started. A failed job runs again in another hour.
    pub failed_jobs: usize,
    /// How far the machine's clock is ahead of the store's clock, in milliseconds; negative if it is behind. `None` before
    /// the first comparison.
    ///
    /// If the store [has no clock](KeyStore::clock), the machine's clock is compared with the time at which this node
    /// started, continued by the monotonic clock. A jump that was accepted does not count any more.
    pub clock_offset_ms: Option<i64>,
    /// Whether this node answers *unavailable* because its clock is too far from the store's clock: see
    /// [`max_clock_offset`](ApiKeysBuilder::max_clock_offset).
    pub clock_refused: bool,
    /// How far the machine's clock is behind the time of this node, because it was set back. A time that has passed stays
    /// passed. After a small step, time stands still here until the machine's clock has caught up. Without a clock of the
    /// store, after a step of more than [`max_clock_offset`](ApiKeysBuilder::max_clock_offset), time goes on here from
    /// where it was, by the monotonic clock, until the machine's clock has caught up or the process is restarted.
    pub clock_set_back: Duration,
}

/// # Verifying
impl ApiKeys {
    /// Verifies a presented secret and authorizes the request.
    ///
    /// Checks run in this order, and the first failure is returned: format, digest, revoked, expired, disabled, retired
    /// secret, suspended owner, tenant, network, scopes, rate, quota. A text that is malformed is rejected before it is
    /// hashed, and an unknown secret costs as much as a known one.
    ///
    /// A request that had to wait is decided again: see
    /// [`max_staleness`](crate::verify::CacheOptions::max_staleness) for what holds while a process or a machine is paused.
    ///
    /// A rejected request consumes neither rate nor quota, with four exceptions: a guard inside another guard decides
    /// after the outer one has charged; with a [`RateLimiter`](crate::verify::RateLimiter), a rate that was charged before
    /// the quota was exceeded is returned if the limiter can be reached; the same holds for what was charged if the key
    /// ended meanwhile; and if the store lost the answer to a charge, the
    /// request is *unavailable* and may have been charged.
    ///
    /// # Performance
    /// A cache hit does not allocate, does not await and takes no lock shared with other keys, except:
    /// - on the key's first use in a second or from another address, when a lock of the thread is taken, and sometimes
    ///   memory for the list of the keys that the thread used;
    /// - on a thread's first verification;
    /// - when the owner's account is read again;
    /// - when the key or its owner has a quota: one write to the store is awaited;
    /// - with a [rate limiter](ApiKeysBuilder::rate_limiter), which is awaited for keys that have a rate.
    ///
    /// # Cancellation
    /// If the future is dropped while a quota is charged, the use may have been charged.
    ///
    /// # Errors
    /// *Denied* if the secret is not that of a key that may do this, *limited* if the key exceeds a rate or a quota, and
    /// *unavailable* if it cannot be decided. [`VerifyError`] names the HTTP status of each.
    pub async fn verify<T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &T,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, VerifyError> {
        self.verifier.verify(presented.as_ref(), request).await
    }

    /// Reserves uses of the quotas of a key and its owner, for work whose cost is known only at its end. Rates are not
    /// charged. A key without a quota may reserve any number.
    ///
    /// The verification itself is charged as well: give it a [cost](VerifyRequest::cost) of 0.
    ///
    /// # Errors
    /// [`VerifyError::Limited`] if the quotas have too few uses left; [`VerifyError::Unavailable`] if the store fails.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{VerifyRequest, testing::TestKeys};
    /// use keyward::verify::Settlement;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, issued) = (&test.keys, test.issue(["a"]).await);
    /// let verified = keys.verify(issued.secret.expose(), &VerifyRequest::new().cost(0)).await?;
    /// let reservation = keys.reserve(&verified, 500).await?;
    /// let tokens = 123; // the number that the model reports
    /// assert_eq!(reservation.commit(tokens).await?, Settlement::Full);
    /// # Ok(()) }
    /// ```
    pub async fn reserve(
        &self,
        verified: &Verified,
        uses: u64,
    ) -> Result<Reservation, VerifyError> {
        self.verifier.reserve(verified, uses).await
    }

    /// Waits until this node knows of every change that other nodes had made when this was called.
    ///
    /// A node learns of changes by itself, usually within milliseconds. Call this if the service was notified of a change
    /// in another way and must not be ahead of it.
    pub async fn catch_up(&self) -> Result<(), Error> {
        self.verifier.feed.catch_up().await
    }

    /// Returns the formats of secrets that are accepted.
    pub fn formats(&self) -> &Formats {
        &self.manager.formats
    }
}

/// # Changing keys
///
/// If the store loses the answer to a write, the error is
/// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown): the change may have happened. Repeat what is safe to repeat:
/// revoking, disabling, enabling, updating, deleting. Repeat a rotation with its [token](Rotation::token), and an issue
/// with its [token](NewKey::token). Without a token, list the keys before a key is issued again, and revoke the one whose
/// secret was not received.
///
/// # Panics
/// All of these panic outside of a Tokio runtime.
impl ApiKeys {
    /// Issues a key. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`LimitReached`](crate::ErrorKind::LimitReached), [`LifetimeTooLong`](crate::ErrorKind::LifetimeTooLong),
    /// [`Forbidden`](crate::ErrorKind::Forbidden), [`Suspended`](crate::ErrorKind::Suspended),
    /// [`SecondFactorRequired`](crate::ErrorKind::SecondFactorRequired), and
    /// [`Invalid`](crate::ErrorKind::Invalid) if the expiry is not in the future. With a [token](NewKey::token), also
    /// [`InProgress`](crate::ErrorKind::InProgress) and [`TokenReused`](crate::ErrorKind::TokenReused).
    pub async fn issue(&self, new: NewKey, by: &Actor) -> Result<Issued, Error> {
        self.manager.issue(new, by).await
    }

    /// Imports a key of another system that is known by its hash only.
    ///
    /// Its secret must have an accepted format, and its digest must be that of an accepted hasher. `hint` is the part of
    /// the secret that people may see: its first characters.
    ///
    /// Import each key once, before it is used here: its first use replaces the digest by one of the current hasher, and
    /// then the imported hash no longer shows that it is the same secret.
    ///
    /// # Errors
    /// As [`issue`](ApiKeys::issue), and [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if a key has this digest.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, NewKey, Owner, SecretDigest, VerifyRequest, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let keys = TestKeys::new().keys;
    /// # let old_secret = keys.formats().current().generate()?;
    /// # let row_sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(old_secret.expose()));
    /// let new = NewKey::new(&Owner::new("acme", "ada")?, "from the old table")?;
    /// let digest = SecretDigest::from_sha256_text(&row_sha256)?;
    /// keys.import(new, digest, "lc_a1b2", &Actor::system("import")).await?;
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
        self.manager.import(new, digest, hint, by).await
    }

    /// Gives a live key a new secret. Identity, name, access, limits, expiry and being disabled stay as they are.
    ///
    /// # Errors
    /// [`NotLive`](crate::ErrorKind::NotLive): rotation does not revive a key. `Suspended` and `SecondFactorRequired`. And
    /// `Forbidden` if the actor lacks a permission that the key has. With a [token](Rotation::token), also
    /// [`InProgress`](crate::ErrorKind::InProgress) and [`TokenReused`](crate::ErrorKind::TokenReused).
    pub async fn rotate<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        rotation: Rotation,
        by: &Actor,
    ) -> Result<Issued, Error> {
        self.manager.rotate(Target { within: within.into(), id, by }, rotation).await
    }

    /// Changes a live key.
    ///
    /// # Errors
    /// [`NotLive`](crate::ErrorKind::NotLive). If the key could do more by the change, also `Forbidden`, `Suspended` and
    /// `SecondFactorRequired`, as [`issue`](ApiKeys::issue).
    pub async fn update<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        change: &KeyChange,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        self.manager.edit(Target { within: within.into(), id, by }, Edit::Change(change)).await
    }

    /// Disables a live key until it is enabled. It still counts towards its owner's limit.
    ///
    /// # Errors
    /// As [`update`](ApiKeys::update).
    pub async fn disable<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        self.manager.edit(Target { within: within.into(), id, by }, Edit::Disable).await
    }

    /// Enables a disabled key. A revoked or expired key stays so.
    ///
    /// # Errors
    /// As [`update`](ApiKeys::update).
    pub async fn enable<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        by: &Actor,
    ) -> Result<Arc<Key>, Error> {
        self.manager.edit(Target { within: within.into(), id, by }, Edit::Enable).await
    }

    /// Revokes a key. This cannot be undone. Revoking a revoked key changes nothing and is not an error.
    ///
    /// The first 1,000 characters of the reason are kept; NUL characters are replaced.
    pub async fn revoke<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        reason: &str,
        by: &Actor,
    ) -> Result<(), Error> {
        self.manager.revoke(Target { within: within.into(), id, by }, reason).await
    }

    /// Revokes all keys of an owner in one atomic step. Returns those that were not revoked before.
    ///
    /// A key that is issued at the same time may be inserted afterwards. For an owner that leaves, let the host's
    /// [`Accounts`](crate::Accounts) return it as suspended first.
    pub async fn revoke_all(
        &self,
        owner: &Owner,
        reason: &str,
        by: &Actor,
    ) -> Result<Vec<KeyId>, Error> {
        let event = self.manager.ending_event(EventKind::Revoked, by).await?;
        let event = event.of_owner(owner).reason(reason);
        self.manager.revoke_all(owner, event).await
    }

    /// Deletes a key's record, and with it the key. Its audit events stay.
    ///
    /// To end a key, prefer [`revoke`](ApiKeys::revoke): the record shows later whose secret was leaked. The counter of a
    /// quota is deleted with its key, so a node that still trusts the key may count its uses from zero for up to
    /// [`max_staleness`](crate::verify::CacheOptions::max_staleness); a revoked key keeps its counter.
    pub async fn delete<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        by: &Actor,
    ) -> Result<(), Error> {
        self.manager.delete(Target { within: within.into(), id, by }).await
    }

    /// Notifies all nodes that the host's account of an owner has changed: suspended or not, permissions, plan.
    ///
    /// When this returns, even with an error, this node reads the account again; other nodes do once they are notified.
    pub async fn account_changed(&self, owner: &Owner) -> Result<(), Error> {
        self.manager.account_changed(owner).await
    }
}

/// # Reading keys
///
/// # Examples
/// ```
/// # use keyward::{Actor, Status, VerifyRequest, manage::Page, testing::TestKeys};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let test = TestKeys::new();
/// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::system("support"));
/// # let issued = test.issue(["a"]).await;
/// # let (id, pasted) = (issued.key.id, issued.secret.expose());
/// let mut page = Page::first().status(Status::Active);
/// loop {
///     let listed = keys.list(ada, page).await?;
///     for key in listed.keys {
///         println!("{}…  {}", key.hint, key.name);
///     }
///     let Some(next) = listed.next else { break };
///     page = page.after(next);
/// }
///
/// keys.verify(pasted, &VerifyRequest::new()).await?;
/// keys.flush().await?; // or a minute later
/// let day = keys.usage_history(ada, id, 24).await?;
/// assert_eq!((day.len(), day[23].accepted, day[23].denied), (24, 1, 0));
///
/// if let Some(found) = keys.identify(pasted).await? {
///     keys.revoke(&found.key.owner, found.key.id, "pasted into a ticket", &actor).await?;
/// }
/// # Ok(()) }
/// ```
impl ApiKeys {
    /// Returns one key.
    pub async fn get<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
    ) -> Result<Arc<Key>, Error> {
        self.manager.get(within.into(), id).await
    }

    /// Returns a page of the keys of an owner or a tenant, newest first. Keys issued meanwhile do not shift later pages.
    pub async fn list<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        page: Page,
    ) -> Result<KeyPage, Error> {
        self.manager.list(within.into(), page).await
    }

    /// Returns how often a key was accepted, denied and limited in each of the last `hours` hours, oldest first,
    /// including the current one and hours without a use. `hours` is limited to 1 to 744, which is 31 days.
    ///
    /// Uses are counted in memory and written about once a minute: a process that is killed loses up to a minute of them.
    /// They are kept for the time that [`Retention`] sets.
    pub async fn usage_history<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        hours: u32,
    ) -> Result<Vec<HourlyUsage>, Error> {
        self.manager.usage_history(within.into(), id, hours).await
    }

    /// Returns the key that has this secret: for support, and for a secret that was found in public.
    ///
    /// Revoked, expired and disabled keys are found too, and a key's latest former secret; earlier ones are unknown.
    /// Nothing is charged and no use is recorded. Do not use it to authenticate a request: it checks nothing.
    pub async fn identify<T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &T,
    ) -> Result<Option<IdentifiedKey>, Error> {
        self.verifier.identify(presented.as_ref()).await
    }

    /// Returns the reminders that are due for the active keys of an owner or a tenant. Changes nothing, notifies no sink.
    pub async fn due_reminders<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        reminders: &Reminders,
        page: Page,
    ) -> Result<DuePage, Error> {
        self.manager.due_reminders(within.into(), reminders, page).await
    }

    /// Writes an event for each reminder that is due for the active keys of an owner or a tenant, and notifies the sinks.
    /// Returns how many events were written. After an error, what was not written is written the next time.
    ///
    /// Each key and date is reminded of once per cluster, however often this is called, and on however many nodes. A
    /// rotation or a use sets another date. The event in the audit log is what counts: after it was purged, a reminder
    /// that is still due is repeated. [`reminders`](ApiKeysBuilder::reminders) does this every hour for all tenants.
    pub async fn remind<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        reminders: &Reminders,
    ) -> Result<u64, Error> {
        let manager = || Some(self.manager.clone());
        remind_while(manager, within.into(), reminders, u64::MAX).await
    }
}

/// # Audit log
///
/// # Examples
/// ```
/// # use keyward::{Actor, AuditQuery, testing::TestKeys};
/// # use std::io::Write;
/// use keyward::audit::{EventKind, ExportFormat, Outcome};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let test = TestKeys::new();
/// # let (keys, ada, actor, mut file) = (&test.keys, &test.owner, Actor::account("ada"), Vec::new());
/// keys.record_event(ada, "extension.deployed", Outcome::Success, &actor).await?;
/// let events = keys.events(AuditQuery::new(ada).kind(EventKind::HostEvent)).await?;
/// assert_eq!(events[0].reason.as_deref(), Some("extension.deployed"));
/// println!("{}", events[0]); // one line, safe to print
///
/// let mut export = keys.export(AuditQuery::new(ada).limit(500), ExportFormat::Csv);
/// while let Some(page) = export.next_page().await? {
///     file.write_all(page.as_bytes())?;
/// }
/// # assert!(file.starts_with(b"id,time,event,"));
/// # Ok(()) }
/// ```
impl ApiKeys {
    /// Returns events of the audit log, newest first. For the next page, pass the last id to [`AuditQuery::after`].
    pub async fn events(&self, query: AuditQuery<'_>) -> Result<Vec<AuditEvent>, Error> {
        Ok(self.manager.store.events(&query).await?)
    }

    /// Exports events of the audit log as text, newest first. The query's [`limit`](AuditQuery::limit) is that of a page.
    pub fn export(&self, query: AuditQuery<'_>, format: ExportFormat) -> AuditExport {
        AuditExport::new(self.manager.clone(), query, format)
    }

    /// Records an event of the host in the audit log of an account: a deployment, a sign-in, a setting.
    ///
    /// The event has the kind [`HostEvent`](EventKind::HostEvent), and `what` as its
    /// [`reason`](field@AuditEvent::reason): the first 1,000 characters are kept, and NUL characters are replaced. If the
    /// actor is a [key](Actor::key), the event has its id. When this returns, the event is written and the sinks are
    /// notified. Each call writes one row: limit events that strangers can cause.
    pub async fn record_event(
        &self,
        of: &Owner,
        what: &str,
        outcome: Outcome,
        by: &Actor,
    ) -> Result<(), Error> {
        let event = self.manager.event(EventKind::HostEvent, by).await?;
        let event = event.of_owner(of).reason(what);
        self.manager.write_event(AuditEvent { outcome, key_id: by.key_id, ..event }).await
    }

    /// Records in the audit log that a secret of this key was found in `place`, unless the same is recorded already.
    pub async fn record_leak(&self, key: &Key, place: &str, by: &Actor) -> Result<(), Error> {
        self.manager.record_leaks(key, &[place], by).await
    }

    /// Records the first 100 places where a secret of this key was found, as [`record_leak`](ApiKeys::record_leak) does.
    #[cfg(feature = "leaks")]
    pub(crate) async fn record_leaks(
        &self,
        key: &Key,
        places: &[String],
        by: &Actor,
    ) -> Result<(), Error> {
        self.manager.record_leaks(key, places, by).await
    }
}

/// # Operating a node
impl ApiKeys {
    /// Returns the state of this node. Asks neither the store nor the host.
    pub fn health(&self) -> Health {
        let Manager { clock, cache, jobs, .. } = &*self.manager;
        let (now, offset) = (clock.coarse_now().cache_time, clock.offset());
        let (cached_keys, cached_unknown) = cache.len();
        let writer = &self.verifier.writer;
        let is_missing = |capability: &Capability| !capability.is_supported_by(self.store());
        Health {
            feed: self.verifier.feed.state(now),
            not_supported: Capability::ALL.into_iter().filter(is_missing).collect(),
            staleness: cache.staleness(now),
            cached_keys,
            cached_unknown,
            unwritten_uses: writer.usage.len(),
            unwritten_events: writer.unwritten_events(),
            failed_jobs: jobs.failed.load(Ordering::Relaxed),
            clock_offset_ms: offset.micros.map(|micros| micros / 1_000),
            clock_refused: offset.is_refused,
            clock_set_back: clock.set_back_by(),
        }
    }

    /// Writes what verification left to be written: uses, usage history, denials, digests that move to the current hasher.
    ///
    /// A background task does the same: every 5 seconds for uses and digests, and every minute for counts and denials. A
    /// test calls this before it reads. After an error, what was not written is written later, except hourly counts that
    /// may have been written: they are dropped rather than counted twice.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn flush(&self) -> Result<(), Error> {
        self.verifier.writer.flush().await
    }

    /// Purges what was kept for its retention time: keys that were revoked or expired, audit events, usage history,
    /// one-time codes, and entries of the change feed. Live keys are not affected.
    ///
    /// It removes small batches, and calls `progress` after each; if it fails or the future is dropped, the batches that
    /// were reported are done. [`retention`](ApiKeysBuilder::retention) does this every hour.
    pub async fn purge(
        &self,
        retention: Retention,
        progress: impl FnMut(Purged) + Send,
    ) -> Result<Purged, Error> {
        purge_while(|| Some(self.manager.clone()), retention, progress).await
    }

    /// Stops background tasks and writes what is left to be written. Call it before the service exits, again if it fails,
    /// and then flush sinks that send in the background, such as the mailer of the feature `email`.
    ///
    /// Verification still works afterwards, but writes nothing by itself, and learns of changes that other nodes make only
    /// by reading entries again after [`max_staleness`](crate::verify::CacheOptions::max_staleness): nothing older is
    /// accepted. [`health`](ApiKeys::health) then reports [`FeedState::Stopped`].
    ///
    /// A process that is killed loses what was not written: up to 5 seconds of last uses, and up to a minute of hourly
    /// counts and denials. First uses are written immediately.
    ///
    /// # Errors
    /// If the store fails or does not answer, after a few of its timeouts. The text says how much is not written. It is
    /// lost unless a repetition succeeds.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.verifier.stop();
        self.manager.jobs.stopped.store(true, Ordering::Release);
        self.flush().await.map_err(|error| self.verifier.writer.unwritten(error))
    }
}

/// What other rooms use.
impl ApiKeys {
    /// Looks at the key of a presented text without using it.
    #[cfg(feature = "manage")]
    pub(crate) async fn introspect(
        &self,
        presented: &str,
        caller: &Owner,
        visible: OwnerScope<'_>,
        request: &VerifyRequest<'_>,
    ) -> Result<Introspection, Error> {
        self.verifier.introspect(presented.as_bytes(), caller, visible, request).await
    }

    /// Returns whether what is known of a key that was verified before may still be used.
    #[cfg(feature = "http")]
    pub(crate) fn trusts(&self, verified: &Verified) -> bool {
        self.verifier.trusts(verified)
    }

    /// Returns whether the other is a clone of this one.
    #[cfg(feature = "http")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.manager, &other.manager)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.manager.clock.now()
    }

    /// Returns the current time, if this node's clock can be trusted.
    pub(crate) async fn checked_now(&self) -> Result<Timestamp, Error> {
        Ok(self.manager.clock.checked_now().await?.at)
    }

    pub(crate) fn store(&self) -> &dyn KeyStore {
        &*self.manager.store
    }

    /// Returns the counters that limit attempts. `needed_by` is an error's text about who needs them.
    pub(crate) fn counters(&self, needed_by: &str) -> Result<&dyn Counters, Error> {
        let missing = || Error::not_supported(Capability::Counters, needed_by);
        self.store().counters().ok_or_else(missing)
    }

    /// Records in the audit log what was done with a one-time code of an owner. Written behind.
    pub(crate) fn note_code(&self, kind: EventKind, of: &Owner, by: &Actor) -> Result<(), Error> {
        self.verifier.writer.add_event(self.manager.event_after_check(kind, by)?.of_owner(of));
        Ok(())
    }

    pub(crate) fn note_refused_code(&self, reason: &'static str, by: &Actor) {
        self.verifier.writer.ensure_running();
        self.verifier.writer.denials.add_code(self.attempt(reason, by));
    }

    #[cfg(feature = "totp")]
    pub(crate) fn note_refused_factor(&self, reason: &'static str, of: &Owner, by: &Actor) {
        self.verifier.writer.ensure_running();
        self.verifier.writer.denials.add_second_factor(of, by.label(), self.attempt(reason, by));
    }

    fn attempt<'a>(&self, reason: &'static str, by: &'a Actor) -> Attempt<'a> {
        let (at, ip, user_agent) = (self.now(), by.ip, by.user_agent.as_deref());
        Attempt { reason, key: None, at, ip, user_agent }
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeys").field("formats", &self.manager.formats).finish_non_exhaustive()
    }
}
