use http::StatusCode;
use utoipa::openapi::{
    RefOr,
    path::Operation,
    security::{
        ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
    },
};

use super::answers::{ErrorResponses, header, string};
use crate::http::{ErrorCode, Guard, credentials::Place};

impl Guard {
    /// Says of an operation what this guard asks for in front of it, and answers if it is not
    /// there: security with the scopes, refusals, header fields.
    pub fn describe(&self, operation: &mut Operation) {
        operation.security = Some(self.requirements());
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else { continue };
            if status.starts_with('2') {
                for (name, text) in RATES {
                    let field = header(text, string().build());
                    response.headers.entry(name.into()).or_insert(RefOr::T(field));
                }
            }
        }
        let mut groups: [ErrorResponses; 3] = Default::default();
        for code in CODES.into_iter().filter(|code| self.answers(*code)) {
            let group = match code.status() {
                StatusCode::TOO_MANY_REQUESTS => 0,
                StatusCode::SERVICE_UNAVAILABLE => 1,
                _ => 2,
            };
            groups[group].add(code.status().as_u16(), code.as_str());
        }
        let [limited, unavailable, challenged] = groups;
        limited.describe(operation, &RATES);
        unavailable.describe(operation, &[]);
        challenged.describe(operation, &[("WWW-Authenticate", "A challenge as RFC 6750 has it.")]);
    }

    /// The ways in which a secret may be presented, under the names that operations are described
    /// with; they belong into the document's components.
    pub fn security_schemes(&self) -> Vec<(String, SecurityScheme)> {
        self.credentials.places.iter().map(|place| (name(place), scheme(place))).collect()
    }

    /// Whether it can refuse for this.
    fn answers(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::MissingKey => !self.optional,
            ErrorCode::InsufficientScope => !self.all.is_empty() || !self.any.is_empty(),
            ErrorCode::InvalidKey
            | ErrorCode::RepeatedCredentials
            | ErrorCode::RateLimited
            | ErrorCode::QuotaExhausted
            | ErrorCode::Unavailable => true,
            ErrorCode::MissingLayer => false,
        }
    }

    /// One requirement for each way to fulfil it: whichever place, whichever of the `any` scopes.
    fn requirements(&self) -> Vec<SecurityRequirement> {
        let any: Vec<Option<&str>> = match &*self.any {
            [] => vec![None],
            some => some.iter().copied().map(Some).collect(),
        };
        let ways = self.credentials.places.iter().flat_map(|place| {
            any.iter().map(move |one| {
                SecurityRequirement::new(name(place), self.all.iter().copied().chain(*one))
            })
        });
        let nobody = self.optional.then(SecurityRequirement::default);
        ways.chain(nobody).collect()
    }
}

fn name(place: &Place) -> String {
    match place {
        Place::Bearer => "bearer".into(),
        // Names of components have fewer characters than names of fields.
        Place::Header(field) => field.as_str().replace(|c: char| !plain(c), "_"),
        Place::Query(parameter) => format!("query-{}", parameter.replace(|c: char| !plain(c), "_")),
    }
}

fn scheme(place: &Place) -> SecurityScheme {
    match place {
        Place::Bearer => {
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())
        }
        Place::Header(field) => {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(field.as_str())))
        }
        Place::Query(parameter) => {
            SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new(parameter)))
        }
    }
}

fn plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.".contains(character)
}

const CODES: [ErrorCode; 7] = [
    ErrorCode::MissingKey,
    ErrorCode::InvalidKey,
    ErrorCode::InsufficientScope,
    ErrorCode::RepeatedCredentials,
    ErrorCode::RateLimited,
    ErrorCode::QuotaExhausted,
    ErrorCode::Unavailable,
];
const RATES: [(&str, &str); 2] = [
    ("RateLimit", "What is left of the rates and quotas, and for how long."),
    ("RateLimit-Policy", "The rates and quotas that count."),
];
