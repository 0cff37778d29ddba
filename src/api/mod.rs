//! The facade: [`ApiKeys`], through which a host does everything.

mod builder;
mod health;

pub use builder::ApiKeysBuilder;
pub use health::Health;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    accounts::{Account, Accounts, StepUp},
    audit::Fanout,
    model::{Owner, Timestamp},
    secret::{Formats, Hashers},
    store::KeyStore,
    verify::{Cache, Flights, Rates},
};
use crate::{
    error::Error,
    manage::{Reminders, Retention},
    system::{Clock, IdGenerator, Moment},
};
use crate::{
    system::Ratchet,
    verify::{Follower, Loaded, Outbox},
};

/// Issues keys, verifies secrets, and manages both. Cheap to clone; clones share everything.
///
/// Every change is written whole, together with its audit event, before it is acknowledged. It runs
/// to its end also when the caller's future is dropped.
///
/// # Examples
/// ```
/// use keyward::{Actor, ApiKeys, KeyFormat, MemoryStore, Owner, VerifyRequest, manage::NewKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?).build();
/// let ada = Owner::new("acme", "ada")?;
/// let actor = Actor::account("ada@example.com");
///
/// let issued = keys.issue(NewKey::new(&ada, "ci-pipeline")?, &actor).await?;
/// let verified = keys.verify(issued.secret.expose(), &VerifyRequest::new()).await?;
/// assert_eq!(verified.owner(), &ada);
///
/// keys.revoke(&ada, issued.key.id, "laptop lost", &actor).await?;
/// assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ApiKeys {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) formats: Formats,
    pub(crate) hashers: Hashers,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) step_up: Arc<dyn StepUp>,
    pub(crate) sinks: Fanout,
    clock: Arc<dyn Clock>,
    /// That of the clock.
    lag: Duration,
    pub(crate) ids: IdGenerator,
    pub(crate) rates: Rates,
    pub(crate) outbox: Outbox,
    pub(crate) cache: Option<Cache>,
    pub(crate) flights: Flights<Loaded>,
    pub(crate) follower: Follower,
    pub(crate) janitor: Option<Retention>,
    pub(crate) reminders: Option<Reminders>,
    /// How often cleaning up or reminding failed.
    pub(crate) failed_jobs: AtomicUsize,
    pub(crate) ratchet: Ratchet,
    shut_down: AtomicBool,
}

/// This instant: as a calendar tells it, but never back, and in nanoseconds of a clock that nobody
/// sets.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Timestamp,
    /// It is not later than that: what ends after this is not over.
    pub(crate) latest: Timestamp,
    pub(crate) tick: u64,
}

impl Now {
    /// For what is counted by time that passes, whatever a calendar says. Of no use as a date.
    #[inline]
    pub(crate) fn steady(&self) -> Timestamp {
        Timestamp::from_unix_micros((self.tick / 1_000) as i64)
    }
}

impl Inner {
    /// Nothing that happens afterwards is dated earlier, also where a glance is taken for it.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.ratchet.at_least(self.clock.now());
        self.ratchet.hold(now);
        now
    }

    /// Cheap, and a little late.
    #[inline]
    pub(crate) fn glance(&self) -> Now {
        self.of(self.clock.glance(), self.lag)
    }

    /// Where a glance does not suffice.
    #[cold]
    pub(crate) fn exact(&self) -> Now {
        self.of(self.clock.moment(), Duration::ZERO)
    }

    #[inline]
    fn of(&self, Moment { at, elapsed }: Moment, lag: Duration) -> Now {
        let tick = elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos());
        let at = self.ratchet.at_least(at);
        Now { at, latest: at.after(lag), tick }
    }

    fn shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
        self.follower.stop();
        self.outbox.hurry();
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    pub(crate) async fn account(&self, owner: &Owner) -> Result<Arc<Account>, Error> {
        match self.accounts.account_if_ready(owner) {
            Some(account) => Ok(account),
            None => self.accounts.account(owner).await.map_err(Error::accounts),
        }
    }
}

impl ApiKeys {
    /// Whether the other is a clone of this one.
    #[cfg(feature = "http")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The present, as everything here sees it.
    pub(crate) fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeys")
            .field("formats", &self.inner.formats)
            .field("hashers", &self.inner.hashers)
            .finish_non_exhaustive()
    }
}
