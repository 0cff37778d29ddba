//! Requests to the management API. No field names an owner or a tenant, and unknown fields are
//! rejected, so a caller cannot act for another owner.

use std::{borrow::Cow, collections::BTreeMap};

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::error::Category;

use super::responses::{ManageError, ManageResult};
use crate::{
    manage::{KeyChange, NewKey},
    model::{Access, Actor, Expiry, Metadata, Name, Networks, Owner, OwnerScope, debug_only},
    verify::Verified,
};

/// The authenticated caller of the management API: a session of the host, or a key with a scope for managing keys.
///
/// Exactly one credential of the request MUST determine the caller. If a guard in front of the routes has verified a key,
/// the caller is [that key](Caller::of_key). If the extractor returns another caller, such as the session of a cookie,
/// the adapters reject the request (400, `repeated_credentials`).
///
/// # Examples
/// ```
/// use keyward::{Actor, Owner, http::manage::Caller};
///
/// /// The host's own extractor, which looks up the cookie of the session.
/// struct Session { owner: Owner, email: String, is_administrator: bool }
///
/// impl From<Session> for Caller {
///     fn from(Session { owner, email, is_administrator }: Session) -> Self {
///         let caller = Caller::new(owner, Actor::account(&email));
///         if is_administrator { caller.administrator() } else { caller }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Caller {
    pub(super) owner: Owner,
    pub(super) actor: Actor,
    administrator: bool,
}

/// A request to the management API, independent of the web framework.
#[derive(Clone, Copy)]
#[must_use]
pub struct ManageRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    query: &'a str,
    content_type: SentHeader<'a>,
    idempotency_key: SentHeader<'a>,
    pub(super) body: &'a [u8],
}

/// A header as it was sent. One that is repeated has no value, because programs disagree about which one counts.
#[derive(Clone, Copy)]
enum SentHeader<'a> {
    Missing,
    Once(&'a [u8]),
    #[cfg_attr(
        not(any(feature = "axum", feature = "actix")),
        expect(dead_code, reason = "the builder of a request sets each header once")
    )]
    Repeated,
}

/// What a new key gets where the request of the client does not say.
///
/// The adapters take a [`ManagementApi`](super::ManagementApi) with its defaults in place of the keys. The defaults do
/// not apply to [`ApiKeys::issue`](crate::ApiKeys::issue), where the host itself makes the key.
///
/// # Examples
/// ```
/// # use keyward::testing::TestKeys;
/// use keyward::{Expiry, http::manage::{ManagementApi, NewKeyDefaults}};
///
/// # let keys = TestKeys::new().keys;
/// // A key ends after 90 days unless the client asks for another expiry, and a client must name its scopes.
/// let defaults = NewKeyDefaults::new().expiry(Expiry::DAYS_90).require_scopes();
/// let api = ManagementApi::new(keys).new_key_defaults(defaults);
/// # #[cfg(feature = "axum")]
/// # fn routes<Session>(api: ManagementApi) -> axum::Router
/// # where Session: axum::extract::FromRequestParts<()> + Into<keyward::http::manage::Caller> + Send + 'static {
/// keyward::axum::manage::router::<Session, _>(api)
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct NewKeyDefaults {
    expiry: Expiry,
    requires_scopes: bool,
}

impl NewKeyDefaults {
    /// Returns the defaults of the defaults: a key does not expire, and may do all that its owner may do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets when a key expires if the request has neither `expiresInDays` nor `expiresAt`. Defaults to
    /// [`Expiry::Never`]. With another one, a client cannot create a key that never expires; how long a key may live at
    /// most is set by [`Limits`](crate::Limits) of the owner's plan.
    pub fn expiry(self, expiry: Expiry) -> Self {
        Self { expiry, ..self }
    }

    /// Rejects a request without `scopes` (422, `invalid`). By default, such a key inherits all permissions of its
    /// owner, now and later.
    pub fn require_scopes(self) -> Self {
        Self { requires_scopes: true, ..self }
    }
}

/// The body of `POST /api-keys`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateBody {
    name: String,
    scopes: Option<Vec<String>>,
    expires_at: Option<String>,
    expires_in_days: Option<u32>,
    allowed_networks: Option<Vec<String>>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// The body of `PATCH /api-keys/{id}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChangeBody {
    name: Option<String>,
    scopes: Option<Vec<String>>,
    allowed_networks: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
}

/// The body of `POST /api-keys/{id}/rotate`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RotateBody {
    #[serde(default)]
    pub(super) overlap_seconds: u32,
}

impl Caller {
    /// Creates a caller that manages its own keys. The actor is audited, and cannot give a key more access than it has.
    pub fn new(owner: Owner, actor: Actor) -> Self {
        Self { owner, actor, administrator: false }
    }

    /// Creates a caller from a verified key. It manages the keys of the key's owner, and cannot give
    /// a key more access than it has itself. The host MUST require a scope for this.
    pub fn of_key(verified: &Verified) -> Self {
        Self::new(verified.owner().clone(), Actor::key(verified))
    }

    /// Lets the caller see and change the keys of all accounts of its tenant. Keys it creates belong to its account.
    pub fn administrator(self) -> Self {
        Self { administrator: true, ..self }
    }

    /// Returns the owners whose keys the caller may see and change.
    pub(super) fn owner_scope(&self) -> OwnerScope<'_> {
        if self.administrator {
            OwnerScope::Tenant(self.owner.tenant())
        } else {
            OwnerScope::Owner(&self.owner)
        }
    }
}

impl<'a> ManageRequest<'a> {
    /// Creates a request without a body. The path is relative to where the API is mounted.
    pub fn new(method: &'a Method, path: &'a str) -> Self {
        let missing = SentHeader::Missing;
        Self { method, path, query: "", content_type: missing, idempotency_key: missing, body: b"" }
    }

    /// Creates a request from what an adapter received.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn received(
        method: &'a Method,
        head: &crate::http::RequestHead<'a>,
        body: &'a [u8],
    ) -> Self {
        let header = |name| match head.last_value(&http::HeaderName::from_static(name)) {
            (None, _) => SentHeader::Missing,
            (Some(value), 1) => SentHeader::Once(value),
            (Some(_), _) => SentHeader::Repeated,
        };
        Self {
            query: head.query.unwrap_or_default(),
            content_type: header("content-type"),
            idempotency_key: header("idempotency-key"),
            body,
            ..Self::new(method, head.path())
        }
    }

    /// Sets the query string of the URL.
    pub fn query(self, query: &'a str) -> Self {
        Self { query, ..self }
    }

    /// Sets the body and its `Content-Type`.
    pub fn body(self, content_type: &'a [u8], body: &'a [u8]) -> Self {
        Self { content_type: SentHeader::Once(content_type), body, ..self }
    }

    /// Sets a JSON body.
    pub fn json(self, body: &'a [u8]) -> Self {
        self.body(b"application/json", body)
    }

    /// Sets the value of `Idempotency-Key`.
    pub fn idempotency_key(self, value: &'a [u8]) -> Self {
        Self { idempotency_key: SentHeader::Once(value), ..self }
    }

    /// Parses the body, a JSON object. Rejects `null`, which some clients mean as "unchanged", others as "remove".
    pub(super) fn parse_json<T: DeserializeOwned>(&self) -> ManageResult<T> {
        self.require_content_type("application/json")?;
        let fields: BTreeMap<String, Option<IgnoredAny>> = self.parse_body()?;
        match fields.iter().find(|(_, value)| value.is_none()) {
            Some((name, _)) => {
                Err(ManageError::invalid(&format!("`{name}` is null: send a value, or omit it")))
            }
            None => self.parse_body(),
        }
    }

    fn parse_body<T: DeserializeOwned>(&self) -> ManageResult<T> {
        // The detail is the parser's message. It may quote the body, but only its sender receives it.
        serde_json::from_slice(self.body).map_err(|error| match error.classify() {
            Category::Data => ManageError::invalid(&error.to_string()),
            _ => ManageError::new(StatusCode::BAD_REQUEST, "malformed_body", &error.to_string()),
        })
    }

    /// Returns the parameters of the form in the body.
    pub(super) fn form_parameters(&self) -> ManageResult<Parameters<'a>> {
        self.require_content_type("application/x-www-form-urlencoded")?;
        parse_parameters(std::str::from_utf8(self.body).unwrap_or_default())
    }

    /// Returns the parameters of the query. Unknown parameters are errors.
    pub(super) fn query_parameters(&self, known: &[&str]) -> ManageResult<Parameters<'a>> {
        let parameters = parse_parameters(self.query)?;
        if parameters.keys().all(|name| known.contains(name)) {
            return Ok(parameters);
        }
        let known = known.join(", ");
        let detail = format!("unknown query parameter: this path accepts {known}");
        Err(ManageError::invalid(&detail))
    }

    /// Returns the value of `Idempotency-Key`, if it is present.
    pub(super) fn idempotency_token(&self) -> ManageResult<Option<&'a str>> {
        let value = match self.idempotency_key {
            SentHeader::Missing => return Ok(None),
            SentHeader::Once(value) => value,
            SentHeader::Repeated => return Err(ManageError::repeated_header("Idempotency-Key")),
        };
        let is_valid = (1..=200).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(value).ok().filter(|_| is_valid);
        let detail = "Idempotency-Key must be 1 to 200 visible ASCII characters";
        text.map(Some).ok_or_else(|| ManageError::invalid(detail))
    }

    fn require_content_type(&self, expected: &str) -> Result<(), ManageError> {
        let sent = match self.content_type {
            SentHeader::Missing => b"",
            SentHeader::Once(value) => value,
            SentHeader::Repeated => return Err(ManageError::repeated_header("Content-Type")),
        };
        let bare = sent.split(|byte| *byte == b';').next().unwrap_or_default();
        if bare.trim_ascii().eq_ignore_ascii_case(expected.as_bytes()) {
            return Ok(());
        }
        let detail = format!("send Content-Type: {expected}");
        Err(ManageError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", &detail))
    }
}

debug_only!(ManageRequest<'_> { method, path });

impl CreateBody {
    pub(super) fn into_new_key(
        self,
        owner: &Owner,
        defaults: NewKeyDefaults,
    ) -> ManageResult<NewKey> {
        let access = match self.scopes {
            Some(scopes) => Access::only(scopes)?,
            None if defaults.requires_scopes => {
                return Err(ManageError::invalid("`scopes` is missing: list what the key may do"));
            }
            None => Access::Inherited,
        };
        let new = NewKey::new(owner, &self.name)?
            .access(access)
            .networks(self.allowed_networks.map(Networks::only).transpose()?.unwrap_or_default())
            .metadata(Metadata::new(self.metadata)?);
        match (self.expires_at, self.expires_in_days) {
            (None, None) => Ok(new.expiry(defaults.expiry)),
            (Some(instant), None) => Ok(new.expiry(Expiry::At(instant.parse()?))),
            (None, Some(days)) => Ok(new.expiry(Expiry::days(days))),
            (Some(_), Some(_)) => {
                Err(ManageError::invalid("send either expiresAt or expiresInDays, not both"))
            }
        }
    }
}

impl ChangeBody {
    pub(super) fn into_change(self) -> ManageResult<KeyChange> {
        Ok(KeyChange {
            name: self.name.as_deref().map(Name::new).transpose()?,
            access: self.scopes.map(Access::only).transpose()?,
            limits: None,
            networks: self.allowed_networks.map(Networks::only).transpose()?,
            metadata: self.metadata.map(Metadata::new).transpose()?,
        })
    }
}

/// The parameters of a query or a form, by name.
pub(super) type Parameters<'a> = BTreeMap<&'a str, Cow<'a, str>>;

/// Parses the parameters of a query or a form. Repeated parameters are errors.
fn parse_parameters(text: &str) -> ManageResult<Parameters<'_>> {
    let mut parameters = Parameters::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if parameters.insert(name, percent_decode_str(value).decode_utf8_lossy()).is_some() {
            return Err(ManageError::invalid(&format!("`{name}` is repeated: send it once")));
        }
    }
    Ok(parameters)
}
