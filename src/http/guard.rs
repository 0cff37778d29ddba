use std::{net::IpAddr, sync::Arc};

use http::{
    Extensions, HeaderValue,
    header::{AUTHORIZATION, COOKIE, USER_AGENT},
    request::Parts,
};

use super::{
    credentials::Credentials,
    request::{ClientIp, RequestHead, TenantPath},
    responses::{ErrorCode, Rejection},
    telemetry::CheckRecorder,
};
use crate::{
    api::ApiKeys,
    model::{Invalid, KeyId, Scope, debug_only},
    secret::Secret,
    verify::{DeniedReason, Verified, VerifyError, VerifyRequest},
};

/// The rules that an adapter applies to each request: where the key is, and what it must allow.
///
/// # Examples
/// ```
/// # use keyward::testing::TestKeys;
/// use keyward::http::{ClientIp, Credentials, Guard};
///
/// # fn main() -> Result<(), keyward::model::Invalid> {
/// # let keys = TestKeys::new().keys;
/// let guard = Guard::builder(keys)
///     .realm("api.acme.example")
///     .require("builds:read")
///     .credentials(Credentials::bearer())
///     .client_ip(ClientIp::x_forwarded_for(["10.0.0.0/8"])?)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a guard does nothing until an adapter applies it"]
pub struct Guard {
    keys: ApiKeys,
    pub(crate) credentials: Credentials,
    pub(super) client_ip: ClientIp,
    realm: String,
    pub(super) scopes: Vec<&'static str>,
    pub(super) any_scope: Vec<&'static str>,
    pub(super) optional: bool,
    cost: u32,
    tenant: Option<TenantOf>,
}

#[derive(Clone)]
struct TenantOf(Arc<TenantFn>);

type TenantFn = dyn Fn(&RequestHead<'_>) -> Option<String> + Send + Sync;

/// Builds a [`Guard`]. Clone it to build several guards that differ in a few rules.
///
/// # Examples
/// ```
/// # use keyward::{http::Guard, testing::TestKeys};
/// # let keys = TestKeys::new().keys;
/// let guard = Guard::builder(keys).realm("api.acme.example");
/// let reads = guard.clone().require("builds:read").build()?;
/// let writes = guard.require("builds:write").build()?;
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GuardBuilder {
    guard: Guard,
    tenant_path: Option<String>,
}

impl Guard {
    /// Creates a guard with the default rules: every valid key is accepted.
    pub fn new(keys: ApiKeys) -> Self {
        Self {
            keys,
            credentials: Credentials::default(),
            client_ip: ClientIp::default(),
            realm: "api".into(),
            scopes: Vec::new(),
            any_scope: Vec::new(),
            optional: false,
            cost: 1,
            tenant: None,
        }
    }

    /// Returns a builder that starts with the default rules.
    pub fn builder(keys: ApiKeys) -> GuardBuilder {
        GuardBuilder { guard: Self::new(keys), tenant_path: None }
    }

    /// Checks one request, for frameworks without an adapter in this crate.
    ///
    /// Marks the header with the secret as sensitive, and puts [`Verified`] into the extensions. Returns `None` if the
    /// guard is [optional](GuardBuilder::optional) and the request contains no key. Call the handler only after an
    /// `Ok`, and add [`rate_limit_headers`](super::rate_limit_headers) to its response.
    ///
    /// # Errors
    /// The rejection to respond with.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::Guard, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let guard = Guard::new(TestKeys::new().keys);
    /// let (mut head, _) = http::Request::new(()).into_parts();
    /// let peer = "192.0.2.7".parse().ok();
    /// let rejection = guard.check(&mut head, peer).await.unwrap_err();
    /// assert_eq!(rejection.into_response::<String>().status(), 401);
    /// # }
    /// ```
    pub async fn check(
        &self,
        head: &mut Parts,
        peer: Option<IpAddr>,
    ) -> Result<Option<Verified>, Rejection> {
        match self.precheck_parts(head, peer) {
            Precheck::Rejected(rejection) => Err(rejection),
            Precheck::AlreadyVerified => Ok(head.extensions.get::<Verified>().cloned()),
            Precheck::NoKey => Ok(None),
            Precheck::Presented(presented) => {
                let verified = self.verify(presented).await?;
                self.accept(&mut head.extensions, &verified);
                Ok(Some(verified))
            }
        }
    }

    /// Does [`precheck`](Self::precheck), and records in the request what it found.
    pub(crate) fn precheck_parts(&self, head: &mut Parts, peer: Option<IpAddr>) -> Precheck {
        for (name, value) in &mut head.headers {
            if self.credentials.header_names().any(|sensitive| sensitive == name) {
                value.set_sensitive(true);
            }
        }
        let outer = head.extensions.get::<OuterCheck>();
        let precheck = self.precheck(&RequestHead::from_parts(head, peer), outer);
        if matches!(precheck, Precheck::NoKey) {
            head.extensions.insert(CheckedWithoutKey);
        }
        precheck
    }

    /// Records in a request that its key was verified.
    pub(crate) fn accept(&self, extensions: &mut Extensions, verified: &Verified) {
        extensions.insert(self.outer_check(verified));
        extensions.insert(verified.clone());
    }

    /// Does all that needs the request. Verification, which waits for the store, is left to [`verify`](Self::verify).
    pub(crate) fn precheck(
        &self,
        request: &RequestHead<'_>,
        outer: Option<&OuterCheck>,
    ) -> Precheck {
        let tenant = self.tenant.as_ref().and_then(|TenantOf(tenant)| tenant(request));
        let outer = outer.filter(|outer| outer.keys.is_same(&self.keys));
        if let Some(outer) = outer.filter(|outer| outer.keys.trusts(&outer.verified)) {
            // The key must also satisfy the rules of this guard.
            let request = VerifyRequest {
                tenant: tenant.as_deref(),
                scopes: &self.scopes,
                any_scope: &self.any_scope,
                ..VerifyRequest::new()
            };
            return match outer.verified.authorize(request, self.keys.now()) {
                Ok(()) => Precheck::AlreadyVerified,
                Err(reason) => self.reject(code_of(reason)),
            };
        }
        // What the outer guard found is too old, or has changed since: the key is verified again, without a charge.
        let again = outer.map(|outer| outer.verified.key_id());
        let (secret, source) = match self.credentials.read(request) {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) if again.is_some() => return self.reject(ErrorCode::Unavailable),
            Ok(None) if self.optional => return Precheck::NoKey,
            Ok(None) => return self.reject(ErrorCode::MissingKey),
            Err(code) => return self.reject(code),
        };
        let (ip, user_agent) = self.client(request);
        let ip = outer.map_or(ip, |outer| outer.verified.ip());
        let (_, cookies) = request.last_value(&COOKIE);
        let csrf_exempt = source.needs_preflight() && cookies == 0;
        Precheck::Presented(PresentedKey { secret, tenant, ip, user_agent, csrf_exempt, again })
    }

    /// Returns the address and the user agent of the client.
    pub(crate) fn client(&self, request: &RequestHead<'_>) -> (Option<IpAddr>, Option<String>) {
        let (agent, _) = request.last_value(&USER_AGENT);
        let user_agent = agent.map(|agent| {
            String::from_utf8_lossy(&agent[..agent.len().min(MAX_USER_AGENT)]).into_owned()
        });
        (self.client_ip.find(request), user_agent)
    }

    /// Verifies a presented key against the rules of this guard.
    pub(crate) async fn verify(&self, presented: PresentedKey) -> Result<Verified, Rejection> {
        let PresentedKey { secret, tenant, ip, user_agent, csrf_exempt, again } = presented;
        let cache_missed = std::sync::atomic::AtomicBool::new(false);
        let request = VerifyRequest {
            tenant: tenant.as_deref(),
            ip,
            any_network: false,
            user_agent: user_agent.as_deref(),
            scopes: &self.scopes,
            any_scope: &self.any_scope,
            cost: if again.is_some() { 0 } else { self.cost },
            cache_missed: Some(&cache_missed),
        };
        let mut recorder = CheckRecorder::start();
        let result = recorder.instrument(self.keys.verify(secret.expose(), &request)).await;
        recorder.cache_status(!cache_missed.into_inner());
        match result {
            Ok(verified) if again.is_some_and(|id| id != verified.key_id()) => {
                recorder.rejected(ErrorCode::Unavailable, None);
                Err(Rejection::new(ErrorCode::Unavailable))
            }
            Ok(verified) => {
                recorder.verified(&verified);
                Ok(verified.with_csrf_exempt(csrf_exempt))
            }
            Err(error) => {
                let rejection = self.rejection_for(&error);
                recorder.rejected(rejection.code(), Some(&error));
                Err(rejection)
            }
        }
    }

    /// Returns the extension by which an inner guard recognizes that this one verified the request.
    pub(crate) fn outer_check(&self, verified: &Verified) -> OuterCheck {
        OuterCheck { keys: self.keys.clone(), verified: verified.clone() }
    }

    /// Rejects a request that needs no verification.
    fn reject(&self, code: ErrorCode) -> Precheck {
        CheckRecorder::start().rejected(code, None);
        Precheck::Rejected(self.challenge(code))
    }

    fn rejection_for(&self, error: &VerifyError) -> Rejection {
        match error {
            VerifyError::Denied(denied) => self.challenge(code_of(denied.reason())),
            VerifyError::Limited(limited) => Rejection::limited(limited),
            VerifyError::Unavailable(error) => Rejection::unavailable(error),
        }
    }

    /// Builds a rejection with the challenge of RFC 6750. If the guard does not accept `Authorization`, there is a
    /// challenge for each header that it accepts, with the scheme `ApiKey` and the name of the header.
    fn challenge(&self, code: ErrorCode) -> Rejection {
        let mut parameters = format!("realm=\"{}\"", self.realm);
        if let Some(error) = code.challenge_error() {
            parameters.push_str(&format!(", error=\"{error}\""));
        }
        if code == ErrorCode::InsufficientScope {
            let scopes: Vec<_> = self.scopes.iter().chain(&self.any_scope).copied().collect();
            parameters.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
        }
        let mut rejection = Rejection::new(code);
        let text = match self.credentials.header_names().find(|name| **name == AUTHORIZATION) {
            Some(_) => format!("Bearer {parameters}"),
            None => {
                rejection.header = self.credentials.header_names().next().cloned();
                let challenge = |name| format!("ApiKey header=\"{name}\", {parameters}");
                self.credentials.header_names().map(challenge).collect::<Vec<_>>().join(", ")
            }
        };
        rejection.challenge = HeaderValue::try_from(text).ok();
        rejection
    }
}

/// Returns the code that a client receives. It is the same for all reasons but one, so that the sender of a guessed or
/// stolen key learns nothing. A missing scope has its own code, because the holder of a valid key can fix it.
fn code_of(reason: DeniedReason) -> ErrorCode {
    match reason {
        DeniedReason::AccessMissing => ErrorCode::InsufficientScope,
        DeniedReason::Malformed(_)
        | DeniedReason::Unknown
        | DeniedReason::Revoked
        | DeniedReason::Expired
        | DeniedReason::Disabled
        | DeniedReason::SecretRetired
        | DeniedReason::OwnerSuspended
        | DeniedReason::WrongTenant
        | DeniedReason::NetworkNotAllowed => ErrorCode::InvalidKey,
    }
}

debug_only!(TenantOf {});

impl GuardBuilder {
    /// Requires a scope. If called several times, the key must have all of these scopes.
    pub fn require(mut self, scope: &'static str) -> Self {
        self.guard.scopes.push(scope);
        self
    }

    /// Requires at least one of these scopes.
    pub fn require_any(mut self, scopes: impl IntoIterator<Item = &'static str>) -> Self {
        self.guard.any_scope.extend(scopes);
        self
    }

    /// Also accepts requests without a key. A key that is presented must be valid: an invalid one is not ignored.
    pub fn optional(mut self) -> Self {
        self.guard.optional = true;
        self
    }

    /// Sets how many uses a request counts as, against rates and quotas: see [`VerifyRequest::cost`]. Defaults to 1. Of
    /// nested guards, only the cost of the outermost one counts.
    pub fn cost(mut self, uses: u32) -> Self {
        self.guard.cost = uses;
        self
    }

    /// Sets where the key is read from. Defaults to `Authorization: Bearer` and `X-API-Key`.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.guard.credentials = credentials;
        self
    }

    /// Sets how the client's address is determined. Defaults to the address of the peer.
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.guard.client_ip = client_ip;
        self
    }

    /// Sets the realm in challenges. Defaults to `api`. Quotes, backslashes, and all but printable ASCII are removed.
    pub fn realm(mut self, realm: &str) -> Self {
        let allowed = |c: &char| matches!(c, ' '..='~') && *c != '"' && *c != '\\';
        self.guard.realm = realm.chars().filter(allowed).collect();
        self
    }

    /// Sets how to determine the tenant that a request is addressed to, if its host or a header names one. Keys of
    /// other tenants are rejected. If `of` returns `None`, keys of every tenant are accepted. A host whose requests
    /// name tenants MUST set this or [`tenant_in_path`](Self::tenant_in_path). The later call replaces the earlier one.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::{Guard, RequestHead}, testing::TestKeys};
    /// # let keys = TestKeys::new().keys;
    /// // Without the header, the tenant is "", which only hosts without tenants have.
    /// let from_proxy = |request: &RequestHead<'_>| {
    ///     let name = http::HeaderName::from_static("x-tenant");
    ///     Some(request.header(&name).unwrap_or_default().to_owned())
    /// };
    /// let guard = Guard::builder(keys).tenant(from_proxy).build()?;
    /// # Ok::<(), keyward::model::Invalid>(())
    /// ```
    pub fn tenant(
        mut self,
        of: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.guard.tenant = Some(TenantOf(Arc::new(of)));
        self.tenant_path = None;
        self
    }

    /// Sets where the path names the tenant. Keys of other tenants are rejected; if it names no tenant, every key is.
    ///
    /// The template consists of whole segments, the last one in braces: `/t/{tenant}` is for `/t/acme`,
    /// `/t/acme/users`, …. It is matched from the start of the path that the layer receives. A nested router receives
    /// only the rest of the path: in axum, put the layer around `nest`, not inside it.
    pub fn tenant_in_path(self, template: &str) -> Self {
        Self { tenant_path: Some(template.to_owned()), ..self }
    }

    /// Builds the guard.
    ///
    /// # Errors
    /// If a required [`Scope`], the name of a header of [`credentials`](Self::credentials) or the template of
    /// [`tenant_in_path`](Self::tenant_in_path) is not valid.
    pub fn build(self) -> Result<Guard, Invalid> {
        let Self { mut guard, tenant_path } = self;
        guard.credentials.check()?;
        for scope in guard.scopes.iter().chain(&guard.any_scope) {
            Scope::new(scope).map_err(|_| {
                let why = format!(
                    "no key can have {scope:?}: use 1 to 100 visible ASCII characters without \
                     spaces, quotes or backslashes, and call `require` once for each scope"
                );
                Invalid::new("scope", why)
            })?;
        }
        if let Some(template) = tenant_path {
            let template = TenantPath::new(&template)?;
            guard.tenant = Some(TenantOf(Arc::new(move |request| {
                Some(template.tenant(request.path()).unwrap_or_else(|| NO_TENANT.into()))
            })));
        }
        Ok(guard)
    }
}

/// What a guard decides without waiting for the store.
pub(crate) enum Precheck {
    /// The request contains no key, and the guard is optional.
    NoKey,
    /// An outer guard verified the key, which satisfies this guard, too. Verifying it again would count it twice.
    AlreadyVerified,
    /// The request presents a key that must be verified.
    Presented(PresentedKey),
    /// The request is rejected.
    Rejected(Rejection),
}

/// Everything that verification needs, detached from the request.
pub(crate) struct PresentedKey {
    secret: Secret,
    tenant: Option<String>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    csrf_exempt: bool,
    /// The key that an outer guard verified, too long ago.
    again: Option<KeyId>,
}

/// An extension of a request that a guard verified. Only this crate can create it.
#[derive(Clone)]
pub(crate) struct OuterCheck {
    keys: ApiKeys,
    verified: Verified,
}

/// An extension of a request without a key that an optional guard accepted.
#[derive(Clone, Copy)]
pub(crate) struct CheckedWithoutKey;

/// Returns the response for a handler that takes a verified key, on a route whose guard did not verify one. The client
/// gets a neutral text; the log says what to change.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) fn unverified(has_optional_guard: bool) -> Rejection {
    super::telemetry::log_mistake(if has_optional_guard { PLAIN_VERIFIED } else { NO_LAYER });
    Rejection::new(ErrorCode::Misconfigured)
}

#[cfg(any(feature = "axum", feature = "actix"))]
const NO_LAYER: &str = "a handler takes keyward::Verified, but no layer verifies keys on its route: add \
    keyward::axum::layer(guard) to the Router, or .wrap(keyward::actix::ApiKeyAuth::new(guard)) to the App";
#[cfg(any(feature = "axum", feature = "actix"))]
const PLAIN_VERIFIED: &str = "a handler takes keyward::Verified, but the guard of its route is optional and the request \
    has no key: take Option<Verified> with axum or MaybeVerified with actix-web, or build the guard without `optional`";
/// In bytes. The audit log keeps 500 characters of the user agent.
const MAX_USER_AGENT: usize = 2_000;
/// No tenant has this name, because an `Owner` contains no NUL. Every key is rejected like an unknown one.
const NO_TENANT: &str = "\0";
