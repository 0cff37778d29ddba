use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use super::ApiKeys;
use crate::{
    accounts::{Accounts, NoAccounts, NoStepUp, StepUp},
    audit::{AuditSink, Fanout},
    manage::{Manager, Reminders, Retention},
    model::debug_only,
    secret::{Formats, Hasher, Hashers, Sha256Hasher},
    store::KeyStore,
    system::{Clock, IdGenerator, SystemClock},
    verify::{
        Buckets, Cache, CacheOptions, CheckedClock, FeedFollower, RateLimiter, Rates, SingleFlight,
        Verifier, WriteBehind,
    },
};

/// Builds [`ApiKeys`]. Everything but the store and the format has a safe default.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ApiKeysBuilder {
    store: Arc<dyn KeyStore>,
    formats: Formats,
    hashers: Hashers,
    accounts: Arc<dyn Accounts>,
    step_up: Arc<dyn StepUp>,
    sinks: Fanout,
    built: WeakApiKeys,
    clock: Arc<dyn Clock>,
    max_clock_offset: Duration,
    rates: Rates,
    cache: Option<CacheOptions>,
    retention: Option<Retention>,
    reminders: Option<Reminders>,
}

impl ApiKeys {
    /// Creates a builder with the store of the keys and the format of their secrets: one
    /// [`KeyFormat`](crate::KeyFormat), or several [`Formats`].
    ///
    /// # Examples
    /// ```
    /// use keyward::{ApiKeys, HmacSha256Hasher, KeyFormat, MemoryStore, Pepper, Sha256Hasher};
    ///
    /// let pepper = Pepper::new(1, b"thirty-two bytes or more, from a vault".as_slice())?;
    /// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?)
    ///     .hasher(HmacSha256Hasher::new(pepper))
    ///     .also_accept(Sha256Hasher) // keys from before the pepper; they move over as they are used
    ///     .build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(store: impl KeyStore, format: impl Into<Formats>) -> ApiKeysBuilder {
        Self::builder_on(Arc::new(store), format)
    }

    /// Creates a builder with a store whose type is known only at run time.
    pub fn builder_on(store: Arc<dyn KeyStore>, format: impl Into<Formats>) -> ApiKeysBuilder {
        ApiKeysBuilder {
            store,
            formats: format.into(),
            hashers: Hashers::new(Sha256Hasher),
            accounts: Arc::new(NoAccounts::default()),
            step_up: Arc::new(NoStepUp),
            sinks: Fanout::default(),
            built: WeakApiKeys::default(),
            clock: Arc::new(SystemClock),
            max_clock_offset: Duration::from_secs(5),
            rates: Rates::default(),
            cache: Some(CacheOptions::default()),
            retention: Some(Retention::default()),
            reminders: None,
        }
    }
}

impl ApiKeysBuilder {
    /// Sets the hasher that turns secrets into digests. Defaults to [`Sha256Hasher`].
    pub fn hasher(self, hasher: impl Hasher) -> Self {
        Self { hashers: self.hashers.with_current(hasher), ..self }
    }

    /// Also accepts digests of an earlier hasher: of a retired pepper, or of imported keys. The digest of a key is
    /// replaced by one of the current hasher when the key is used.
    pub fn also_accept(self, hasher: impl Hasher) -> Self {
        Self { hashers: self.hashers.also_accept(hasher), ..self }
    }

    /// Sets the host's accounts. By default, every owner may have five active keys.
    pub fn accounts(self, accounts: impl Accounts) -> Self {
        Self { accounts: Arc::new(accounts), ..self }
    }

    /// Sets the policy that requires a fresh second factor for changes. By default, no change requires one.
    pub fn step_up(self, policy: impl StepUp) -> Self {
        Self { step_up: Arc::new(policy), ..self }
    }

    /// Adds a sink that receives every audit event, in addition to the audit log that the store keeps.
    pub fn audit(self, sink: impl AuditSink) -> Self {
        Self { sinks: self.sinks.and(sink), ..self }
    }

    /// Like [`audit`](Self::audit), for a sink that needs the keys, for example to read the key of an event. It is weak,
    /// because the keys own the sink: [`AuditSink`] has an example.
    pub fn audit_with<S: AuditSink>(self, sink: impl FnOnce(WeakApiKeys) -> S) -> Self {
        let sink = sink(self.built.clone());
        self.audit(sink)
    }

    /// Counts rates for all nodes together. By default, each node counts in its own memory, which costs a verification
    /// next to nothing; with a rate limiter, a verification of a key that has a rate awaits it.
    pub fn rate_limiter(self, limiter: impl RateLimiter) -> Self {
        Self { rates: Rates::by(limiter), ..self }
    }

    /// Sets how verified keys are cached. Caching is on by default, with the defaults of [`CacheOptions`].
    pub fn cache(self, options: CacheOptions) -> Self {
        Self { cache: Some(options), ..self }
    }

    /// Caches nothing: each verification reads the store and the accounts, and look-ups of unknown keys are not limited.
    pub fn no_cache(self) -> Self {
        Self { cache: None, ..self }
    }

    /// Sets how long ended keys, audit events and the usage history are kept. Older ones are purged every hour, on one
    /// node; a node takes part from its first verification on. Defaults to [`Retention::default`].
    pub fn retention(self, retention: Retention) -> Self {
        Self { retention: Some(retention), ..self }
    }

    /// Purges nothing automatically; call [`ApiKeys::purge`].
    pub fn no_automatic_purge(self) -> Self {
        Self { retention: None, ..self }
    }

    /// Reminds the owners of all tenants every hour, on one node, as [`ApiKeys::remind`] does: by an event in the audit
    /// log, which the sinks receive. By default, no reminders are sent. A node takes part from its first verification on.
    /// At most 500 reminders are sent in an hour, so that other e-mails are not delayed; the rest follow later.
    pub fn reminders(self, reminders: Reminders) -> Self {
        Self { reminders: Some(reminders), ..self }
    }

    /// Sets the clock. Defaults to the [`SystemClock`].
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Sets how far this node's clock may be from the clock of the store. Defaults to 5 seconds.
    ///
    /// A node compares both clocks when it is first used, then every 5 seconds, and when its clock jumps. While they are
    /// further apart, verification, changes and jobs are *unavailable*, except for what only takes away: revoking and
    /// deleting. The node recovers when its clock is right again. [`health`](ApiKeys::health) reports the offset.
    ///
    /// An expiry, the end of an overlap, a lifetime and a limit of active keys are therefore kept on each node to within
    /// this offset, whatever happens to its clock. To prevent refusals, keep all clocks synchronized (NTP), also that of
    /// the database server. [`Duration::MAX`] refuses no clock.
    ///
    /// A store of one machine [has no clock](KeyStore::clock): its nodes share the machine's clock. There, a clock that
    /// jumps ahead by more than this offset is refused until it is back, or for 60 seconds if it is not. After a jump back
    /// by more than this offset, time goes on from where it was, by the monotonic clock, until the process is restarted.
    pub fn max_clock_offset(self, offset: Duration) -> Self {
        Self { max_clock_offset: offset, ..self }
    }

    /// Builds the [`ApiKeys`]. Connects to nothing and starts no task.
    pub fn build(self) -> ApiKeys {
        let bound = CacheOptions::bound(self.cache.as_ref());
        let store = self.store.clone();
        let clock = CheckedClock::new(self.clock, store, bound, self.max_clock_offset);
        let clock = Arc::new(clock);
        let (retention, reminders) = (self.retention, self.reminders);
        let manager = Arc::new_cyclic(|manager: &Weak<Manager>| {
            let manager = manager.clone();
            let start_due_jobs = move || {
                if let Some(manager) = manager.upgrade() {
                    manager.start_due_jobs(retention, reminders.as_ref());
                }
            };
            let (store, sinks, ids) =
                (self.store, Arc::new(self.sinks), Arc::<IdGenerator>::default());
            let writer = WriteBehind::new(
                store.clone(),
                sinks.clone(),
                ids.clone(),
                clock.clone(),
                start_due_jobs,
            );
            Manager {
                store,
                accounts: self.accounts,
                step_up: self.step_up,
                formats: Arc::new(self.formats),
                hashers: self.hashers,
                cache: Arc::new(Cache::new(self.cache.as_ref(), clock.coarse_lag)),
                clock,
                ids,
                sinks,
                writer: Arc::new(writer),
                jobs: Arc::default(),
            }
        });
        let Manager { store, accounts, formats, hashers, clock, cache, writer, .. } =
            Manager::clone(&manager);
        let verifier = Arc::new(Verifier {
            loads: SingleFlight::new(),
            feed: Arc::new(FeedFollower::new(store.clone(), cache.clone(), clock.clone())),
            writer,
            rates: self.rates,
            introspections: Buckets::default(),
            store,
            accounts,
            formats,
            hashers,
            clock,
            cache,
        });
        let keys = ApiKeys { verifier, manager };
        self.built.set(&keys);
        keys
    }
}

/// A reference to [`ApiKeys`] that does not keep them alive, for an [`AuditSink`] that needs them.
#[derive(Clone, Debug, Default)]
pub struct WeakApiKeys(Arc<OnceLock<(Weak<Verifier>, Weak<Manager>)>>);

impl WeakApiKeys {
    fn set(&self, keys: &ApiKeys) {
        let weak = (Arc::downgrade(&keys.verifier), Arc::downgrade(&keys.manager));
        self.0.set(weak).expect("a builder builds once");
    }

    /// Returns the keys; `None` before they are built and after the last clone was dropped.
    pub fn upgrade(&self) -> Option<ApiKeys> {
        let (verifier, manager) = self.0.get()?;
        Some(ApiKeys { verifier: verifier.upgrade()?, manager: manager.upgrade()? })
    }
}

debug_only!(ApiKeysBuilder { formats, hashers });
