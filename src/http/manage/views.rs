//! What callers are shown: JSON in camel case, instants as RFC 3339 in UTC. What a key does not
//! have is left out, but for `lastUsedAt`, which is `null` until it is used.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::Caller;
use crate::{
    audit::AuditEvent,
    manage::Issued,
    model::{Access, Key, KeyId, Networks, OwnerScope, Timestamp},
};

/// A key without its secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyView<'a> {
    id: String,
    name: &'a str,
    prefix: &'a str,
    created_at: String,
    last_used_at: Option<String>,
    #[serde(flatten)]
    more: More<'a>,
}

/// A key with the secret that was made for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IssuedView<'a> {
    id: String,
    name: &'a str,
    key: &'a str,
    prefix: &'a str,
    created_at: String,
    #[serde(flatten)]
    more: More<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct More<'a> {
    /// Whose key it is, for those who see the keys of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retiring: Option<RetiringView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_ip: Option<IpAddr>,
}

/// The secret before the last rotation, as long as it works.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetiringView<'a> {
    prefix: &'a str,
    ends_at: String,
}

/// A page of keys.
#[derive(Serialize)]
pub(super) struct KeysView<'a> {
    pub(super) keys: Vec<KeyView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A page of events.
#[derive(Serialize)]
pub(super) struct EventsView<'a> {
    pub(super) events: Vec<EventView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A line of the audit log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView<'a> {
    id: String,
    time: String,
    event: &'static str,
    result: &'static str,
    account: Option<&'a str>,
    key_id: Option<String>,
    actor: &'a str,
    ip: Option<IpAddr>,
    user_agent: Option<&'a str>,
    reason: Option<&'a str>,
    count: u32,
}

impl<'a> KeyView<'a> {
    pub(super) fn new(key: &'a Key, caller: &Caller, now: Timestamp) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.as_str(),
            prefix: &key.hint,
            created_at: key.created_at.to_string(),
            last_used_at: instant(key.last_used_at),
            more: More::new(key, caller, now),
        }
    }
}

impl<'a> IssuedView<'a> {
    pub(super) fn new(issued: &'a Issued, caller: &Caller, now: Timestamp) -> Self {
        let key = &*issued.key;
        Self {
            id: key.id.to_string(),
            name: key.name.as_str(),
            key: issued.secret.expose(),
            prefix: &key.hint,
            created_at: key.created_at.to_string(),
            more: More::new(key, caller, now),
        }
    }
}

impl<'a> More<'a> {
    fn new(key: &'a Key, caller: &Caller, now: Timestamp) -> Self {
        let retiring = |retiring: &'a crate::model::RetiringSecret| RetiringView {
            prefix: &retiring.hint,
            ends_at: retiring.ends_at.to_string(),
        };
        let several = matches!(caller.within(), OwnerScope::Tenant(_));
        Self {
            account: several.then(|| key.owner.account()),
            scopes: match &key.access {
                Access::Inherited => None,
                Access::Only(scopes) => Some(scopes.iter().collect()),
            },
            allowed_networks: match &key.networks {
                Networks::Any => None,
                Networks::Only(networks) => {
                    Some(networks.iter().map(|net| net.to_string()).collect())
                }
            },
            metadata: key.metadata.iter().collect(),
            expires_at: instant(key.expires_at),
            disabled_at: instant(key.disabled_at),
            revoked_at: instant(key.revoked.as_ref().map(|revocation| revocation.at)),
            rotated_at: instant(key.rotated_at),
            retiring: key.retiring.as_ref().filter(|it| it.ends_at > now).map(retiring),
            last_used_ip: key.last_used_ip,
        }
    }
}

impl<'a> EventView<'a> {
    pub(super) fn new(event: &'a AuditEvent) -> Self {
        Self {
            id: event.id.to_string(),
            time: event.at.to_string(),
            event: event.kind.as_str(),
            result: event.outcome.as_str(),
            account: event.account.as_deref(),
            key_id: event.key_id.map(|id: KeyId| id.to_string()),
            actor: &event.actor,
            ip: event.ip,
            user_agent: event.user_agent.as_deref(),
            reason: event.reason.as_deref(),
            count: event.count,
        }
    }
}

fn instant(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
