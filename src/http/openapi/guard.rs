use http::StatusCode;
use utoipa::openapi::{
    RefOr,
    path::Operation,
    security::{
        ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
    },
};

use super::schemas::{ErrorResponses, header, string};
use crate::http::{credentials::CredentialSource, guard::Guard, responses::ErrorCode};

impl Guard {
    /// Adds to an operation what this guard requires and returns: security with the scopes, error
    /// responses, and headers.
    pub fn describe(&self, operation: &mut Operation) {
        operation.security = Some(self.security_requirements());
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else { continue };
            if status.starts_with('2') {
                for (name, text) in RATE_LIMIT_HEADERS {
                    let header = header(text, string().build());
                    response.headers.entry(name.into()).or_insert(RefOr::T(header));
                }
            }
        }
        let (mut limited, mut unavailable, mut challenged) =
            (ErrorResponses::default(), ErrorResponses::default(), ErrorResponses::default());
        for code in ERROR_CODES.into_iter().filter(|code| self.can_return(*code)) {
            let responses = match code.status() {
                StatusCode::TOO_MANY_REQUESTS => &mut limited,
                StatusCode::SERVICE_UNAVAILABLE => &mut unavailable,
                _ => &mut challenged,
            };
            responses.add(code.status().as_u16(), code.as_str());
        }
        limited.add_to(operation, &RATE_LIMIT_HEADERS);
        unavailable.add_to(operation, &[]);
        challenged.add_to(operation, &[("WWW-Authenticate", "The challenge of RFC 6750.")]);
    }

    /// Returns the security schemes that [`describe`](Self::describe) refers to. Add them to the
    /// components of the document.
    pub fn security_schemes(&self) -> Vec<(String, SecurityScheme)> {
        let sources = self.credentials.sources.iter();
        sources.map(|source| (scheme_name(source), security_scheme(source))).collect()
    }

    fn can_return(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::MissingKey => !self.optional,
            ErrorCode::InsufficientScope => !self.scopes.is_empty() || !self.any_scope.is_empty(),
            ErrorCode::InvalidKey
            | ErrorCode::RepeatedCredentials
            | ErrorCode::RateLimited
            | ErrorCode::QuotaExhausted
            | ErrorCode::Unavailable => true,
            ErrorCode::MissingLayer => false,
        }
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
        let without_key = self.optional.then(SecurityRequirement::default);
        alternatives.chain(without_key).collect()
    }
}

fn scheme_name(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Bearer => "bearer".into(),
        CredentialSource::Header(header) => component_name(header.as_str()),
        CredentialSource::Query(parameter) => format!("query-{}", component_name(parameter)),
    }
}

fn security_scheme(source: &CredentialSource) -> SecurityScheme {
    match source {
        CredentialSource::Bearer => {
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())
        }
        CredentialSource::Header(header) => {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(header.as_str())))
        }
        CredentialSource::Query(parameter) => {
            SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new(parameter)))
        }
    }
}

/// Replaces characters that are not allowed in the names of OpenAPI components.
fn component_name(text: &str) -> String {
    text.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "_")
}

const ERROR_CODES: [ErrorCode; 7] = [
    ErrorCode::MissingKey,
    ErrorCode::InvalidKey,
    ErrorCode::InsufficientScope,
    ErrorCode::RepeatedCredentials,
    ErrorCode::RateLimited,
    ErrorCode::QuotaExhausted,
    ErrorCode::Unavailable,
];
const RATE_LIMIT_HEADERS: [(&str, &str); 2] = [
    ("RateLimit", "The remaining uses of each rate and quota, and the seconds until it resets."),
    ("RateLimit-Policy", "The rates and quotas that apply."),
];
