use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header::Entry, request::Parts};
use percent_encoding::percent_decode_str;

use crate::model::Invalid;

/// The parts of a request that a [`Guard`](super::Guard) reads, independent of the web framework.
pub struct RequestHead<'a> {
    headers: &'a dyn Headers,
    path: &'a str,
    query: Option<&'a str>,
    peer: Option<IpAddr>,
}

/// The header map of a web framework.
pub(crate) trait Headers {
    /// Calls `visit` with every value of a header, in the order received.
    fn each_value<'a>(&'a self, name: &HeaderName, visit: &mut dyn FnMut(&'a [u8]));
}

impl<'a> RequestHead<'a> {
    pub(crate) fn new(
        headers: &'a dyn Headers,
        path: &'a str,
        query: Option<&'a str>,
        peer: Option<IpAddr>,
    ) -> Self {
        Self { headers, path, query, peer }
    }

    /// Reads the head of a request; `peer` is the address that the connection came from.
    pub fn from_parts(parts: &'a Parts, peer: Option<IpAddr>) -> Self {
        Self::new(&parts.headers, parts.uri.path(), parts.uri.query(), peer)
    }

    /// Returns the path of the URL.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Returns the value of a header, if the header occurs exactly once and its value is visible
    /// ASCII.
    pub fn header(&self, name: &HeaderName) -> Option<&'a str> {
        let (value, count) = self.last_value(name);
        let text = std::str::from_utf8(value?).ok()?;
        (count == 1 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))).then_some(text)
    }

    pub(crate) fn query(&self) -> Option<&'a str> {
        self.query
    }

    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    pub(crate) fn each_value(&self, name: &HeaderName, mut visit: impl FnMut(&'a [u8])) {
        self.headers.each_value(name, &mut visit);
    }

    /// Returns the last value of a header and the number of its values.
    pub(crate) fn last_value(&self, name: &HeaderName) -> (Option<&'a [u8]>, usize) {
        let (mut last, mut count) = (None, 0);
        self.each_value(name, |value| {
            last = Some(value);
            count += 1;
        });
        (last, count)
    }
}

/// Omits query and headers, which may contain a secret.
impl std::fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHead")
            .field("path", &self.path)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Headers for HeaderMap {
    fn each_value<'a>(&'a self, name: &HeaderName, visit: &mut dyn FnMut(&'a [u8])) {
        self.get_all(name).iter().for_each(|value| visit(value.as_bytes()));
    }
}

/// Marks the values of a header as sensitive, so that logs omit them.
pub(crate) fn mark_sensitive(headers: &mut HeaderMap, name: &HeaderName) {
    if headers.contains_key(name)
        && let Entry::Occupied(mut entry) = headers.entry(name)
    {
        entry.iter_mut().for_each(|value| value.set_sensitive(true));
    }
}

/// The position of the tenant in the path of a URL: `/t/{tenant}`.
#[derive(Clone, Debug)]
pub(super) struct TenantPath {
    prefix: Box<[Box<str>]>,
}

impl TenantPath {
    pub(super) fn new(template: &str) -> Result<Self, Invalid> {
        let invalid = || {
            let why = "write it as /t/{tenant}: whole segments, the last one in braces";
            Invalid::new("tenant path", why)
        };
        let (prefix, last) = template.rsplit_once('/').ok_or_else(invalid)?;
        let name = last.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        name.filter(|name| !name.is_empty() && !is_pattern(name)).ok_or_else(invalid)?;
        let mut segments = prefix.split('/');
        if segments.next() != Some("")
            || segments.clone().any(|segment| segment.is_empty() || is_pattern(segment))
        {
            return Err(invalid());
        }
        Ok(Self { prefix: segments.map(Into::into).collect() })
    }

    /// Returns the tenant that a path names, percent-decoded once, as a router passes it to a
    /// handler. A path that names no tenant yields [`NO_TENANT`].
    pub(super) fn tenant(&self, path: &str) -> String {
        self.decoded_segment(path).unwrap_or_else(|| NO_TENANT.into())
    }

    fn decoded_segment(&self, path: &str) -> Option<String> {
        let mut segments = path.strip_prefix('/')?.split('/');
        for expected in &self.prefix {
            segments.next().filter(|segment| *segment == &**expected)?;
        }
        let segment = segments.next().filter(|segment| has_valid_escapes(segment))?;
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        // The empty text is the tenant of hosts without tenants.
        (!name.is_empty()).then(|| name.into_owned())
    }
}

/// Whether every `%` starts a valid escape. Routers decode invalid escapes differently: actix-web
/// decodes the text around one, and then decodes the result again.
fn has_valid_escapes(segment: &str) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let mut escapes = segment.split('%').skip(1).map(str::as_bytes);
    escapes.all(|rest| is_digit(rest.first()) && is_digit(rest.get(1)))
}

fn is_pattern(segment: &str) -> bool {
    segment.contains(['{', '}', '*'])
}

/// No tenant can have this name, because an [`Owner`](crate::model::Owner) contains no NUL. Every
/// key is rejected, with the response for an unknown key.
const NO_TENANT: &str = "\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_is_read_from_the_path_as_a_router_reads_it() {
        let template = TenantPath::new("/t/{tenant}").unwrap();
        for (path, tenant) in [
            ("/t/acme", "acme"),
            ("/t/acme/users", "acme"),
            ("/t/%61cme/", "acme"),
            ("/t/%2561cme", "%61cme"),
            ("/t/acme%2Fother", "acme/other"),
            ("/t/gr%C3%BCn", "grün"),
            ("/t/../t/acme", ".."),
            ("/t/%00", NO_TENANT),
            ("/t//acme", NO_TENANT),
            ("/t/", NO_TENANT),
            ("/t", NO_TENANT),
            ("/T/acme", NO_TENANT),
            ("//t/acme", NO_TENANT),
            ("/x/t/acme", NO_TENANT),
            ("/t/%ff", NO_TENANT),
            ("/t/a%zz", NO_TENANT),
            ("/t/a%", NO_TENANT),
            ("/t/a%4", NO_TENANT),
            ("/t/%%36%31cme", NO_TENANT),
            ("t/acme", NO_TENANT),
            ("*", NO_TENANT),
            ("", NO_TENANT),
        ] {
            assert_eq!(template.tenant(path), tenant, "{path}");
        }
        assert_eq!(TenantPath::new("/{tenant}").unwrap().tenant("/acme/x"), "acme");
    }

    #[test]
    fn a_template_without_a_tenant_segment_is_rejected() {
        for template in [
            "", "/", "/t", "{t}", "/t/{}", "/t/{t}/", "//{t}", "t/{t}", "/t/x{t}", "/{a}/{b}",
            "/t/{*t}",
        ] {
            assert!(TenantPath::new(template).is_err(), "{template}");
        }
    }
}
