use http::StatusCode;

use super::{
    Call, Caller, Manage,
    failure::Failure,
    keys::{bad_cursor, limit},
    reply::{Answer, json},
    views::{EventView, EventsView},
};
use crate::{
    audit::AuditQuery,
    key::{KeyId, Timestamp},
};

impl Manage {
    pub(super) async fn audit(&self, caller: &Caller, call: &Call<'_>) -> Answer {
        let known = ["limit", "cursor", "event", "from", "until"];
        let [limit, cursor, event, from, until] = call.parameters(known)?;
        let mut query = AuditQuery::new(caller.whose());
        query.kind = event.as_deref().map(str::parse).transpose()?;
        query.from = from.as_deref().map(str::parse::<Timestamp>).transpose()?;
        query.until = until.as_deref().map(str::parse::<Timestamp>).transpose()?;
        self.page(query, limit.as_deref(), cursor.as_deref()).await
    }

    pub(super) async fn events_of(&self, caller: &Caller, id: KeyId, call: &Call<'_>) -> Answer {
        self.keys.get(caller.whose(), id).await?;
        let [limit, cursor] = call.parameters(["limit", "cursor"])?;
        let query = AuditQuery::new(caller.whose()).key(id);
        self.page(query, limit.as_deref(), cursor.as_deref()).await
    }

    async fn page(
        &self,
        mut query: AuditQuery<'_>,
        limit: Option<&str>,
        cursor: Option<&str>,
    ) -> Answer {
        let limit = self::limit(limit)?;
        query.after = cursor.map(str::parse).transpose().map_err(|_| bad_cursor())?;
        // One more than asked for tells whether there are more.
        let mut events = self.keys.events(query.limit(limit + 1)).await.map_err(Failure::from)?;
        let more = events.len() > limit as usize;
        events.truncate(limit as usize);
        let next = events.last().filter(|_| more).map(|event| event.id.to_string());
        let events = events.iter().map(EventView::new).collect();
        json(StatusCode::OK, &EventsView { events, next })
    }
}
