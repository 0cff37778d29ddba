use std::{
    collections::HashSet,
    mem::take,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use crate::{
    accounts::{Accounts, StepUp},
    audit::{AuditEvent, AuditQuery, EventKind, ExportFormat, Fanout},
    error::{Error, ErrorKind},
    model::{Actor, HOUR, Key, KeyId, OwnedScope, OwnerScope, Status, Timestamp, debug_only},
    secret::{Formats, Hashers},
    store::{Capability, HourlyUsage, KeyQuery, KeyStore},
    system::IdGenerator,
    verify::{Cache, CheckedClock, WriteBehind, start_of_hour},
};

/// Which keys to list. Defaults to the newest 50, of every status.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Page {
    pub(crate) status: Option<Status>,
    pub(crate) after: Option<KeyId>,
    limit: u32,
}

/// A page of keys, newest first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Arc<Key>>,
    /// The keys of this page whose records are damaged, newest first. Reading or presenting one is
    /// [`Corrupt`](crate::ErrorKind::Corrupt); restore its record from a backup, or delete it.
    pub damaged: Vec<KeyId>,
    /// What to pass to [`Page::after`] for the next page; `None` on the last page.
    pub next: Option<KeyId>,
}

impl Page {
    /// Creates the first page of 50 keys.
    pub fn first() -> Self {
        Self { status: None, after: None, limit: 50 }
    }

    /// Lists only keys that have this status now.
    pub fn status(self, status: Status) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Lists the keys after `last`, which is the [`KeyPage::next`] of the page before.
    pub fn after(self, last: KeyId) -> Self {
        Self { after: Some(last), ..self }
    }

    /// Sets the maximum number of keys. Values outside 1 to 1,000 are raised or lowered to the nearest of them.
    pub fn limit(self, keys: u32) -> Self {
        Self { limit: keys.clamp(1, 1_000), ..self }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first()
    }
}

/// Manages keys: one of the two parts of [`ApiKeys`](crate::ApiKeys).
#[derive(Clone)]
pub(crate) struct Manager {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) step_up: Arc<dyn StepUp>,
    pub(crate) formats: Arc<Formats>,
    pub(crate) hashers: Hashers,
    pub(crate) clock: Arc<CheckedClock>,
    pub(crate) ids: Arc<IdGenerator>,
    pub(crate) sinks: Arc<Fanout>,
    /// Invalidated by every change.
    pub(crate) cache: Arc<Cache>,
    /// Has the uses that are not written yet.
    pub(crate) writer: Arc<WriteBehind>,
    pub(crate) jobs: Arc<JobState>,
}

/// The state of the hourly jobs.
#[derive(Default)]
pub(crate) struct JobState {
    /// The hour in which this node last started its jobs.
    pub(super) started_in: Mutex<Option<Timestamp>>,
    /// How many jobs have failed. A failed job runs again in the next hour.
    pub(crate) failed: AtomicUsize,
    /// Running jobs stop after their current step.
    pub(crate) stopped: AtomicBool,
}

/// A key that a call is about, and who makes the call.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) within: OwnerScope<'a>,
    pub(crate) id: KeyId,
    pub(crate) by: &'a Actor,
}

impl Manager {
    pub(crate) async fn get(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Arc<Key>, Error> {
        self.store.get(within, id).await?.ok_or_else(Error::not_found)
    }

    /// Reads a key that is neither revoked nor expired.
    pub(super) async fn live(&self, within: OwnerScope<'_>, id: KeyId) -> Result<Arc<Key>, Error> {
        let key = self.get(within, id).await?;
        if key.is_live(self.clock.checked_now().await?.at) {
            return Ok(key);
        }
        let ended = if key.revoked.is_some() { "revoked" } else { "expired" };
        let message = format!("the key is {ended}, which is permanent: issue a new one");
        Err(Error::new(ErrorKind::NotLive, message))
    }

    pub(crate) async fn list(&self, within: OwnerScope<'_>, page: Page) -> Result<KeyPage, Error> {
        let Page { status, after, limit } = page;
        // One more than the limit, to know whether there are more.
        let query = KeyQuery { within, status, after, limit: limit + 1, now: self.clock.now() };
        let (mut keys, mut damaged) = match self.store.list(&query).await {
            Ok(keys) => (keys, Vec::new()),
            Err(error) => error.into_readable()?,
        };
        let ids = keys.iter().map(|key| key.id);
        let mut ids: Vec<_> = ids.chain(damaged.iter().copied()).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let next = (ids.len() > limit as usize).then(|| ids[limit as usize - 1]);
        if let Some(last) = next {
            keys.retain(|key| key.id >= last);
            damaged.retain(|id| *id >= last);
        }
        Ok(KeyPage { keys, damaged, next })
    }

    pub(crate) async fn usage_history(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        hours: u32,
    ) -> Result<Vec<HourlyUsage>, Error> {
        self.get(within, id).await?;
        let current = start_of_hour(self.clock.now());
        let hours_ago = |n: u32| current.before(HOUR * n);
        let hours = hours.clamp(1, MAX_HOURS);
        let history = self.store.usage_history().ok_or_else(|| {
            let needed_by = "the hourly counts of uses need: use another store";
            Error::not_supported(Capability::UsageHistory, needed_by)
        })?;
        let stored = history.hourly_usage(within, id, hours_ago(hours - 1)).await?;
        let usage = |hour| {
            let known = stored.iter().find(|usage| usage.hour == hour).copied();
            known.unwrap_or(HourlyUsage::none(id, hour))
        };
        Ok((0..hours).rev().map(|n| usage(hours_ago(n))).collect())
    }

    /// Returns the attempts of a change that others may prevent: it ends, however many changes there are.
    pub(super) fn attempts(&self) -> impl Iterator<Item = usize> + use<> {
        let clock = self.clock.clone();
        let began = clock.coarse_now().monotonic_timestamp();
        let has_time =
            move |_: &usize| clock.coarse_now().monotonic_timestamp().since(began) < MAX_RETRYING;
        (0..MAX_ATTEMPTS).take_while(has_time)
    }

    /// Returns an event that happens now, without an owner.
    pub(crate) async fn event(&self, kind: EventKind, by: &Actor) -> Result<AuditEvent, Error> {
        self.clock.checked_now().await?;
        self.event_after_check(kind, by)
    }

    /// Returns an event that happens now, without an owner. Does not read the store's clock: a caller did it before.
    pub(crate) fn event_after_check(
        &self,
        kind: EventKind,
        by: &Actor,
    ) -> Result<AuditEvent, Error> {
        if !self.clock.precise_now().is_trusted {
            return Err(self.clock.refusal());
        }
        let now = self.clock.now();
        Ok(AuditEvent::by(self.ids.event_id(now)?, now, kind, by))
    }

    /// Returns the event of a change that only takes away. It is not refused by a wrong clock: its time is then bounded.
    pub(crate) async fn ending_event(
        &self,
        kind: EventKind,
        by: &Actor,
    ) -> Result<AuditEvent, Error> {
        let now = self.clock.bounded_now().await?;
        Ok(AuditEvent::by(self.ids.event_id(now)?, now, kind, by))
    }

    /// Writes an event for each place where a secret of a key was found, except those that the same actor reported before.
    /// Of more than [`MAX_PLACES`], the first are considered. After [`MAX_LEAKS`] events of a key, none is added.
    pub(crate) async fn record_leaks(
        &self,
        key: &Key,
        places: &[impl AsRef<str> + Sync],
        by: &Actor,
    ) -> Result<(), Error> {
        let known = AuditQuery::new(&key.owner).key(key.id).kind(EventKind::Leaked);
        let known = self.store.events(&known.limit(MAX_LEAKS)).await?;
        if known.len() >= MAX_LEAKS as usize {
            return Ok(());
        }
        let template = self.event(EventKind::Leaked, by).await?.of_key(key);
        let is_known = |event: &AuditEvent| {
            known.iter().any(|known| known.reason == event.reason && known.actor == event.actor)
        };
        let mut different = HashSet::new();
        let all = places.iter().map(|place| template.clone().reason(place.as_ref()));
        let all = all.filter(|event| different.insert(event.reason.clone())).take(MAX_PLACES);
        let mut events: Vec<_> = all.filter(|event| !is_known(event)).collect();
        for event in &mut events {
            event.id = self.ids.event_id(event.at)?;
        }
        self.write_events(events).await.map(drop)
    }
}

/// An export of the audit log. It is read page by page: only one page is in memory.
#[must_use]
#[derive(Clone)]
pub struct AuditExport {
    manager: Arc<Manager>,
    format: ExportFormat,
    within: OwnedScope,
    /// The next page, of `within`.
    query: AuditQuery<'static>,
    head: String,
    pub(crate) is_over: bool,
}

impl AuditExport {
    pub(crate) fn new(manager: Arc<Manager>, query: AuditQuery<'_>, format: ExportFormat) -> Self {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = query;
        let nothing = OwnerScope::Tenant("");
        let query = AuditQuery { within: nothing, key_id, kind, from, until, after, limit };
        let (within, head) = (within.into(), format.header());
        Self { manager, format, within, query, head, is_over: false }
    }

    /// Returns the next page of whole lines; `None` after the last. Events written meanwhile do not shift the pages.
    ///
    /// # Errors
    /// Errors of the store. Nothing is lost by that, nor if the future is dropped: the next call reads the same page.
    pub async fn next_page(&mut self) -> Result<Option<String>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut query: AuditQuery<'_> = self.query;
        query.within = self.within.as_scope();
        let events = self.manager.store.events(&query).await?;
        self.is_over = events.len() < query.limit as usize || events.is_empty();
        self.query.after = events.last().map(|last| last.id);
        let mut page = take(&mut self.head);
        for event in &events {
            self.format.write(&mut page, event);
        }
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}

debug_only!(AuditExport { format, within, is_over });

/// How often, and for how long, a change is retried if others change the key at the same time. Each lost attempt means
/// that another change was written, so only a storm of changes gets this far.
const MAX_ATTEMPTS: usize = 100;
const MAX_RETRYING: Duration = Duration::from_secs(5);
/// The maximum number of places that are logged for one secret of one report: each new one is an event.
const MAX_PLACES: usize = 100;
/// The number of logged leaks of a key from which on no more are logged. More could not be compared with new ones, and
/// each repeated report would be logged again.
const MAX_LEAKS: u32 = 1_000;
/// 31 days.
const MAX_HOURS: u32 = 31 * 24;
