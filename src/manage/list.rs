use std::{sync::Arc, time::Duration};

use super::manager::Manager;
use crate::{
    error::Error,
    model::{Key, KeyId, OwnerScope, Status},
    store::{HourlyUsage, KeyQuery},
    verify::start_of_hour,
};

/// Which keys to list. Defaults to the newest 50, of every status.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Page {
    status: Option<Status>,
    after: Option<KeyId>,
    limit: u32,
}

/// A page of keys, newest first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Arc<Key>>,
    /// What to pass to [`Page::after`] for the next page; `None` on the last page.
    pub next: Option<KeyId>,
}

impl Page {
    /// Creates the first page of 50 keys.
    pub fn first() -> Self {
        Self { status: None, after: None, limit: 50 }
    }

    /// Lists only keys that have this status now.
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets the page that follows the one with this [`KeyPage::next`].
    pub fn after(mut self, last: KeyId) -> Self {
        self.after = Some(last);
        self
    }

    /// Sets the maximum number of keys, 1 to 1,000.
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

impl Manager {
    pub(crate) async fn list(&self, within: OwnerScope<'_>, page: Page) -> Result<KeyPage, Error> {
        let Page { status, after, limit } = page;
        // One more than the limit, to know whether there are more.
        let query = KeyQuery { within, status, after, limit: limit + 1, now: self.clock.now() };
        let mut keys = self.store.list(&query).await?;
        let has_more = keys.len() > limit as usize;
        keys.truncate(limit as usize);
        let next = keys.last().filter(|_| has_more).map(|key| key.id);
        Ok(KeyPage { keys, next })
    }

    pub(crate) async fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        hours: u32,
    ) -> Result<Vec<HourlyUsage>, Error> {
        let key_id = self.get(within, id).await?.id;
        let current = start_of_hour(self.clock.now());
        let hours_ago = |n: u32| current.before(Duration::from_secs(3_600) * n);
        let hours = hours.clamp(1, MAX_HOURS);
        let stored = self.store.usage_history(within, id, hours_ago(hours - 1)).await?;
        let usage = |hour| {
            let known = stored.iter().find(|usage| usage.hour == hour).copied();
            known.unwrap_or(HourlyUsage::none(key_id, hour))
        };
        Ok((0..hours).rev().map(|n| usage(hours_ago(n))).collect())
    }
}

/// 31 days.
const MAX_HOURS: u32 = 31 * 24;
