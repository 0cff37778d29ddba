//! OpenAPI 3.1 documents for the HTTP routes of this crate.
//!
//! [`document`] describes the management API, with every error it returns, and [`sign_in_document`] the sign-in routes.
//! [`Guard::describe`] adds to any operation what a guard in front of it requires and returns. All are generated from
//! the code that serves requests, the route table and the rules of the guard, so that they cannot disagree with it.
//!
//! With axum and the feature `axum-openapi`, `axum::openapi` adds a route and its description to a router in one step.

mod operations;

use utoipa::openapi::{
    ComponentsBuilder, Info, OpenApi, Paths, RefOr,
    path::{HttpMethod, Operation},
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

use self::operations::{ErrorCodes, NamedSchema, add_errors, header, string};
#[cfg(feature = "axum-openapi")]
pub(crate) use self::operations::{PROBLEM, problem};
use super::{
    credentials::CredentialSource,
    guard::Guard,
    manage::{ROUTES, SignIn},
    responses::ErrorCode,
};
use crate::model::debug_only;

/// How callers of the management API authenticate: what the host's extractor accepts.
#[derive(Clone)]
pub struct CallerAuth {
    schemes: Vec<(String, SecurityScheme)>,
    guard: Option<Guard>,
}

impl CallerAuth {
    /// Callers authenticate by a scheme of the host, with this name in the document: a cookie, or another token.
    pub fn scheme(name: &str, scheme: SecurityScheme) -> Self {
        Self { schemes: vec![(name.into(), scheme)], guard: None }
    }

    /// Callers authenticate by an API key: this guard is in front of the router.
    pub fn api_key(guard: &Guard) -> Self {
        Self { schemes: guard.security_schemes(), guard: Some(guard.clone()) }
    }

    fn describe(&self, operation: &mut Operation) {
        match &self.guard {
            Some(guard) => guard.describe(operation),
            None => {
                let requirement = |(name, _): &_| SecurityRequirement::new(name, [""; 0]);
                operation.security = Some(self.schemes.iter().map(requirement).collect());
            }
        }
    }
}

debug_only!(CallerAuth { guard });

/// Returns the document of the management API, relative to where it is mounted.
///
/// # Examples
/// ```
/// use keyward::http::openapi::{CallerAuth, document};
/// use utoipa::openapi::{OpenApi, security::{ApiKey, ApiKeyValue, SecurityScheme}};
///
/// let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session")));
/// let of_the_host = OpenApi::default();
/// let whole = of_the_host.nest("/v1", document(&CallerAuth::scheme("session", cookie)));
/// assert!(whole.paths.get_path_item("/v1/api-keys/{id}").is_some());
/// ```
pub fn document(callers: &CallerAuth) -> OpenApi {
    let operations = ROUTES.iter().map(|(method, path, route)| {
        let mut operation = operations::management(method, path, *route);
        callers.describe(&mut operation);
        (http_method(method), *path, operation)
    });
    let info = ("API keys", "Lets users manage their own API keys.");
    build_document(info, operations, operations::management_schemas(), callers.schemes.clone())
}

/// Returns the document of the [sign-in routes](SignIn), relative to where they are mounted.
pub fn sign_in_document(sign_in: &SignIn) -> OpenApi {
    let guard = &sign_in.guard;
    let operations = operations::sign_in().into_iter().map(|(method, path, mut operation)| {
        // An empty list overrides the security of the host's document.
        operation.security = Some(Vec::new());
        if path == "/auth/key" {
            guard.describe(&mut operation);
        }
        (method, path, operation)
    });
    let info = ("Sign-in", "Lets people without a session get an API key by e-mail.");
    build_document(info, operations, operations::sign_in_schemas(), guard.security_schemes())
}

fn build_document(
    (title, description): (&str, &str),
    operations: impl Iterator<Item = (HttpMethod, &'static str, Operation)>,
    schemas: impl IntoIterator<Item = NamedSchema>,
    security_schemes: Vec<(String, SecurityScheme)>,
) -> OpenApi {
    let mut paths = Paths::new();
    for (method, path, operation) in operations {
        paths.add_path_operation(path, vec![method], operation);
    }
    let schemas = schemas.into_iter().chain(operations::common_schemas());
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    for (name, scheme) in security_schemes {
        components = components.security_scheme(name, scheme);
    }
    let mut document = OpenApi::new(Info::new(title, env!("CARGO_PKG_VERSION")), paths);
    document.info.description = Some(description.into());
    document.components = Some(components.build());
    document
}

/// Covers the methods in [`ROUTES`]. A test fails if a route with another method is added.
fn http_method(method: &http::Method) -> HttpMethod {
    match *method {
        http::Method::POST => HttpMethod::Post,
        http::Method::PATCH => HttpMethod::Patch,
        http::Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

impl Guard {
    /// Adds to an operation what this guard requires and returns: security with scopes, error responses, and headers.
    pub fn describe(&self, operation: &mut Operation) {
        operation.security = Some(self.security_requirements());
        let requires_scope = !self.scopes.is_empty() || !self.any_scope.is_empty();
        let is_possible = |code: &ErrorCode| match code {
            ErrorCode::MissingKey => !self.optional,
            ErrorCode::InsufficientScope => requires_scope,
            other => *other != ErrorCode::Misconfigured,
        };
        let mut errors = ErrorCodes::default();
        for code in ErrorCode::ALL.into_iter().filter(is_possible) {
            errors.entry(code.status().as_u16()).or_default().insert(code.as_str());
        }
        add_errors(operation, errors);
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else { continue };
            let headers: &[_] = match status.as_str() {
                "400" | "401" => &[CHALLENGE_HEADER],
                "403" if requires_scope => &[CHALLENGE_HEADER],
                status if status == "429" || status.starts_with('2') => &RATE_LIMIT_HEADERS,
                _ => continue,
            };
            for &(name, text) in headers {
                let header = RefOr::T(header(text, string()));
                response.headers.entry(name.into()).or_insert(header);
            }
        }
    }

    /// Returns the security schemes that [`describe`](Self::describe) refers to. Add them to the document's components.
    pub fn security_schemes(&self) -> Vec<(String, SecurityScheme)> {
        self.credentials.sources.iter().map(security_scheme).collect()
    }

    /// Returns one requirement for each alternative: a pair of a credential source and one of the `any_scope`.
    fn security_requirements(&self) -> Vec<SecurityRequirement> {
        let any_scope: Vec<Option<&str>> = match &*self.any_scope {
            [] => vec![None],
            scopes => scopes.iter().copied().map(Some).collect(),
        };
        let alternatives = self.security_schemes().into_iter().flat_map(|(name, _)| {
            any_scope.iter().map(move |scope| {
                SecurityRequirement::new(&name, self.scopes.iter().copied().chain(*scope))
            })
        });
        alternatives.chain(self.optional.then(SecurityRequirement::default)).collect()
    }
}

fn security_scheme(source: &CredentialSource) -> (String, SecurityScheme) {
    let api_key = |place: fn(ApiKeyValue) -> ApiKey, name: &str| {
        SecurityScheme::ApiKey(place(ApiKeyValue::new(name)))
    };
    let (name, scheme) = match source {
        CredentialSource::Bearer => {
            ("bearer".into(), SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        }
        CredentialSource::Header(name) => {
            (name.to_string(), api_key(ApiKey::Header, name.as_str()))
        }
        CredentialSource::Query(name) => (format!("query-{name}"), api_key(ApiKey::Query, name)),
    };
    // Names of OpenAPI components contain no other characters.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (name.replace(|c| !is_allowed(c), "_"), scheme)
}

const CHALLENGE_HEADER: (&str, &str) = (
    "WWW-Authenticate",
    "The challenge of RFC 6750, or `ApiKey` with the name of the header that is accepted.",
);
const RATE_LIMIT_HEADERS: [(&str, &str); 2] = [
    ("RateLimit", "The remaining uses of each rate and quota, and the seconds until it resets."),
    ("RateLimit-Policy", "The rates and quotas that apply."),
];
