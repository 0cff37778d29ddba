use http::{HeaderName, header::AUTHORIZATION};

use super::{request::RequestHead, responses::ErrorCode};
use crate::{model::Invalid, secret::Secret};

/// The places in a request that may contain a secret.
///
/// The default is `Authorization: Bearer …` and `X-API-Key: …`. Ambiguous requests are rejected before hashing and
/// lookup: more than one credential, more than 512 bytes, bytes other than visible ASCII, anything but exactly one
/// space after `Bearer`. An `Authorization` header of another scheme is ignored.
///
/// # Examples
/// ```
/// use keyward::http::Credentials;
///
/// let only_header = Credentials::header("x-acme-key");
/// let both = Credentials::header("x-acme-key").or_bearer();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Credentials {
    pub(super) sources: Vec<CredentialSource>,
    /// The first name that is not valid: the guard is then not built.
    invalid: Option<Invalid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CredentialSource {
    Bearer,
    Header(HeaderName),
    Query(String),
}

impl Credentials {
    /// Accepts only `Authorization: Bearer …`.
    pub fn bearer() -> Self {
        Self { sources: vec![CredentialSource::Bearer], invalid: None }
    }

    /// Accepts only a header of this name. If it is not a valid header name, or is `Authorization`, the
    /// [guard](crate::http::GuardBuilder::build) cannot be built.
    pub fn header(name: &str) -> Self {
        Self { sources: Vec::new(), invalid: None }.or_header(name)
    }

    /// Also accepts `Authorization: Bearer …`.
    pub fn or_bearer(self) -> Self {
        self.or(CredentialSource::Bearer)
    }

    /// Also accepts a header of this name, with the rules of [`header`](Credentials::header).
    pub fn or_header(mut self, name: &str) -> Self {
        match CredentialSource::header(name) {
            Ok(source) => self.or(source),
            Err(invalid) => {
                self.invalid.get_or_insert(invalid);
                self
            }
        }
    }

    /// Checks the names of all headers.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        self.invalid.clone().map_or(Ok(()), Err)
    }

    /// Also accepts a parameter of the query string. URLs are written to logs, browser histories and `Referer` headers,
    /// together with the secret: use this only for clients that cannot send a header. Other sites can link to such a URL,
    /// so the request is not [exempt](crate::Verified::is_csrf_exempt) from protection against cross-site requests.
    pub fn danger_or_query_parameter(self, name: &str) -> Self {
        self.or(CredentialSource::Query(name.into()))
    }

    fn or(mut self, source: CredentialSource) -> Self {
        if !self.sources.contains(&source) {
            self.sources.push(source);
        }
        self
    }

    /// Returns the secret that the request presents and where it was found, or `None` if it presents none.
    pub(super) fn read(
        &self,
        request: &RequestHead<'_>,
    ) -> Result<Option<(Secret, &CredentialSource)>, ErrorCode> {
        let (mut found, mut repeated) = (None, false);
        for source in &self.sources {
            source.each(request, |presented| {
                repeated |= found.is_some();
                found = Some((presented, source));
            });
        }
        match found {
            _ if repeated => Err(ErrorCode::RepeatedCredentials),
            None => Ok(None),
            Some((presented, source)) => Ok(Some((presented.and_then(parse_secret)?, source))),
        }
    }

    /// Returns the headers that can contain a secret.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.sources.iter().filter_map(|source| match source {
            CredentialSource::Bearer => Some(&AUTHORIZATION),
            CredentialSource::Header(name) => Some(name),
            CredentialSource::Query(_) => None,
        })
    }
}

/// `Authorization: Bearer …` and `X-API-Key: …`.
impl Default for Credentials {
    fn default() -> Self {
        Self::bearer().or(CredentialSource::Header(HeaderName::from_static("x-api-key")))
    }
}

/// The bytes that may be a secret, without the scheme; an error if they cannot be one of any format.
type Presented<'a> = Result<&'a [u8], ErrorCode>;

impl CredentialSource {
    fn header(name: &str) -> Result<Self, Invalid> {
        match HeaderName::try_from(name) {
            Ok(name) if name != AUTHORIZATION => Ok(Self::Header(name)),
            Ok(_) => Err(Invalid::new("header name", "for Authorization, use `bearer`")),
            Err(_) => Err(Invalid::new("header name", "use letters, digits and hyphens")),
        }
    }

    /// Returns whether a browser sends this to another site only after a preflight request, which that site has to
    /// allow.
    pub(super) fn needs_preflight(&self) -> bool {
        match self {
            Self::Bearer => true,
            Self::Header(name) => {
                let name = name.as_str();
                let prefixes = ["sec-", "proxy-"];
                !prefixes.iter().any(|prefix| name.starts_with(prefix))
                    && !SENT_ACROSS_SITES.contains(&name)
            }
            Self::Query(_) => false,
        }
    }

    fn each<'a>(&self, request: &RequestHead<'a>, mut visit: impl FnMut(Presented<'a>)) {
        match self {
            Self::Bearer => {
                // A second `Authorization` header is ambiguous, whatever its scheme.
                let (_, count) = request.last_value(&AUTHORIZATION);
                request.each_value(&AUTHORIZATION, |value| match parse_bearer(value) {
                    Some(presented) => visit(presented),
                    None if count > 1 => visit(Err(ErrorCode::InvalidKey)),
                    None => {}
                });
            }
            Self::Header(name) => request.each_value(name, |value| visit(Ok(value))),
            Self::Query(name) => {
                let pairs = request.query.unwrap_or_default().split('&');
                for (key, value) in pairs.filter_map(|pair| pair.split_once('=')) {
                    if key == name {
                        visit(Ok(value.as_bytes()));
                    }
                }
            }
        }
    }
}

/// Returns the text after `Bearer`, or `None` if the scheme is another.
fn parse_bearer(value: &[u8]) -> Option<Presented<'_>> {
    let end = value.iter().position(|byte| !is_token(*byte)).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.is_empty() && !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    match rest.split_first() {
        Some((b' ', text)) if !scheme.is_empty() => Some(Ok(text)),
        _ => Some(Err(ErrorCode::InvalidKey)),
    }
}

/// Checks length and characters before copying, so that a long value costs no allocation.
fn parse_secret(bytes: &[u8]) -> Result<Secret, ErrorCode> {
    let plausible =
        (1..=MAX_SECRET_LEN).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(bytes).ok().filter(|_| plausible);
    text.map(|text| Secret::from(text.to_owned())).ok_or(ErrorCode::InvalidKey)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const MAX_SECRET_LEN: usize = 512;
/// Headers that browsers send to other sites without a preflight request: those that a script of any site may set
/// (CORS-safelisted, now or in earlier browsers), and those that only the browser itself sets. Besides these, it sets
/// those that begin with `Sec-` or `Proxy-`.
const SENT_ACROSS_SITES: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "connection",
    "content-language",
    "content-length",
    "content-type",
    "cookie",
    "cookie2",
    "date",
    "device-memory",
    "dnt",
    "downlink",
    "dpr",
    "ect",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "range",
    "referer",
    "rtt",
    "save-data",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "viewport-width",
    "width",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_at_most_512_bytes() {
        assert!(parse_secret(&[b'k'; 512]).is_ok());
        assert!(parse_secret(&[b'k'; 513]).is_err());
    }
}
