//! For the tests of services that use this crate: keys in memory, a clock that is set by hand, and
//! all events at hand. No server, no feature, no set-up.
//!
//! The quickest test of a protected route calls its handler with a secret from
//! [`TestKeys::issue`]:
//!
//! ```
//! use keyward::{ApiKeys, VerifyRequest, VerifyError, testing::TestKeys};
//!
//! /// A route of the service under test.
//! async fn read_builds(keys: &ApiKeys, api_key: &str) -> u16 {
//!     match keys.verify(api_key, &VerifyRequest::new().require(&["builds:read"])).await {
//!         Ok(_) => 200,
//!         Err(VerifyError::Denied(_)) => 401,
//!         Err(VerifyError::Limited(_)) => 429,
//!         Err(VerifyError::Unavailable(_)) => 503,
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let test = TestKeys::new();
//! let issued = test.issue(["builds:read"]).await;
//! assert_eq!(read_builds(&test.keys, issued.secret.expose()).await, 200);
//!
//! let other = test.issue(["deploys:write"]).await;
//! assert_eq!(read_builds(&test.keys, other.secret.expose()).await, 401);
//! # }
//! ```

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    AuditEvent, AuditSink, MemoryStore,
    accounts::NoAccounts,
    api::ApiKeys,
    audit::EventKind,
    manage::{Issued, NewKey},
    model::{Access, Actor, Limits, Owner, Timestamp},
    secret::KeyFormat,
    system::{Clock, ClockReading, lock},
};

/// Keys in memory with a clock and a collector of events.
#[derive(Clone, Debug)]
pub struct TestKeys {
    /// What the code under test is given.
    pub keys: ApiKeys,
    /// The clock that it reads; it stands still until it is moved.
    pub clock: ManualClock,
    /// All events so far.
    pub events: Events,
    /// The owner of the keys from [`issue`](TestKeys::issue).
    pub owner: Owner,
}

impl TestKeys {
    /// Keys with the prefix `test`, any number per owner.
    #[allow(clippy::new_without_default, reason = "a test says `new` and means a fresh one")]
    pub fn new() -> Self {
        let format = KeyFormat::builder("test").build().expect("the format is constant and valid");
        let owner = Owner::new("tenant", "account").expect("both are short words");
        let (clock, events) = (ManualClock::default(), Events::default());
        let keys = ApiKeys::builder(MemoryStore::new(), format)
            .accounts(NoAccounts::with_limits(Limits::default()))
            .clock(clock.clone())
            .audit(events.clone())
            .build();
        Self { keys, clock, events, owner }
    }

    /// Issues a key that may do these things and no others.
    ///
    /// # Panics
    /// If one of them is no scope.
    pub async fn issue<'a>(&self, scopes: impl IntoIterator<Item = &'a str>) -> Issued {
        let access = Access::only(scopes).expect("scopes are visible ASCII");
        let new = NewKey::new(&self.owner, "test key").expect("the name is constant and valid");
        let issued = self.keys.issue(new.access(access), &Actor::system("test")).await;
        issued.expect("memory does not fail")
    }
}

/// A clock that is moved by hand. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<ClockReading>>);

impl ManualClock {
    /// A clock that stands at an instant.
    pub fn at(instant: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(ClockReading {
            wall: instant,
            monotonic: Duration::from_secs(1),
        })))
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let mut now = lock(&self.0);
        *now = ClockReading { wall: now.wall.after(duration), monotonic: now.monotonic + duration };
    }

    /// Sets the calendar, forward or back, as someone sets the clock of a machine: no time passes
    /// by that, so what is cached grows no older.
    pub fn set(&self, instant: Timestamp) {
        lock(&self.0).wall = instant;
    }
}

/// Stands at 2026-01-01.
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
}

/// A sink that keeps what it is told. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<AuditEvent>>>);

impl Events {
    /// All events so far, in the order in which they came.
    pub fn all(&self) -> Vec<AuditEvent> {
        lock(&self.0).clone()
    }

    /// What happened so far, in order.
    pub fn kinds(&self) -> Vec<EventKind> {
        lock(&self.0).iter().map(|event| event.kind).collect()
    }
}

impl AuditSink for Events {
    fn event(&self, event: &AuditEvent) {
        lock(&self.0).push(event.clone());
    }
}
