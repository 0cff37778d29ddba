use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header::USER_AGENT, request::Parts};

use super::{
    ClientIp, ErrorCode, Credentials, RequestHead, Rejection, credentials::Unreadable, incoming::hide,
    tenant_path::TenantPath, watch::Watch,
};
use crate::{
    api::ApiKeys,
    model::Invalid,
    secret::Secret,
    verify::{DeniedReason, Verified, VerifyError, VerifyRequest},
};

/// Who may pass: the rules that an adapter applies to each request.
///
/// # Examples
/// ```
/// # use keyward::testing::TestKeys;
/// use keyward::http::{ClientIp, Credentials, Guard};
///
/// # fn main() -> Result<(), keyward::model::Invalid> {
/// # let keys = TestKeys::new().keys;
/// let guard = Guard::new(keys)
///     .realm("api.acme.example")
///     .require("builds:read")
///     .credentials(Credentials::bearer())
///     .client_ip(ClientIp::x_forwarded_for(["10.0.0.0/8"])?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a guard does nothing until an adapter applies it"]
pub struct Guard {
    keys: ApiKeys,
    pub(super) credentials: Credentials,
    client_ip: ClientIp,
    realm: String,
    pub(super) all: Vec<&'static str>,
    pub(super) any: Vec<&'static str>,
    pub(super) optional: bool,
    cost: u32,
    tenant: Option<Arc<Tenant>>,
}

type Tenant = dyn Fn(&RequestHead<'_>) -> Option<String> + Send + Sync;

impl Guard {
    /// Everyone with a live key may pass.
    pub fn new(keys: ApiKeys) -> Self {
        Self {
            keys,
            credentials: Credentials::default(),
            client_ip: ClientIp::default(),
            realm: "api".into(),
            all: Vec::new(),
            any: Vec::new(),
            optional: false,
            cost: 1,
            tenant: None,
        }
    }

    /// The key must have this scope; called again, that one as well.
    pub fn require(mut self, scope: &'static str) -> Self {
        self.all.push(scope);
        self
    }

    /// The key must have one of these scopes, whichever.
    pub fn require_any(mut self, scopes: impl IntoIterator<Item = &'static str>) -> Self {
        self.any.extend(scopes);
        self
    }

    /// Who presents nothing may pass, too, and is nobody. What is presented must be good all the
    /// same: a key that does not work is refused, not ignored.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// How many uses a request counts as, against rates and quotas: see [`VerifyRequest::cost`]. Of guards
    /// within each other, the outermost one counts.
    pub fn cost(mut self, uses: u32) -> Self {
        self.cost = uses;
        self
    }

    /// Where secrets stand; by default `Authorization: Bearer` and `X-API-Key`.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Whose address counts; by default that of the peer.
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.client_ip = client_ip;
        self
    }

    /// What challenges call the protected thing; by default `api`. Only its visible ASCII
    /// characters and spaces are used.
    pub fn realm(mut self, realm: &str) -> Self {
        let plain = |c: &char| matches!(c, ' '..='~') && *c != '"' && *c != '\\';
        self.realm = realm.chars().filter(plain).collect();
        self
    }

    /// Which tenant a request is addressed to, if its host or a header names one: the keys of others
    /// are refused. With `None`, a key of any tenant will do. A host whose requests name tenants MUST
    /// set this, or [`tenant_in_path`](Guard::tenant_in_path).
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::{Guard, RequestHead}, testing::TestKeys};
    /// # let keys = TestKeys::new().keys;
    /// // A request without the field is addressed to the tenant "", which only hosts without tenants have.
    /// let by_proxy = |request: &RequestHead<'_>| {
    ///     let name = http::HeaderName::from_static("x-tenant");
    ///     Some(request.header(&name).unwrap_or_default().to_owned())
    /// };
    /// let guard = Guard::new(keys).tenant(by_proxy);
    /// ```
    pub fn tenant(
        mut self,
        of: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.tenant = Some(Arc::new(of));
        self
    }

    /// Where the path of a URL names the tenant: the keys of others are refused, and where the path
    /// names none, every key.
    ///
    /// It counts from the beginning of the path that the layer sees. A router that is nested sees the
    /// rest of it: in axum, put the layer around `nest`, not into it.
    ///
    /// # Errors
    /// If it is not some segments, of which the last stands in braces.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::Guard, testing::TestKeys};
    /// # let keys = TestKeys::new().keys;
    /// // For /t/acme, /t/acme/users, ….
    /// let guard = Guard::new(keys).tenant_in_path("/t/{tenant}")?;
    /// # Ok::<(), keyward::model::Invalid>(())
    /// ```
    pub fn tenant_in_path(self, template: &str) -> Result<Self, Invalid> {
        let place = TenantPath::new(template)?;
        Ok(self.tenant(move |request| Some(place.find(request.path()))))
    }

    /// Does for one request what the adapters do: for frameworks that have none here.
    ///
    /// Marks the field with the secret as sensitive, and puts [`Verified`] into the extensions. The
    /// answer is that of an optional guard if it is `None`. Call the handler only after an `Ok`, and
    /// add [`rate_limit_headers`](super::rate_limit_headers) to its response.
    ///
    /// # Errors
    /// What to answer instead.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::Guard, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let guard = Guard::new(TestKeys::new().keys);
    /// let (mut head, _) = http::Request::new(()).into_parts();
    /// let peer = "192.0.2.7".parse().ok();
    /// let refusal = guard.check(&mut head, peer).await.unwrap_err();
    /// assert_eq!(refusal.into_response::<String>().status(), 401);
    /// # }
    /// ```
    pub async fn check(
        &self,
        head: &mut Parts,
        peer: Option<IpAddr>,
    ) -> Result<Option<Verified>, Rejection> {
        self.sensitive().for_each(|name| hide(&mut head.headers, name));
        let checked = {
            let (path, query) = (head.uri.path(), head.uri.query());
            let incoming = RequestHead::new(&head.headers, path, query, peer);
            self.look(&incoming, head.extensions.get::<Earlier>())
        };
        let verified = match checked {
            Checked::Refused(refusal) => return Err(refusal),
            Checked::Known => return Ok(head.extensions.get::<Verified>().cloned()),
            Checked::Nobody => {
                head.extensions.insert(Looked);
                return Ok(None);
            }
            Checked::Presents(pending) => self.verify(pending).await?,
        };
        head.extensions.insert(self.mark(&verified));
        head.extensions.insert(verified.clone());
        Ok(Some(verified))
    }

    /// The header fields that an adapter marks as sensitive.
    pub(crate) fn sensitive(&self) -> impl Iterator<Item = &HeaderName> {
        self.credentials.fields()
    }

    /// All that needs the request itself: what is left is to wait for the keys.
    pub(crate) fn look(&self, request: &RequestHead<'_>, earlier: Option<&Earlier>) -> Checked {
        let tenant = self.tenant.as_ref().and_then(|tenant| tenant(request));
        if let Some(earlier) = earlier.filter(|earlier| earlier.keys.is_same(&self.keys)) {
            return match self.still_good(&earlier.verified, tenant.as_deref()) {
                Ok(()) => Checked::Known,
                Err(code) => self.refuse(code),
            };
        }
        let secret = match self.credentials.read(request) {
            Ok(Some(secret)) => secret,
            Ok(None) if self.optional => return Checked::Nobody,
            Ok(None) => return self.refuse(ErrorCode::MissingKey),
            Err(Unreadable::Repeated) => return self.refuse(ErrorCode::RepeatedCredentials),
            Err(Unreadable::Malformed) => return self.refuse(ErrorCode::InvalidKey),
        };
        let (ip, user_agent) = self.origin(request);
        Checked::Presents(Pending { secret, tenant, ip, user_agent })
    }

    /// From which address a request comes, and from which program.
    pub(crate) fn origin(&self, request: &RequestHead<'_>) -> (Option<IpAddr>, Option<String>) {
        let (agent, _) = request.value(&USER_AGENT);
        let user_agent = agent.map(|agent| {
            String::from_utf8_lossy(&agent[..agent.len().min(MAX_AGENT)]).into_owned()
        });
        (self.client_ip.find(request), user_agent)
    }

    /// Whether the secret is that of a key that may do this.
    pub(crate) async fn verify(&self, pending: Pending) -> Result<Verified, Rejection> {
        let Pending { secret, tenant, ip, user_agent } = pending;
        let request = VerifyRequest {
            tenant: tenant.as_deref(),
            ip,
            user_agent: user_agent.as_deref(),
            scopes: &self.all,
            any_scope: &self.any,
            cost: self.cost,
            ..VerifyRequest::new()
        };
        let mut watch = Watch::begin();
        let verification = self.keys.verify_with_cache_status(secret.expose().as_bytes(), request);
        let (answer, from_memory) = watch.around(verification).await;
        watch.looked_up(from_memory);
        match answer {
            Ok(verified) => {
                watch.passed(&verified);
                Ok(verified)
            }
            Err(error) => {
                let refusal = self.refusal(&error);
                watch.failed(refusal.code(), &error);
                Err(refusal)
            }
        }
    }

    /// The mark by which a guard further inside knows that this one has verified the request.
    pub(crate) fn mark(&self, verified: &Verified) -> Earlier {
        Earlier { keys: self.keys.clone(), verified: verified.clone() }
    }

    fn still_good(&self, verified: &Verified, tenant: Option<&str>) -> Result<(), ErrorCode> {
        let request =
            VerifyRequest { scopes: &self.all, any_scope: &self.any, ..VerifyRequest::new() };
        if tenant.is_some_and(|tenant| tenant != verified.owner().tenant()) {
            Err(ErrorCode::InvalidKey)
        } else if !request.is_allowed(|scope| verified.allows(scope)) {
            Err(ErrorCode::InsufficientScope)
        } else {
            Ok(())
        }
    }

    fn refuse(&self, code: ErrorCode) -> Checked {
        Watch::begin().refused(code);
        Checked::Refused(self.challenged(code))
    }

    fn refusal(&self, error: &VerifyError) -> Rejection {
        match error {
            VerifyError::Denied(denied) if denied.reason() == DeniedReason::AccessMissing => {
                self.challenged(ErrorCode::InsufficientScope)
            }
            VerifyError::Denied(_) => self.challenged(ErrorCode::InvalidKey),
            VerifyError::Limited(limited) => Rejection::limited(limited),
            VerifyError::Unavailable(_) => {
                Rejection::new(ErrorCode::Unavailable).retry_after(UNAVAILABLE_FOR)
            }
        }
    }

    /// A refusal with the challenge of RFC 6750.
    fn challenged(&self, code: ErrorCode) -> Rejection {
        let mut text = format!("Bearer realm=\"{}\"", self.realm);
        if let Some(error) = code.challenge() {
            text.push_str(&format!(", error=\"{error}\""));
        }
        if code == ErrorCode::InsufficientScope {
            let scopes: Vec<_> = self.all.iter().chain(&self.any).copied().collect();
            text.push_str(&format!(", scope=\"{}\"", quotable(&scopes.join(" "))));
        }
        match HeaderValue::try_from(text) {
            Ok(challenge) => Rejection::new(code).challenge(challenge),
            Err(_) => Rejection::new(code),
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("credentials", &self.credentials)
            .field("client_ip", &self.client_ip)
            .field("realm", &self.realm)
            .field("all", &self.all)
            .field("any", &self.any)
            .field("optional", &self.optional)
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

/// What a guard can say of a request at once.
pub(crate) enum Checked {
    /// It presents nothing, and need not.
    Nobody,
    /// A guard further outside has verified it, and it fulfils the rules of this one, too. It is
    /// not verified again, or it would count twice against its rates.
    Known,
    /// Its secret is to be verified.
    Presents(Pending),
    /// It is refused.
    Refused(Rejection),
}

/// All that a verification needs, so that the request itself may move on meanwhile.
pub(crate) struct Pending {
    secret: Secret,
    tenant: Option<String>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

/// What a guard leaves in a request that it let pass; nobody else can make one.
#[derive(Clone)]
pub(crate) struct Earlier {
    keys: ApiKeys,
    verified: Verified,
}

/// What a guard leaves in a request that presents nothing and was let pass.
#[derive(Clone, Copy)]
pub(crate) struct Looked;

/// A scope that cannot stand in a challenge is no scope either, so nothing is lost.
fn quotable(scopes: &str) -> Cow<'_, str> {
    let strange = |c: char| !matches!(c, ' '..='~') || c == '"' || c == '\\';
    if scopes.contains(strange) { scopes.replace(strange, "").into() } else { scopes.into() }
}

/// Long enough for a pool to come back, short enough that clients are not gone for long.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(5);
/// The audit log keeps 500 characters of it.
const MAX_AGENT: usize = 2_000;
