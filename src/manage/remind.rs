use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use sha2::Digest as _;

use crate::{
    api::{ApiKeys, Inner},
    error::{Error, ErrorKind},
    manage::read::Page,
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    model::{Actor, EventId, Key, KeyId, OwnerScope, Period, Status, Timestamp},
    secret::{Hasher, Sha256Hasher},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    verify::begin_of_hour,
};

/// Of what owners are reminded. By default of secrets that are 90 days old, of keys that expire
/// within 7 days, and of keys that were not used for 90 days.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use keyward::{OwnerScope, manage::{Page, Reminders}, testing::TestKeys};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let test = TestKeys::new();
/// # let (keys, ada) = (&test.keys, &test.owner);
/// # let issued = test.issue(["a"]).await;
/// # let day = Duration::from_secs(86_400);
/// let reminders = Reminders::none().rotation_after(day * 30);
/// # test.clock.advance(day * 30);
/// for reminder in keys.due(ada, &reminders, Page::first()).await?.reminders {
///     println!("{}: {} since {}", reminder.key.name, reminder.kind, reminder.since);
/// }
/// assert_eq!(keys.remind(OwnerScope::Tenant(ada.tenant()), &reminders).await?, 1);
/// assert_eq!(keys.remind(OwnerScope::Tenant(ada.tenant()), &reminders).await?, 0, "once is enough");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Reminders {
    rotation_after: Option<Duration>,
    expiring_within: Option<Duration>,
    unused_for: Option<Duration>,
}

/// Something that a key's owner should look at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reminder {
    /// The key.
    pub key: Arc<Key>,
    /// [`RotationDue`](EventKind::RotationDue), [`Expiring`](EventKind::Expiring) or
    /// [`Unused`](EventKind::Unused).
    pub kind: EventKind,
    /// From when on it was due.
    pub since: Timestamp,
}

/// What is due among the keys of one page, and where to go on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DuePage {
    /// What is due: of one key perhaps several things, of most keys nothing.
    pub reminders: Vec<Reminder>,
    /// What to pass to [`Page::after`] for the next keys; `None` if these were the last.
    pub next: Option<KeyId>,
}

impl Reminders {
    /// Of nothing yet.
    pub fn none() -> Self {
        Self { rotation_after: None, expiring_within: None, unused_for: None }
    }

    /// Of secrets that are so old. A rotation starts the count anew.
    pub fn rotation_after(mut self, age: Duration) -> Self {
        self.rotation_after = Some(age);
        self
    }

    /// Of keys that expire within this time; if they do not live longer than that, at half their life.
    pub fn expiring_within(mut self, notice: Duration) -> Self {
        self.expiring_within = Some(notice);
        self
    }

    /// Of keys that were not used for so long, or never since they were issued so long ago. A use
    /// starts the count anew.
    pub fn unused_for(mut self, time: Duration) -> Self {
        self.unused_for = Some(time);
        self
    }

    fn of(&self, key: &Arc<Key>, now: Timestamp) -> Vec<Reminder> {
        let made_at = key.rotated_at.unwrap_or(key.created_at);
        let used_at = key.last_used_at.unwrap_or(key.created_at);
        let expiring = self.expiring_within.zip(key.expires_at);
        let expiring = expiring.map(|(notice, end)| {
            let lifetime = end.since(key.created_at);
            (if notice < lifetime { notice } else { lifetime / 2 }, end)
        });
        let dates = [
            (EventKind::RotationDue, self.rotation_after.map(|age| made_at.after(age))),
            (EventKind::Expiring, expiring.map(|(notice, end)| end.before(notice))),
            (EventKind::Unused, self.unused_for.map(|time| used_at.after(time))),
        ];
        let due = |(kind, since): (EventKind, Option<Timestamp>)| {
            let since = since.filter(|since| *since <= now)?;
            Some(Reminder { key: key.clone(), kind, since })
        };
        dates.into_iter().filter_map(due).collect()
    }
}

impl Default for Reminders {
    fn default() -> Self {
        Self::none().rotation_after(DAY * 90).expiring_within(DAY * 7).unused_for(DAY * 90)
    }
}

impl Reminder {
    /// The same on each node, and for nothing else: what tells whether it was given already.
    fn event_id(&self) -> EventId {
        let mut hash = sha2::Sha256::new();
        hash.update(self.key.id.as_bytes());
        hash.update(self.since.as_unix_micros().to_be_bytes());
        hash.update(self.kind.as_str());
        let hash: [u8; 32] = hash.finalize().into();
        EventId::at(self.since, &hash)
    }

    fn words(&self) -> String {
        match (self.kind, self.key.expires_at) {
            (EventKind::Expiring, Some(end)) => format!("it expires at {end}"),
            (EventKind::Unused, _) => match self.key.last_used_at {
                Some(used_at) => format!("it was last used at {used_at}"),
                None => "it was never used".into(),
            },
            _ => {
                let made_at = self.key.rotated_at.unwrap_or(self.key.created_at);
                format!("its secret was made at {made_at}")
            }
        }
    }
}

impl ApiKeys {
    /// What is due among the active keys of an owner or a tenant. It changes nothing, and tells
    /// nobody.
    ///
    /// # Errors
    /// Only those of a store that fails.
    pub async fn due<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        reminders: &Reminders,
        page: Page,
    ) -> Result<DuePage, Error> {
        let listed = self.list(within, page.status(Status::Active)).await?;
        let now = self.inner.now();
        let due = listed.keys.iter().flat_map(|key| reminders.of(key, now)).collect();
        Ok(DuePage { reminders: due, next: listed.next })
    }

    /// Writes an event for all that is due among the active keys of an owner or a tenant, and tells
    /// the sinks; and answers how many were written.
    ///
    /// There is one event for each key and date, whoever calls this, and however often; a rotation,
    /// or a use, makes another date. It is known by the event in the log: when that has been purged,
    /// what is still due is told once more. Where [`builder`](crate::api::ApiKeysBuilder::reminders) was
    /// given what to remind of, it happens by itself every hour, in all tenants, on one of all nodes.
    ///
    /// # Errors
    /// Only those of a store that fails; the rest is told the next time.
    pub async fn remind<'a>(
        &self,
        within: impl Into<OwnerScope<'a>>,
        reminders: &Reminders,
    ) -> Result<u64, Error> {
        remind_while(|| Some(self.inner.clone()), within.into(), reminders, u64::MAX).await
    }
}

/// Holds on to nothing between two reminders, and ends when there is nobody to give them, or so many
/// are given.
async fn remind_while(
    living: impl Fn() -> Option<Arc<Inner>>,
    within: OwnerScope<'_>,
    reminders: &Reminders,
    most: u64,
) -> Result<u64, Error> {
    let (mut page, mut told) = (Page::first().limit(500), 0);
    while let Some(inner) = living() {
        let due = ApiKeys { inner }.due(within, reminders, page).await?;
        for reminder in &due.reminders {
            let Some(inner) = living().filter(|_| told < most) else { return Ok(told) };
            told += u64::from(inner.tell_once(reminder).await?);
        }
        match due.next {
            Some(last) => page = page.after(last),
            None => break,
        }
    }
    Ok(told)
}

impl Inner {
    /// The stored event is what lasts: whoever finds it says nothing. The one use of an hour only
    /// keeps two nodes from looking at the same time, and is free again if one ends in between.
    async fn tell_once(self: &Arc<Self>, reminder: &Reminder) -> Result<bool, Error> {
        let (now, id) = (self.now(), reminder.event_id());
        if self.is_told(reminder, id).await? {
            return Ok(false);
        }
        let turn = Sha256Hasher.digest(&[b"reminder ", id.as_bytes().as_slice()].concat());
        if !self.takes_one(CounterKey::Anonymous(&turn), now).await?
            || self.is_told(reminder, id).await?
        {
            return Ok(false);
        }
        let by = Actor::system("reminder");
        let event = AuditEvent::of(id, now, reminder.kind, &reminder.key, &by);
        self.log(event.reason(&reminder.words())).await?;
        Ok(true)
    }

    async fn is_told(&self, reminder: &Reminder, id: EventId) -> Result<bool, Error> {
        let Reminder { key, kind, .. } = reminder;
        let mut query = AuditQuery::new(&key.owner).key(key.id).kind(*kind).limit(100);
        loop {
            let events = self.store.events(&query).await?;
            if events.iter().any(|event| event.id == id) {
                return Ok(true);
            }
            match events.last() {
                Some(last) if last.id > id => query = query.after(last.id),
                _ => return Ok(false),
            }
        }
    }

    /// Whether this node gets the one use that there is in this hour.
    pub(crate) async fn takes_one(
        &self,
        payer: CounterKey<'_>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (period, window) = (Period::Ever, begin_of_hour(now));
        let turn = CounterCharge { payer, period, window, limit: 1, uses: 1 };
        Ok(matches!(self.store.charge(&[turn]).await?, ChargeOutcome::Granted(_)))
    }
}

/// The hourly job, on the node whose turn it is. It is over when the `ApiKeys` are gone.
pub(crate) async fn remind_all(inner: Weak<Inner>) -> Result<(), Error> {
    let living = || inner.upgrade().filter(|inner| !inner.is_shut_down());
    let Some(first) = living() else { return Ok(()) };
    let Some(reminders) = first.reminders.clone() else { return Ok(()) };
    if !first.takes_one(CounterKey::Job("remind"), first.now()).await? {
        return Ok(());
    }
    drop(first);
    let mut left = EACH_HOUR;
    let mut after: Option<String> = None;
    while let Some(inner) = living() {
        let mut tenants = inner.store.tenants(after.as_deref(), TENANTS_AT_ONCE).await?;
        drop(inner);
        for tenant in &tenants {
            match remind_while(living, OwnerScope::Tenant(tenant), &reminders, left).await {
                Ok(told) => left -= told,
                // What is damaged in one tenant is no reason to pass the others over.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        after = tenants.pop();
        if after.is_none() || left == 0 {
            break;
        }
    }
    Ok(())
}

/// What comes all at once the first time leaves room for other letters.
const EACH_HOUR: u64 = 500;
const TENANTS_AT_ONCE: u32 = 100;
const DAY: Duration = Duration::from_secs(86_400);
