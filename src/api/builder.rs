use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize},
};

use crate::{
    accounts::{Accounts, NoAccounts, NoStepUp, StepUp},
    audit::{AuditSink, Fanout},
    secret::{Formats, Hasher, Hashers, Sha256Hasher},
    store::KeyStore,
    verify::{Cache, CacheOptions, Flights, RateLimiter, Rates},
};
use crate::{
    api::{ApiKeys, Inner},
    manage::{Reminders, Retention},
    system::{Clock, IdGenerator, Ratchet, SystemClock},
    verify::{Follower, Outbox},
};

/// Puts [`ApiKeys`] together; everything but store and format has a safe default.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ApiKeysBuilder {
    store: Arc<dyn KeyStore>,
    formats: Formats,
    hashers: Hashers,
    accounts: Arc<dyn Accounts>,
    step_up: Arc<dyn StepUp>,
    sinks: Fanout,
    clock: Arc<dyn Clock>,
    rates: Rates,
    cache: Option<CacheOptions>,
    janitor: Option<Retention>,
    reminders: Option<Reminders>,
}

impl ApiKeys {
    /// Begins with where keys live and what their secrets look like: one
    /// [`KeyFormat`](crate::secret::KeyFormat), or several [`Formats`] side by side.
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

    /// Begins with a store whose type is known at run time only.
    pub fn builder_on(store: Arc<dyn KeyStore>, format: impl Into<Formats>) -> ApiKeysBuilder {
        ApiKeysBuilder {
            store,
            formats: format.into(),
            hashers: Hashers::new(Sha256Hasher),
            accounts: Arc::new(NoAccounts::default()),
            step_up: Arc::new(NoStepUp),
            sinks: Fanout::default(),
            clock: Arc::new(SystemClock),
            rates: Rates::default(),
            cache: Some(CacheOptions::default()),
            janitor: Some(Retention::default()),
            reminders: None,
        }
    }
}

impl ApiKeysBuilder {
    /// What turns secrets into digests; [`Sha256Hasher`] by default.
    pub fn hasher(mut self, hasher: impl Hasher) -> Self {
        self.hashers = self.hashers.with_current(hasher);
        self
    }

    /// Accepts digests of an earlier hasher too: a retired pepper, or those of imported keys. A key
    /// is rewritten under the current hasher when it is used.
    pub fn also_accept(mut self, hasher: impl Hasher) -> Self {
        self.hashers = self.hashers.also_accept(hasher);
        self
    }

    /// What the host says of its accounts; by default every owner may have five keys.
    pub fn accounts(mut self, accounts: impl Accounts) -> Self {
        self.accounts = Arc::new(accounts);
        self
    }

    /// Which changes need a fresh second factor; by default none does.
    pub fn step_up(mut self, policy: impl StepUp) -> Self {
        self.step_up = Arc::new(policy);
        self
    }

    /// Tells this sink of every event, too. The stored log needs none.
    pub fn audit(mut self, sink: impl AuditSink) -> Self {
        self.sinks = self.sinks.and(sink);
        self
    }

    /// Counts rates for all nodes together. By default each node counts for itself, which costs a
    /// verification next to nothing; with a limiter, one of a key that has a rate waits for it.
    pub fn rate_limiter(mut self, limiter: impl RateLimiter) -> Self {
        self.rates = Rates::Elsewhere(Arc::new(limiter));
        self
    }

    /// How verified keys are kept in memory; see [`CacheOptions`] for the defaults.
    pub fn cache(mut self, options: CacheOptions) -> Self {
        self.cache = Some(options);
        self
    }

    /// Keeps no key in memory: every verification asks the store and the accounts. Nothing bounds
    /// what a flood of unknown keys costs them then.
    pub fn no_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// How long what is no longer needed is kept. One of all nodes cleans up every hour; by default,
    /// what [`Retention::default`] says.
    pub fn retention(mut self, purge: Retention) -> Self {
        self.janitor = Some(purge);
        self
    }

    /// Nothing is cleaned up but by [`ApiKeys::purge`].
    pub fn no_automatic_purge(mut self) -> Self {
        self.janitor = None;
        self
    }

    /// Reminds the owners of all tenants every hour, on one of all nodes, as [`ApiKeys::remind`] does:
    /// with an event in the log, of which the sinks are told. Without this, nobody is reminded.
    ///
    /// At most 500 are given in an hour, and the rest in the next ones: so letters find room, also the
    /// first time, when all that is due by then comes together.
    pub fn reminders(mut self, reminders: Reminders) -> Self {
        self.reminders = Some(reminders);
        self
    }

    /// Another clock than the machine's: for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds it. Nothing is connected or started by that.
    pub fn build(self) -> ApiKeys {
        let Self {
            store,
            formats,
            hashers,
            accounts,
            step_up,
            sinks,
            clock,
            rates,
            cache,
            janitor,
            reminders,
        } = self;
        let lag = clock.lag();
        let inner = Inner {
            store,
            formats,
            hashers,
            accounts,
            step_up,
            sinks,
            clock,
            lag,
            ids: IdGenerator::default(),
            rates,
            outbox: Outbox::default(),
            cache: cache.as_ref().map(|options| Cache::new(options, lag)),
            flights: Flights::new(),
            follower: Follower::default(),
            janitor,
            reminders,
            failed_jobs: AtomicUsize::new(0),
            ratchet: Ratchet::default(),
            shut_down: AtomicBool::new(false),
        };
        ApiKeys { inner: Arc::new(inner) }
    }
}

impl std::fmt::Debug for ApiKeysBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeysBuilder")
            .field("formats", &self.formats)
            .field("hashers", &self.hashers)
            .finish_non_exhaustive()
    }
}
