//! The audit log as the page shows it: `timestamp`, `event`, `actor`, `ip`, `result`.

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
    Lumio, Refused,
    session::{Session, Someone},
};

/// The newest hundred entries; with `?before=` the id of an entry, those behind it.
pub async fn log(
    State(lumio): State<Lumio>,
    session: Session,
    uri: Uri,
) -> Result<Json<Value>, Refused> {
    // Refusals, and what was used for the first time, would else be there in a minute.
    lumio.keys.flush().await?;
    let mut query = AuditQuery::new(&session.owner);
    if let Some(text) = uri.query() {
        let last = text.strip_prefix("before=").and_then(|id| id.parse().ok());
        query = query.after(last.ok_or(Refused(StatusCode::BAD_REQUEST, "before"))?);
    }
    let (mut labels, mut entries) = (HashMap::new(), Vec::new());
    for event in lumio.keys.events(query).await? {
        let itself = |id: &KeyId| event.actor == format!("key:{id}");
        let label = match event.key_id.filter(itself) {
            Some(id) => label(&lumio, &session.owner, id, &mut labels).await?,
            None => None,
        };
        entries.push(entry(&event, label));
    }
    Ok(Json(json!({ "entries": entries })))
}

/// Writes what someone did, or was refused.
pub async fn note(
    lumio: &Lumio,
    by: &Someone,
    event: &str,
    outcome: Outcome,
) -> Result<(), Refused> {
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
        // A key may be labelled with somebody's address; this tells the two apart.
        "keyId": event.key_id.map(|id| id.to_string()),
    })
}

/// What a key is called, unless its record is gone.
async fn label(
    lumio: &Lumio,
    owner: &Owner,
    id: KeyId,
    known: &mut HashMap<KeyId, Option<String>>,
) -> Result<Option<String>, Refused> {
    if let Some(label) = known.get(&id) {
        return Ok(label.clone());
    }
    let label = match lumio.keys.get(owner, id).await {
        Ok(key) => Some(key.name.as_str().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    known.insert(id, label.clone());
    Ok(label)
}
