use std::{sync::Arc, time::Duration};

use sha2::Digest as _;

use super::manager::{Manager, Page};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind},
    error::Error,
    model::{Actor, DAY, EventId, Key, KeyId, OwnerScope, Status, Timestamp},
};

/// What owners are reminded of. Defaults to secrets of 90 days, keys that expire within 7 days, and 90 days without use.
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
/// for reminder in keys.due_reminders(ada, &reminders, Page::first()).await?.reminders {
///     println!("{}: {} since {}", reminder.key.name, reminder.kind, reminder.since);
/// }
/// assert_eq!(keys.remind(OwnerScope::Tenant(ada.tenant()), &reminders).await?, 1);
/// assert_eq!(keys.remind(OwnerScope::Tenant(ada.tenant()), &reminders).await?, 0, "only once");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Reminders {
    rotation_after: Option<Duration>,
    expiring_within: Option<Duration>,
    unused_for: Option<Duration>,
}

/// A reminder of something that a key's owner should look at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reminder {
    /// The key.
    pub key: Arc<Key>,
    /// [`RotationDue`](EventKind::RotationDue), [`Expiring`](EventKind::Expiring) or [`Unused`](EventKind::Unused).
    pub kind: EventKind,
    /// Since when the reminder is due.
    pub since: Timestamp,
}

/// The reminders that are due for the keys of one page.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DuePage {
    /// The reminders: several for some keys, none for most.
    pub reminders: Vec<Reminder>,
    /// What to pass to [`Page::after`] for the next page; `None` on the last page.
    pub next: Option<KeyId>,
}

impl Reminders {
    /// Creates a configuration without reminders.
    pub fn none() -> Self {
        Self { rotation_after: None, expiring_within: None, unused_for: None }
    }

    /// Reminds of secrets that are this old. A rotation restarts the time.
    pub fn rotation_after(self, age: Duration) -> Self {
        Self { rotation_after: Some(age), ..self }
    }

    /// Reminds of keys that expire within this time; of keys with a shorter lifetime, at half of it.
    pub fn expiring_within(self, notice: Duration) -> Self {
        Self { expiring_within: Some(notice), ..self }
    }

    /// Reminds of keys that were not used for this time, or not since they were issued. A use restarts the time.
    pub fn unused_for(self, time: Duration) -> Self {
        Self { unused_for: Some(time), ..self }
    }

    fn due(&self, key: &Arc<Key>, now: Timestamp) -> Vec<Reminder> {
        let made_at = key.rotated_at.unwrap_or(key.created_at);
        let used_at = key.last_used_at.unwrap_or(key.created_at);
        let expiring = self.expiring_within.zip(key.expires_at).map(|(notice, end)| {
            let lifetime = end.since(key.created_at);
            end.before(if notice < lifetime { notice } else { lifetime / 2 })
        });
        let dates = [
            (EventKind::RotationDue, self.rotation_after.map(|age| made_at.after(age))),
            (EventKind::Expiring, expiring),
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
    /// Returns the id of the reminder's event: the same on each node, and different for each key, date and kind.
    fn event_id(&self) -> EventId {
        let hash = sha2::Sha256::new_with_prefix(self.key.id.as_bytes())
            .chain_update(self.since.as_unix_micros().to_be_bytes())
            .chain_update(self.kind.as_str());
        EventId::at(self.since, &hash.finalize().into())
    }

    fn reason(&self) -> String {
        let Key { expires_at, last_used_at, rotated_at, created_at, .. } = &*self.key;
        match (self.kind, expires_at, last_used_at) {
            (EventKind::Expiring, Some(end), _) => format!("it expires at {end}"),
            (EventKind::Unused, _, Some(used_at)) => format!("it was last used at {used_at}"),
            (EventKind::Unused, ..) => "it was never used".into(),
            _ => format!("its secret was made at {}", rotated_at.unwrap_or(*created_at)),
        }
    }
}

impl Manager {
    pub(crate) async fn due_reminders(
        &self,
        within: OwnerScope<'_>,
        reminders: &Reminders,
        page: Page,
    ) -> Result<DuePage, Error> {
        let listed = self.list(within, page.status(Status::Active)).await?;
        let now = self.clock.checked_now().await?.at;
        let due = listed.keys.iter().flat_map(|key| reminders.due(key, now)).collect();
        Ok(DuePage { reminders: due, next: listed.next })
    }

    /// Writes the event of a reminder, unless it is written already. Returns whether this call wrote it.
    async fn remind_once(&self, reminder: &Reminder) -> Result<bool, Error> {
        let (at, id) = (self.clock.checked_now().await?.at, reminder.event_id());
        // Most were written in an earlier hour, and a read costs less than a write.
        if self.is_reminded(reminder, id).await? {
            return Ok(false);
        }
        let event = AuditEvent::by(id, at, reminder.kind, &Actor::system("reminder"));
        let event = event.of_key(&reminder.key).reason(&reminder.reason());
        // Of all nodes that write the event, the store adds that of one.
        Ok(self.write_events(vec![event]).await? == 1)
    }

    async fn is_reminded(&self, reminder: &Reminder, id: EventId) -> Result<bool, Error> {
        let Reminder { key, kind, .. } = reminder;
        // The newest event before the next id has this id, if any has.
        let next = EventId::from_bytes((u128::from_be_bytes(*id.as_bytes()) + 1).to_be_bytes());
        let query = AuditQuery::new(&key.owner).key(key.id).kind(*kind).after(next).limit(1);
        Ok(self.store.events(&query).await?.iter().any(|event| event.id == id))
    }
}

/// Writes the events of due reminders while `manager` returns one, up to `max`. Holds nothing between two reminders.
pub(crate) async fn remind_while(
    manager: impl Fn() -> Option<Arc<Manager>>,
    within: OwnerScope<'_>,
    reminders: &Reminders,
    max: u64,
) -> Result<u64, Error> {
    let (mut page, mut written) = (Page::first().limit(500), 0);
    while let Some(current) = manager() {
        let due = current.due_reminders(within, reminders, page).await?;
        drop(current);
        for reminder in &due.reminders {
            let Some(manager) = manager().filter(|_| written < max) else { return Ok(written) };
            written += u64::from(manager.remind_once(reminder).await?);
        }
        match due.next {
            Some(last) => page = page.after(last),
            None => break,
        }
    }
    Ok(written)
}
