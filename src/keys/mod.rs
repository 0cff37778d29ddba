//! The facade: [`ApiKeys`], through which a host does everything.

mod builder;
mod change;
mod clock;
mod coarse;
mod codes;
mod error;
mod export;
mod follow;
mod health;
mod issue;
mod janitor;
mod leaked;
mod lookup;
mod manage;
mod note;
mod outbox;
mod pay;
mod purge;
mod read;
mod remind;
mod request;
mod reserve;
mod rotate;
mod sanction;
mod verdict;
mod verify;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use builder::ApiKeysBuilder;
pub use clock::{Clock, Moment, SystemClock};
pub use error::{Error, ErrorKind};
pub use export::AuditExport;
pub use health::Health;
pub use issue::{Issued, NewKey};
pub use leaked::Identified;
pub use manage::KeyChange;
pub use purge::{Purge, Purged};
pub use read::{KeyPage, Page};
pub use remind::{DuePage, Reminder, Reminders};
pub use request::Request;
pub use reserve::{Committed, Reservation};
pub use rotate::Rotation;
pub use verify::VerifyError;

use self::{clock::Ratchet, follow::Follower, lookup::Loaded, outbox::Outbox};
use crate::{
    accounts::{Account, Accounts},
    audit::Fanout,
    cache::{Cache, Flights},
    format::Formats,
    hash::Hashers,
    key::{IdGenerator, Owner, Timestamp},
    limits::Rates,
    step_up::StepUp,
    store::KeyStore,
};

/// Issues keys, verifies secrets, and manages both. Cheap to clone; clones share everything.
///
/// Every change is written whole, together with its audit event, before it is acknowledged. It runs
/// to its end also when the caller's future is dropped.
///
/// # Examples
/// ```
/// use keyward::{Actor, ApiKeys, KeyFormat, MemoryStore, Owner, Request, keys::NewKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?).build();
/// let ada = Owner::new("acme", "ada")?;
/// let actor = Actor::account("ada@example.com");
///
/// let issued = keys.issue(NewKey::new(&ada, "ci-pipeline")?, &actor).await?;
/// let verified = keys.verify(issued.secret.expose(), &Request::new()).await?;
/// assert_eq!(verified.owner(), &ada);
///
/// keys.revoke(&ada, issued.key.id, "laptop lost", &actor).await?;
/// assert!(keys.verify(issued.secret.expose(), &Request::new()).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ApiKeys {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn KeyStore>,
    formats: Formats,
    hashers: Hashers,
    accounts: Arc<dyn Accounts>,
    step_up: Arc<dyn StepUp>,
    sinks: Fanout,
    clock: Arc<dyn Clock>,
    /// That of the clock.
    lag: Duration,
    ids: IdGenerator,
    rates: Rates,
    outbox: Outbox,
    cache: Option<Cache>,
    flights: Flights<Loaded>,
    follower: Follower,
    janitor: Option<Purge>,
    reminders: Option<Reminders>,
    /// How often cleaning up or reminding failed.
    failed_jobs: AtomicUsize,
    ratchet: Ratchet,
    shut_down: AtomicBool,
}

/// This instant: as a calendar tells it, but never back, and in nanoseconds of a clock that nobody
/// sets.
#[derive(Clone, Copy)]
struct Now {
    at: Timestamp,
    /// It is not later than that: what ends after this is not over.
    latest: Timestamp,
    tick: u64,
}

impl Now {
    /// For what is counted by time that passes, whatever a calendar says. Of no use as a date.
    #[inline]
    fn steady(&self) -> Timestamp {
        Timestamp::from_unix_micros((self.tick / 1_000) as i64)
    }
}

impl Inner {
    /// Nothing that happens afterwards is dated earlier, also where a glance is taken for it.
    fn now(&self) -> Timestamp {
        let now = self.ratchet.at_least(self.clock.now());
        self.ratchet.hold(now);
        now
    }

    /// Cheap, and a little late.
    #[inline]
    fn glance(&self) -> Now {
        self.of(self.clock.glance(), self.lag)
    }

    /// Where a glance does not suffice.
    #[cold]
    fn exact(&self) -> Now {
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

    fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, Error> {
        match self.accounts.at_once(owner) {
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
