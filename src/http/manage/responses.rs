//! Responses of the management API: JSON in camel case, with instants as RFC 3339 in UTC. Fields
//! without a value are omitted, except `lastUsedAt`, which is `null` until the first use.

use std::{collections::BTreeMap, net::IpAddr};

use http::{Response, StatusCode};
use serde::Serialize;

use super::{error::ManageError, requests::Caller};
use crate::{
    audit::AuditEvent,
    error::Error,
    http::responses::no_store_response,
    manage::{AuditExport, Issued},
    model::{Access, Key, KeyId, Networks, OwnerScope, Permissions, RetiringSecret, Timestamp},
    verify::Verified,
};

/// The body of a response: complete, or in chunks that are read from the store on demand.
///
/// # Examples
/// ```
/// # use keyward::{Error, http::manage::ManageBody};
/// /// For a framework that accepts only complete bodies.
/// async fn collect(mut body: ManageBody) -> Result<String, Error> {
///     let mut text = String::new();
///     while let Some(chunk) = body.next_chunk().await? {
///         text += &chunk;
///     }
///     Ok(text)
/// }
/// ```
#[must_use]
pub struct ManageBody {
    ready: Option<String>,
    rest: Option<Box<AuditExport>>,
}

impl ManageBody {
    /// Reads the first chunk, so that a failing store is reported by the status of the response.
    pub(super) async fn export(mut export: AuditExport) -> Result<Self, Error> {
        let ready = export.next_page().await?;
        let rest = Some(Box::new(export)).filter(|export| !export.is_over());
        Ok(Self { ready, rest })
    }

    /// Returns the next chunk, or `None` after the last one.
    ///
    /// # Errors
    /// If the store fails. The body is then incomplete, and the server MUST abort the connection so
    /// that the client notices.
    pub async fn next_chunk(&mut self) -> Result<Option<String>, Error> {
        match (self.ready.take(), &mut self.rest) {
            (Some(chunk), _) => Ok(Some(chunk)),
            (None, Some(export)) => export.next_page().await,
            (None, None) => Ok(None),
        }
    }

    /// Returns the whole body, if it is complete.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn into_complete(self) -> Result<String, Self> {
        if self.rest.is_some() { Err(self) } else { Ok(self.ready.unwrap_or_default()) }
    }
}

impl From<String> for ManageBody {
    fn from(text: String) -> Self {
        Self { ready: Some(text), rest: None }
    }
}

/// Omits the content, which may contain a secret.
impl std::fmt::Debug for ManageBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManageBody").finish_non_exhaustive()
    }
}

#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use body_stream::BodyStream;

#[cfg(any(feature = "axum", feature = "actix"))]
mod body_stream {
    use std::{
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use super::ManageBody;
    use crate::error::Error;

    /// A [`ManageBody`] that servers poll. Each chunk is read only when it is polled for.
    pub(crate) struct BodyStream(Option<NextChunk>);

    type NextChunk =
        Pin<Box<dyn Future<Output = (ManageBody, Result<Option<String>, Error>)> + Send>>;

    impl BodyStream {
        pub(crate) fn new(body: ManageBody) -> Self {
            Self(Some(read_chunk(body)))
        }

        pub(crate) fn poll_chunk(
            &mut self,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<String, Error>>> {
            let Some(next) = &mut self.0 else { return Poll::Ready(None) };
            let (body, chunk) = ready!(next.as_mut().poll(cx));
            self.0 = matches!(chunk, Ok(Some(_))).then(|| read_chunk(body));
            Poll::Ready(chunk.transpose())
        }
    }

    fn read_chunk(mut body: ManageBody) -> NextChunk {
        Box::pin(async move {
            let chunk = body.next_chunk().await;
            (body, chunk)
        })
    }
}

pub(super) type ManageResult = Result<Response<String>, ManageError>;

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> ManageResult {
    let text = serde_json::to_string(body).map_err(|_| ManageError::internal())?;
    Ok(no_store_response(status, "application/json", text))
}

pub(super) fn message_response(text: &str) -> ManageResult {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    json_response(StatusCode::OK, &Message { message: text })
}

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
    common: KeyFields<'a>,
}

/// A key with its new secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IssuedView<'a> {
    id: String,
    name: &'a str,
    key: &'a str,
    prefix: &'a str,
    created_at: String,
    #[serde(flatten)]
    common: KeyFields<'a>,
}

/// The fields that [`KeyView`] and [`IssuedView`] share.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyFields<'a> {
    /// The account that owns the key; only shown to administrators.
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

/// The previous secret, until the overlap of the rotation ends.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetiringView<'a> {
    prefix: &'a str,
    ends_at: String,
}

/// A page of keys.
#[derive(Serialize)]
pub(super) struct KeyPageView<'a> {
    pub(super) keys: Vec<KeyView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A page of events.
#[derive(Serialize)]
pub(super) struct EventPageView<'a> {
    pub(super) events: Vec<EventView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// An event of the audit log.
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

/// A response of RFC 7662. If the token is not valid, or belongs to another owner, the response
/// contains only `active: false`.
#[derive(Default, Serialize)]
pub(super) struct IntrospectionView<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

impl<'a> KeyView<'a> {
    pub(super) fn new(key: &'a Key, caller: &Caller, now: Timestamp) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.as_str(),
            prefix: &key.hint,
            created_at: key.created_at.to_string(),
            last_used_at: instant(key.last_used_at),
            common: KeyFields::new(key, caller, now),
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
            common: KeyFields::new(key, caller, now),
        }
    }
}

impl<'a> KeyFields<'a> {
    fn new(key: &'a Key, caller: &Caller, now: Timestamp) -> Self {
        let retiring = |retiring: &'a RetiringSecret| RetiringView {
            prefix: &retiring.hint,
            ends_at: retiring.ends_at.to_string(),
        };
        let is_administrator = matches!(caller.owner_scope(), OwnerScope::Tenant(_));
        Self {
            account: is_administrator.then(|| key.owner.account()),
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
            retiring: key.retiring.as_ref().filter(|retiring| retiring.ends_at > now).map(retiring),
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

impl<'a> IntrospectionView<'a> {
    pub(super) fn new(verified: &'a Verified) -> Self {
        let seconds = |at: Timestamp| at.as_unix_micros() / 1_000_000;
        Self {
            active: true,
            scope: match verified.permissions() {
                Permissions::All => None,
                Permissions::Only(scopes) => Some(scopes.to_string()),
            },
            sub: Some(verified.owner().account()),
            client_id: Some(verified.key_id().to_string()),
            token_type: Some("Bearer"),
            iat: Some(seconds(verified.created_at())),
            exp: verified.expires_at().map(seconds),
        }
    }
}

fn instant(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
