use std::borrow::Cow;

use http::{HeaderValue, Response, StatusCode, header::CONTENT_DISPOSITION};

use super::{
    ManageBody, ManageRequest, Caller, ManagementApi,
    failure::ManageError,
    keys::{bad_cursor, limit},
    reply::{Answer, json, response},
    views::{EventView, EventsView},
};
use crate::{
    audit::{AuditQuery, ExportFormat},
    model::{KeyId, Timestamp},
};

impl ManagementApi {
    pub(super) async fn audit(&self, caller: &Caller, call: &ManageRequest<'_>) -> Answer {
        let known = ["limit", "cursor", "event", "from", "until"];
        let [limit, cursor, event, from, until] = call.parameters(known)?;
        let query = query(caller, [event, from, until])?;
        self.page(query, limit.as_deref(), cursor.as_deref()).await
    }

    pub(super) async fn export(
        &self,
        caller: &Caller,
        call: &ManageRequest<'_>,
        format: ExportFormat,
    ) -> Result<Response<ManageBody>, ManageError> {
        let query = query(caller, call.parameters(["event", "from", "until"])?)?;
        let export = self.keys.export(query.limit(EXPORTED_AT_ONCE), format);
        let body = ManageBody::export(export).await?;
        let mut response = response(StatusCode::OK, format.media_type(), String::new());
        // Nothing that users have named is opened in the origin of a dashboard.
        let attachment = HeaderValue::from_static("attachment");
        response.headers_mut().insert(CONTENT_DISPOSITION, attachment);
        Ok(response.map(|_| body))
    }

    pub(super) async fn events_of(&self, caller: &Caller, id: KeyId, call: &ManageRequest<'_>) -> Answer {
        self.keys.get(caller.within(), id).await?;
        let [limit, cursor] = call.parameters(["limit", "cursor"])?;
        let query = AuditQuery::new(caller.within()).key(id);
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
        let mut events = self.keys.events(query.limit(limit + 1)).await.map_err(ManageError::from)?;
        let more = events.len() > limit as usize;
        events.truncate(limit as usize);
        let next = events.last().filter(|_| more).map(|event| event.id.to_string());
        let events = events.iter().map(EventView::new).collect();
        json(StatusCode::OK, &EventsView { events, next })
    }
}

fn query<'a>(
    caller: &'a Caller,
    [event, from, until]: [Option<Cow<'_, str>>; 3],
) -> Result<AuditQuery<'a>, ManageError> {
    let mut query = AuditQuery::new(caller.within());
    query.kind = event.as_deref().map(str::parse).transpose()?;
    query.from = from.as_deref().map(str::parse::<Timestamp>).transpose()?;
    query.until = until.as_deref().map(str::parse::<Timestamp>).transpose()?;
    Ok(query)
}

const EXPORTED_AT_ONCE: u32 = 500;
