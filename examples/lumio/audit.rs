//! The audit log with the fields of the product page: `timestamp`, `event`, `actor`, `ip`, `result`.

use std::collections::HashMap;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri},
};
use keyward::{
    AuditEvent, AuditQuery, ErrorKind, KeyId, Owner,
    audit::{EventKind, Outcome},
};
use serde_json::{Value, json};

use super::{
    ApiError, Lumio,
    session::{Requester, Session},
};

/// Returns the newest 100 entries, or the 100 entries before the entry `?before=ID`.
pub async fn log(
    State(lumio): State<Lumio>,
    session: Session,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    // Denials and first uses are written in the background. Write them now, so that the log is complete.
    lumio.keys.flush().await?;
    let mut query = AuditQuery::new(&session.owner);
    if let Some(text) = uri.query() {
        let last = text.strip_prefix("before=").and_then(|id| id.parse().ok());
        query = query.after(last.ok_or(ApiError(StatusCode::BAD_REQUEST, "before"))?);
    }
    let (mut labels, mut entries) = (HashMap::new(), Vec::new());
    for event in lumio.keys.events(query).await? {
        let is_actor = |id: &KeyId| event.actor == format!("key:{id}");
        let label = match event.key_id.filter(is_actor) {
            Some(id) => label(&lumio, &session.owner, id, &mut labels).await?,
            None => None,
        };
        entries.push(entry(&event, label));
    }
    Ok(Json(json!({ "entries": entries })))
}

/// Records an event and its outcome.
pub async fn record(
    lumio: &Lumio,
    by: &Requester,
    event: &str,
    outcome: Outcome,
) -> Result<(), ApiError> {
    Ok(lumio.keys.record_event(&by.owner, event, outcome, &by.actor).await?)
}

fn entry(event: &AuditEvent, label: Option<String>) -> Value {
    let name = match (event.kind, &event.reason) {
        (EventKind::HostEvent, Some(name)) => name.clone(),
        (kind, _) => kind.as_str().replace("key.", "api_key."),
    };
    json!({
        "id": event.id.to_string(),
        "timestamp": event.at.to_string(),
        "event": name,
        "actor": label.unwrap_or_else(|| event.actor.clone()),
        "ip": event.ip,
        "result": event.outcome.as_str(),
        // A key's label may look like an email address. The id shows that the actor is a key.
        "keyId": event.key_id.map(|id| id.to_string()),
    })
}

/// Returns the label of a key, unless its record has been purged.
async fn label(
    lumio: &Lumio,
    owner: &Owner,
    id: KeyId,
    cache: &mut HashMap<KeyId, Option<String>>,
) -> Result<Option<String>, ApiError> {
    if let Some(label) = cache.get(&id) {
        return Ok(label.clone());
    }
    let label = match lumio.keys.get(owner, id).await {
        Ok(key) => Some(key.name.as_str().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    cache.insert(id, label.clone());
    Ok(label)
}
