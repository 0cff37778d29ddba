use http::{HeaderName, header::AUTHORIZATION};

use super::RequestHead;
use crate::{model::Invalid, secret::Secret};

/// Where in a request a secret may stand.
///
/// By default `Authorization: Bearer …` and `X-API-Key: …`. Whatever could be read in two ways is
/// refused before anything is hashed or looked up: more than one credential, more than 512 bytes,
/// anything but visible ASCII, more or less than one space behind `Bearer`. An `Authorization` of
/// another scheme is none of ours: it counts as absent.
///
/// # Examples
/// ```
/// use keyward::http::Credentials;
///
/// let only_ours = Credentials::header("x-acme-key")?;
/// let both = Credentials::header("x-acme-key")?.or_bearer();
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Credentials {
    pub(super) places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Bearer,
    Header(HeaderName),
    Query(String),
}

/// Why what a request presents is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It has more than one.
    Repeated,
    /// It cannot be a secret of any format.
    Malformed,
}

impl Credentials {
    /// `Authorization: Bearer …` and nothing else.
    pub fn bearer() -> Self {
        Self { places: vec![Place::Bearer] }
    }

    /// A header field of this name, and nothing else.
    ///
    /// # Errors
    /// If it cannot be the name of a field, or is `Authorization`.
    pub fn header(name: &str) -> Result<Self, Invalid> {
        Ok(Self { places: vec![Place::header(name)?] })
    }

    /// Looks for `Authorization: Bearer …`, too.
    pub fn or_bearer(self) -> Self {
        self.or(Place::Bearer)
    }

    /// Looks for a header field of this name, too.
    ///
    /// # Errors
    /// As [`header`](Credentials::header).
    pub fn or_header(self, name: &str) -> Result<Self, Invalid> {
        Ok(self.or(Place::header(name)?))
    }

    /// Looks into the query string, too. URLs end up in logs, histories and `Referer` fields, and
    /// a secret with them: only for clients that can send nothing else.
    pub fn danger_or_query_parameter(self, name: &str) -> Self {
        self.or(Place::Query(name.into()))
    }

    fn or(mut self, place: Place) -> Self {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
        self
    }

    /// The one secret that a request presents, if it presents any.
    pub(crate) fn read(&self, request: &RequestHead<'_>) -> Result<Option<Secret>, Unreadable> {
        let (mut found, mut several) = (None, false);
        for place in &self.places {
            place.each(request, |presented| {
                several |= found.is_some();
                found = Some(presented);
            });
        }
        match found {
            _ if several => Err(Unreadable::Repeated),
            None => Ok(None),
            Some(Presented::Text(bytes)) => secret(bytes).map(Some).ok_or(Unreadable::Malformed),
            Some(Presented::Garbage) => Err(Unreadable::Malformed),
        }
    }

    /// The header fields that can carry a secret.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.places.iter().filter_map(|place| match place {
            Place::Bearer => Some(&AUTHORIZATION),
            Place::Header(name) => Some(name),
            Place::Query(_) => None,
        })
    }
}

/// `Authorization: Bearer …` and `X-API-Key: …`.
impl Default for Credentials {
    fn default() -> Self {
        Self::bearer().or(Place::Header(HeaderName::from_static("x-api-key")))
    }
}

enum Presented<'a> {
    Text(&'a [u8]),
    Garbage,
}

impl Place {
    fn header(name: &str) -> Result<Self, Invalid> {
        match HeaderName::try_from(name) {
            Ok(name) if name != AUTHORIZATION => Ok(Self::Header(name)),
            Ok(_) => Err(Invalid::new("header name", "for Authorization, use `bearer`")),
            Err(_) => Err(Invalid::new("header name", "use letters, digits and hyphens")),
        }
    }

    fn each<'a>(&self, request: &RequestHead<'a>, mut show: impl FnMut(Presented<'a>)) {
        match self {
            Self::Bearer => {
                // Two fields of this name are one too many, whatever their schemes.
                let (_, count) = request.value(&AUTHORIZATION);
                request.each(&AUTHORIZATION, |value| match bearer(value) {
                    Some(presented) => show(presented),
                    None if count > 1 => show(Presented::Garbage),
                    None => {}
                });
            }
            Self::Header(name) => request.each(name, |value| show(Presented::Text(value))),
            Self::Query(name) => {
                let pairs = request.query().unwrap_or_default().split('&');
                for (key, value) in pairs.filter_map(|pair| pair.split_once('=')) {
                    if key == name {
                        show(Presented::Text(value.as_bytes()));
                    }
                }
            }
        }
    }
}

/// What stands behind `Bearer`; nothing, if the scheme is another.
fn bearer(value: &[u8]) -> Option<Presented<'_>> {
    let end = value.iter().position(|byte| !is_token(*byte)).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.is_empty() && !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    match rest.split_first() {
        Some((b' ', text)) if !scheme.is_empty() => Some(Presented::Text(text)),
        _ => Some(Presented::Garbage),
    }
}

/// Only what may be one is copied, however much was sent.
fn secret(bytes: &[u8]) -> Option<Secret> {
    let plausible =
        !bytes.is_empty() && bytes.len() <= MAX_LEN && bytes.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(bytes).ok().filter(|_| plausible)?;
    Some(Secret::from(text.to_owned()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const MAX_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    type Fields<'a> = &'a [(&'static str, &'a [u8])];

    fn read(
        credentials: &Credentials,
        fields: Fields<'_>,
        query: &str,
    ) -> Result<Option<String>, Unreadable> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let found = credentials.read(&RequestHead::new(&map, "/", Some(query), None))?;
        Ok(found.map(|secret| secret.expose().to_owned()))
    }

    #[test]
    fn a_credential_can_be_read_in_one_way_only() {
        use Unreadable::{Malformed, Repeated};
        let table: &[(Fields, Result<Option<&str>, Unreadable>)] = &[
            (&[], Ok(None)),
            (&[("authorization", b"Bearer k1")], Ok(Some("k1"))),
            (&[("authorization", b"bEARER k1")], Ok(Some("k1"))),
            (&[("x-api-key", b"k1")], Ok(Some("k1"))),
            (&[("authorization", b"Basic YTpi")], Ok(None)),
            (&[("authorization", b"Bearers k1")], Ok(None)),
            (&[("authorization", b"Basic YTpi"), ("x-api-key", b"k1")], Ok(Some("k1"))),
            (&[("authorization", b"Bearer k1"), ("x-api-key", b"k1")], Err(Repeated)),
            (&[("authorization", b"Bearer k1"), ("authorization", b"Bearer k1")], Err(Repeated)),
            (&[("authorization", b"Basic YTpi"), ("authorization", b"Bearer k1")], Err(Repeated)),
            (&[("authorization", b"Basic YTpi"), ("authorization", b"Basic x")], Err(Repeated)),
            (&[("x-api-key", b"k1"), ("x-api-key", b"k1")], Err(Repeated)),
            (&[("x-api-key", b""), ("x-api-key", b"k1")], Err(Repeated)),
            (&[("authorization", b"")], Err(Malformed)),
            (&[("authorization", b"Bearer")], Err(Malformed)),
            (&[("authorization", b"Bearer ")], Err(Malformed)),
            (&[("authorization", b"Bearer  k1")], Err(Malformed)),
            (&[("authorization", b"Bearer\tk1")], Err(Malformed)),
            (&[("authorization", b"Bearer:k1")], Err(Malformed)),
            (&[("authorization", b" Bearer k1")], Err(Malformed)),
            (&[("authorization", b"Bearer k1 ")], Err(Malformed)),
            (&[("authorization", b"Bearer k1, Bearer k2")], Err(Malformed)),
            (&[("x-api-key", b"")], Err(Malformed)),
            (&[("x-api-key", b"k 1")], Err(Malformed)),
            (&[("x-api-key", b"k\xff1")], Err(Malformed)),
            (&[("x-api-key", "k\u{e9}1".as_bytes())], Err(Malformed)),
            (&[("x-api-key", &[b'k'; 513])], Err(Malformed)),
        ];
        for (fields, expected) in table {
            let expected = expected.map(|found| found.map(str::to_owned));
            assert_eq!(
                read(&Credentials::default(), fields, "x-api-key=k9"),
                expected,
                "{fields:?}"
            );
        }
        assert!(read(&Credentials::default(), &[("x-api-key", &[b'k'; 512])], "").is_ok());
    }

    #[test]
    fn the_query_is_looked_at_only_where_the_host_accepts_the_danger() {
        let credentials = Credentials::bearer().danger_or_query_parameter("key");
        assert_eq!(read(&credentials, &[], "a=b&key=k1"), Ok(Some("k1".into())));
        assert_eq!(read(&credentials, &[], "a=b"), Ok(None));
        assert_eq!(read(&credentials, &[], "key=k1&key=k2"), Err(Unreadable::Repeated));
        let both = read(&credentials, &[("authorization", b"Bearer k1")], "key=k1");
        assert_eq!(both, Err(Unreadable::Repeated));
        assert!(Credentials::header("authorization").is_err());
        assert!(Credentials::header("no such name").is_err());
    }
}
