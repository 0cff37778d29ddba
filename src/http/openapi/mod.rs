//! OpenAPI 3.1 documents for the HTTP routes of this crate.
//!
//! [`document`] describes the management API, with every error it returns, and [`sign_in_document`]
//! the sign-in routes. [`Guard::describe`] adds to any operation what a guard in front of it requires
//! and returns. All are generated from the code that serves requests, the route table and the rules
//! of the guard, so that they cannot disagree with it.
//!
//! With axum and the feature `axum-openapi`, `axum::openapi` adds a route and its description to a
//! router in one step.

mod operations;
mod schemas;

use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, RefOr,
    path::{HttpMethod, Operation},
    security::{
        ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
    },
};

use self::schemas::{ErrorResponses, NamedSchemas, header, string};
use super::{
    credentials::CredentialSource,
    guard::Guard,
    manage::{ROUTES, SignIn},
    responses::ErrorCode,
};

/// How callers of the management API authenticate: what the host's extractor accepts.
#[derive(Clone)]
pub struct CallerAuth(Auth);

#[derive(Clone)]
enum Auth {
    Scheme(String, SecurityScheme),
    ApiKey(Guard),
}

impl CallerAuth {
    /// Callers authenticate by a scheme of the host, under this name in the document: for example a
    /// cookie, or a token of another system.
    pub fn scheme(name: &str, scheme: SecurityScheme) -> Self {
        Self(Auth::Scheme(name.into(), scheme))
    }

    /// Callers authenticate by an API key: this guard is in front of the router.
    pub fn api_key(guard: &Guard) -> Self {
        Self(Auth::ApiKey(guard.clone()))
    }

    fn security_schemes(&self) -> Vec<(String, SecurityScheme)> {
        match &self.0 {
            Auth::Scheme(name, scheme) => vec![(name.clone(), scheme.clone())],
            Auth::ApiKey(guard) => guard.security_schemes(),
        }
    }

    fn describe(&self, operation: &mut Operation) {
        match &self.0 {
            Auth::Scheme(name, _) => {
                operation.security = Some(vec![SecurityRequirement::new(name, [""; 0])]);
            }
            Auth::ApiKey(guard) => guard.describe(operation),
        }
    }
}

impl std::fmt::Debug for CallerAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.security_schemes().into_iter().map(|(name, _)| name).collect();
        f.debug_tuple("CallerAuth").field(&names).finish()
    }
}

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
    build_document(info, operations, schemas::management(), callers.security_schemes())
}

/// Returns the document of the [sign-in routes](SignIn), relative to where they are mounted.
///
/// # Examples
/// ```
/// # fn example(sign_in: &keyward::http::manage::SignIn) {
/// use keyward::http::openapi::sign_in_document;
/// use utoipa::openapi::OpenApi;
///
/// let of_the_host = OpenApi::default();
/// let whole = of_the_host.nest("/v1", sign_in_document(sign_in));
/// assert!(whole.paths.get_path_item("/v1/auth/otp").is_some());
/// # }
/// ```
pub fn sign_in_document(sign_in: &SignIn) -> OpenApi {
    let guard = sign_in.guard();
    let operations = operations::sign_in().into_iter().map(|(method, path, mut operation)| {
        // An empty list overrides the security of the host's document.
        operation.security = Some(Vec::new());
        if path == "/auth/key" {
            guard.describe(&mut operation);
        }
        (method, path, operation)
    });
    let info = ("Sign-in", "Lets people without a session get an API key by e-mail.");
    build_document(info, operations, schemas::sign_in(), guard.security_schemes())
}

/// Returns the schema that the error responses of [`Guard::describe`] refer to.
#[cfg(feature = "axum-openapi")]
pub(crate) fn problem_schema() -> (String, RefOr<utoipa::openapi::Schema>) {
    (schemas::PROBLEM.into(), schemas::problem())
}

fn build_document(
    (title, description): (&str, &str),
    operations: impl Iterator<Item = (HttpMethod, &'static str, Operation)>,
    schemas: NamedSchemas,
    security_schemes: Vec<(String, SecurityScheme)>,
) -> OpenApi {
    let mut paths = Paths::new();
    for (method, path, operation) in operations {
        paths.add_path_operation(path, vec![method], operation);
    }
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    for (name, scheme) in security_schemes {
        components = components.security_scheme(name, scheme);
    }
    let info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
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
    /// Adds to an operation what this guard requires and returns: security with the scopes, error
    /// responses, and headers.
    pub fn describe(&self, operation: &mut Operation) {
        operation.security = Some(self.security_requirements());
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else { continue };
            if status.starts_with('2') {
                for (name, text) in RATE_LIMIT_HEADERS {
                    let header = header(text, string());
                    response.headers.entry(name.into()).or_insert(RefOr::T(header));
                }
            }
        }
        let requires_scope = !self.scopes.is_empty() || !self.any_scope.is_empty();
        let mut errors = ErrorResponses::default();
        for (code, can_occur) in [
            (ErrorCode::MissingKey, !self.optional),
            (ErrorCode::InvalidKey, true),
            (ErrorCode::InsufficientScope, requires_scope),
            (ErrorCode::RepeatedCredentials, true),
            (ErrorCode::RateLimited, true),
            (ErrorCode::QuotaExhausted, true),
            (ErrorCode::Unavailable, true),
        ] {
            if can_occur {
                errors = errors.with(code.status().as_u16(), &[code.as_str()]);
            }
        }
        errors.add_to(operation, |status| match status {
            429 => &RATE_LIMIT_HEADERS,
            503 => &[],
            _ => &[("WWW-Authenticate", "The challenge of RFC 6750.")],
        });
    }

    /// Returns the security schemes that [`describe`](Self::describe) refers to. Add them to the
    /// components of the document.
    pub fn security_schemes(&self) -> Vec<(String, SecurityScheme)> {
        let schemes = self.credentials.sources.iter().map(|source| {
            let scheme = match source {
                CredentialSource::Bearer => {
                    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())
                }
                CredentialSource::Header(header) => {
                    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(header.as_str())))
                }
                CredentialSource::Query(parameter) => {
                    SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new(parameter)))
                }
            };
            (scheme_name(source), scheme)
        });
        schemes.collect()
    }

    /// Returns one requirement for each alternative: each combination of a credential source and
    /// one of the `any_scope` scopes.
    fn security_requirements(&self) -> Vec<SecurityRequirement> {
        let any_scope: Vec<Option<&str>> = match &*self.any_scope {
            [] => vec![None],
            scopes => scopes.iter().copied().map(Some).collect(),
        };
        let alternatives = self.credentials.sources.iter().flat_map(|source| {
            any_scope.iter().map(move |scope| {
                let scopes = self.scopes.iter().copied().chain(*scope);
                SecurityRequirement::new(scheme_name(source), scopes)
            })
        });
        alternatives.chain(self.optional.then(SecurityRequirement::default)).collect()
    }
}

fn scheme_name(source: &CredentialSource) -> String {
    let (prefix, name) = match source {
        CredentialSource::Bearer => ("", "bearer"),
        CredentialSource::Header(header) => ("", header.as_str()),
        CredentialSource::Query(parameter) => ("query-", &**parameter),
    };
    // Names of OpenAPI components contain no other characters.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    format!("{prefix}{}", name.replace(|c| !is_allowed(c), "_"))
}

const RATE_LIMIT_HEADERS: [(&str, &str); 2] = [
    ("RateLimit", "The remaining uses of each rate and quota, and the seconds until it resets."),
    ("RateLimit-Policy", "The rates and quotas that apply."),
];
