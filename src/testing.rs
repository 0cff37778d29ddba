//! For tests of services that use this crate: keys in memory, a manual clock and collected audit events.
//! It needs no server, no feature and no setup.
//!
//! ```
//! use keyward::{ApiKeys, VerifyRequest, testing::TestKeys};
//!
//! /// A route of the service under test.
//! async fn read_builds(keys: &ApiKeys, api_key: &str) -> u16 {
//!     let request = VerifyRequest::new().require(&["builds:read"]);
//!     if keys.verify(api_key, &request).await.is_ok() { 200 } else { 401 }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let test = TestKeys::new();
//! let (reader, writer) = (test.issue(["builds:read"]).await, test.issue(["deploys:write"]).await);
//! assert_eq!(read_builds(&test.keys, reader.secret.expose()).await, 200);
//! assert_eq!(read_builds(&test.keys, writer.secret.expose()).await, 401);
//! # }
//! ```

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    AuditEvent, AuditSink, MemoryStore,
    accounts::NoAccounts,
    api::{ApiKeys, ApiKeysBuilder},
    audit::EventKind,
    manage::{Issued, NewKey},
    model::{Access, Actor, Limits, Owner, Timestamp},
    secret::KeyFormat,
    system::{Clock, ClockReading, lock},
};

/// Keys in memory, with a manual clock and collected audit events.
#[derive(Clone, Debug)]
pub struct TestKeys {
    /// The keys, to be passed to the code under test.
    pub keys: ApiKeys,
    /// The clock of the keys. It moves only when the test advances or sets it.
    pub clock: ManualClock,
    /// All audit events so far.
    pub events: Events,
    /// The owner of the keys from [`issue`](TestKeys::issue).
    pub owner: Owner,
}

impl TestKeys {
    /// Returns keys with the prefix `test` and without limits.
    #[allow(clippy::new_without_default, reason = "`new` shows that nothing is shared")]
    pub fn new() -> Self {
        Self::with(ManualClock::default(), |builder| builder)
    }

    /// Returns keys on a clock, which several of them may share, with what `configure` sets: the accounts and policies of
    /// the service under test, its limits, its hasher or further sinks.
    ///
    /// # Examples
    /// ```
    /// use keyward::{accounts::NoAccounts, model::Limits, testing::{ManualClock, TestKeys}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::at("2026-12-31T23:59:59Z".parse()?);
    /// let plan = NoAccounts::with_limits(Limits::default().max_active_keys(1));
    /// let test = TestKeys::with(clock.clone(), |builder| builder.accounts(plan));
    /// let issued = test.issue(["builds:read"]).await;
    /// assert_eq!(issued.key.created_at.to_string(), "2026-12-31T23:59:59.000Z");
    /// # Ok(()) }
    /// ```
    pub fn with(
        clock: ManualClock,
        configure: impl FnOnce(ApiKeysBuilder) -> ApiKeysBuilder,
    ) -> Self {
        let format = KeyFormat::builder("test").build().expect("a constant, valid format");
        let owner = Owner::new("tenant", "account").expect("both are valid");
        let events = Events::default();
        let builder = ApiKeys::builder(MemoryStore::new(), format)
            .accounts(NoAccounts::with_limits(Limits::default()))
            .audit(events.clone());
        let keys = configure(builder).clock(clock.clone()).build();
        Self { keys, clock, events, owner }
    }

    /// Issues a key with exactly these scopes.
    ///
    /// # Panics
    /// If one of them is not a valid scope, or if the accounts or the policy of the service refuse the key.
    pub async fn issue<'a>(&self, scopes: impl IntoIterator<Item = &'a str>) -> Issued {
        let access = Access::only(scopes).expect("valid scopes");
        let new = NewKey::new(&self.owner, "test key").expect("a constant, valid name");
        let issued = self.keys.issue(new.access(access), &Actor::system("test")).await;
        issued.expect("the service's accounts and policy permit the key")
    }
}

/// A clock that moves only when a test advances or sets it. Clones share their time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<ClockReading>>);

impl ManualClock {
    /// Returns a clock that shows `instant`.
    pub fn at(instant: Timestamp) -> Self {
        let monotonic = Duration::from_secs(1);
        Self(Arc::new(Mutex::new(ClockReading { wall: instant, monotonic })))
    }

    /// Advances the wall clock and the monotonic clock.
    pub fn advance(&self, duration: Duration) {
        let mut now = lock(&self.0);
        *now = ClockReading { wall: now.wall.after(duration), monotonic: now.monotonic + duration };
    }

    /// Sets the wall clock, forward or back. The monotonic clock does not move. A step of more than half a second counts
    /// as a jump: cached entries are read again. If it is set back, time goes on from where it was.
    pub fn set(&self, instant: Timestamp) {
        lock(&self.0).wall = instant;
    }
}

/// Shows 2026-01-01T00:00:00Z.
impl Default for ManualClock {
    fn default() -> Self {
        Self::at(Timestamp::from_unix_micros(1_767_225_600_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.reading().wall
    }

    fn reading(&self) -> ClockReading {
        *lock(&self.0)
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

/// A sink that stores all events. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<AuditEvent>>>);

impl Events {
    /// Returns all events so far, in the order of arrival.
    pub fn all(&self) -> Vec<AuditEvent> {
        lock(&self.0).clone()
    }

    /// Returns the kinds of all events so far, in the order of arrival.
    pub fn kinds(&self) -> Vec<EventKind> {
        lock(&self.0).iter().map(|event| event.kind).collect()
    }
}

impl AuditSink for Events {
    fn event(&self, event: &AuditEvent) {
        lock(&self.0).push(event.clone());
    }
}
