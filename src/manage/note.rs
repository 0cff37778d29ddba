use crate::{api::ApiKeys, error::Error};
use crate::{
    audit::{AuditEvent, EventKind, Outcome},
    model::{Actor, Owner},
};

impl ApiKeys {
    /// Writes an event of the host's own into the audit log of an account: a deployment, a sign-in, a
    /// setting. So one log tells all, with one retention and the same exports.
    ///
    /// It is of the kind [`Noted`](EventKind::HostEvent), and `what` stands in its
    /// [`reason`](field@AuditEvent::reason): of that, the first 1,000 characters are kept, and a NUL in it is
    /// replaced. Where the actor is a [key](Actor::key), the event has its id. When this returns, the
    /// event is written and the sinks are told. Each call makes a row: of what strangers can cause
    /// without end, a host notes only so much.
    ///
    /// # Errors
    /// Only those of a store that fails.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{Actor, AuditQuery, audit::{EventKind, Outcome}, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, actor) = (&test.keys, &test.owner, Actor::account("ada"));
    /// keys.record_event(ada, "extension.deployed", Outcome::Success, &actor).await?;
    /// let noted = keys.events(AuditQuery::new(ada).kind(EventKind::HostEvent)).await?;
    /// assert_eq!(noted[0].reason.as_deref(), Some("extension.deployed"));
    /// # Ok(()) }
    /// ```
    pub async fn record_event(
        &self,
        of: &Owner,
        what: &str,
        outcome: Outcome,
        by: &Actor,
    ) -> Result<(), Error> {
        let now = self.now();
        let id = self.inner.ids.event_id(now)?;
        let event = AuditEvent::of_owner(id, now, EventKind::HostEvent, of, by).reason(what);
        let event = AuditEvent { outcome, key_id: by.key_id(), ..event };
        self.inner.log(event).await
    }
}
