use std::{sync::Arc, time::Duration};

use crate::{api::ApiKeys, error::Error};
use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, OwnerScope, Status},
    secret::Formats,
    store::{HourlyUsage, KeyQuery},
    verify::begin_of_hour,
};

/// Which keys to list. By default the newest fifty, of every status.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Page {
    status: Option<Status>,
    after: Option<KeyId>,
    limit: u32,
}

/// Keys, newest first, and where to go on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Arc<Key>>,
    /// What to pass to [`Page::after`] for the next ones; `None` if these were the last.
    pub next: Option<KeyId>,
}

impl Page {
    /// The newest fifty keys.
    pub fn first() -> Self {
        Self { status: None, after: None, limit: 50 }
    }

    /// Only keys that have this status now.
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// The page behind the one that gave this as [`KeyPage::next`].
    pub fn after(mut self, last: KeyId) -> Self {
        self.after = Some(last);
        self
    }

    /// How many keys; 1 to 1,000.
    pub fn limit(mut self, keys: u32) -> Self {
        self.limit = keys.clamp(1, 1_000);
        self
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first()
    }
}

impl ApiKeys {
    /// One key.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound), also if it belongs to someone else.
    pub async fn get<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
    ) -> Result<Arc<Key>, Error> {
        self.inner.store.get(within.into(), id).await?.ok_or_else(Error::not_found)
    }

    /// Keys of an owner or a tenant, newest first. Keys that are issued meanwhile do not shift
    /// the pages behind.
    ///
    /// # Errors
    /// Only those of a store that fails.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, Status, manage::Page, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::account("ada"));
    /// # let issued = test.issue(["a"]).await;
    /// let mut page = Page::first().status(Status::Active);
    /// loop {
    ///     let listed = keys.list(ada, page).await?;
    ///     for key in listed.keys {
    ///         println!("{}…  {}", key.hint, key.name);
    ///     }
    ///     let Some(next) = listed.next else { break };
    ///     page = page.after(next);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn list<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        page: Page,
    ) -> Result<KeyPage, Error> {
        let Page { status, after, limit } = page;
        let (within, now) = (within.into(), self.inner.now());
        // One more than asked for tells whether there are more.
        let query = KeyQuery { within, status, after, limit: limit + 1, now };
        let mut keys = self.inner.store.list(&query).await?;
        let more = keys.len() > limit as usize;
        keys.truncate(limit as usize);
        let next = keys.last().filter(|_| more).map(|key| key.id);
        Ok(KeyPage { keys, next })
    }

    /// How often a key was presented in each of the last hours, the present one included, and what
    /// became of it: for a sparkline. The oldest hour comes first, and none is left out.
    ///
    /// Uses are counted in memory and written about once a minute. They are kept for as long as
    /// [`Retention`](crate::manage::purge::Retention) says, 30 days by default.
    ///
    /// # Errors
    /// As [`get`](ApiKeys::get).
    ///
    /// # Examples
    /// ```
    /// # use keyward::{VerifyRequest, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada) = (&test.keys, &test.owner);
    /// # let issued = test.issue(["a"]).await;
    /// keys.verify(issued.secret.expose(), &VerifyRequest::new()).await?;
    /// keys.flush().await?; // or a minute later
    /// let day = keys.usage_history(ada, issued.key.id, 24).await?;
    /// assert_eq!((day.len(), day[23].accepted, day[23].denied), (24, 1, 0));
    /// # Ok(()) }
    /// ```
    pub async fn usage_history<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        id: KeyId,
        hours: u32,
    ) -> Result<Vec<HourlyUsage>, Error> {
        let within = within.into();
        let key_id = self.get(within, id).await?.id;
        let last = begin_of_hour(self.inner.now());
        let hour = |n: u32| last.before(Duration::from_secs(3_600) * n);
        let hours = hours.clamp(1, MOST_HOURS);
        let counted = self.inner.store.usage_history(within, id, hour(hours - 1)).await?;
        let tally = |hour| {
            let known = counted.iter().find(|tally| tally.hour == hour).copied();
            known.unwrap_or(HourlyUsage::none(key_id, hour))
        };
        Ok((0..hours).rev().map(|n| tally(hour(n))).collect())
    }

    /// Events of the audit log, newest first; page by passing the last one's id to
    /// [`AuditQuery::after`].
    ///
    /// # Errors
    /// Only those of a store that fails.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, AuditQuery, audit::EventKind, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::account("ada"));
    /// # let issued = test.issue(["a"]).await;
    /// let query = AuditQuery::new(ada).key(issued.key.id);
    /// let events = keys.events(query).await?;
    /// assert_eq!(events[0].kind, EventKind::Created);
    /// println!("{}", events[0]); // one harmless line
    /// # Ok(()) }
    /// ```
    pub async fn events(&self, query: AuditQuery<'_>) -> Result<Vec<AuditEvent>, Error> {
        Ok(self.inner.store.events(&query).await?)
    }

    /// What secrets look like here.
    pub fn formats(&self) -> &Formats {
        &self.inner.formats
    }
}

/// A month of them.
const MOST_HOURS: u32 = 31 * 24;
