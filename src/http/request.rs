//! What a guard reads from a request: headers, the address of the client, the tenant in the path.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{
    HeaderMap, HeaderName,
    header::{Entry, FORWARDED},
    request::Parts,
};
use percent_encoding::percent_decode_str;

use crate::model::{Invalid, Networks, debug_only};

/// The parts of a request that a [`Guard`](super::Guard) reads, independent of the web framework.
pub struct RequestHead<'a> {
    headers: &'a dyn Headers,
    pub(crate) path: &'a str,
    pub(super) query: Option<&'a str>,
    peer: Option<IpAddr>,
}

/// The header map of a web framework.
pub(crate) trait Headers: Sync {
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

debug_only!(RequestHead<'_> { path, peer });

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

/// Determines the address of the client.
///
/// By default the address of the peer; headers are ignored. Behind proxies it is the rightmost
/// address in the forwarding header that is not a trusted proxy. Each proxy appends the address it
/// was called from, so addresses further left can be forged by the client.
///
/// # Examples
/// ```
/// use keyward::http::ClientIp;
///
/// let behind_nginx = ClientIp::x_forwarded_for(["10.0.0.0/8"])?;
/// let behind_envoy = ClientIp::forwarded(["10.0.0.0/8", "fd00::/8"])?;
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientIp(Option<Arc<TrustedProxies>>);

#[derive(Debug)]
struct TrustedProxies {
    networks: Networks,
    header: HeaderName,
    parse_line: ParseLine,
}

type ParseLine = fn(&str) -> Option<Vec<Hop>>;

/// An entry of a forwarding header; `None` if it is not an IP address.
type Hop = Option<IpAddr>;

impl ClientIp {
    /// Uses the address that the connection came from.
    pub fn peer() -> Self {
        Self::default()
    }

    /// Uses `X-Forwarded-For`, if the peer is in one of these networks. Every proxy on the way MUST
    /// be in the list, and MUST append to the header or replace it.
    ///
    /// # Errors
    /// Those of [`Networks::only`].
    pub fn x_forwarded_for<T: AsRef<str>>(
        proxies: impl IntoIterator<Item = T>,
    ) -> Result<Self, Invalid> {
        let header = HeaderName::from_static("x-forwarded-for");
        Ok(Self::behind(Networks::only(proxies)?, header, parse_x_forwarded_for))
    }

    /// Uses `Forwarded` (RFC 7239), under the same conditions as
    /// [`x_forwarded_for`](ClientIp::x_forwarded_for).
    ///
    /// # Errors
    /// Those of [`Networks::only`].
    pub fn forwarded<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Ok(Self::behind(Networks::only(proxies)?, FORWARDED, parse_forwarded))
    }

    fn behind(networks: Networks, header: HeaderName, parse_line: ParseLine) -> Self {
        Self(Some(Arc::new(TrustedProxies { networks, header, parse_line })))
    }

    /// Returns the client's address, or `None` if the header cannot be parsed. A key that is bound
    /// to networks is then rejected.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Option<IpAddr> {
        let peer = request.peer?.to_canonical();
        let Some(proxies) = self.0.as_ref().filter(|proxies| proxies.networks.allows(Some(peer)))
        else {
            return Some(peer);
        };
        let mut hops = Some(Vec::new());
        request.each_value(&proxies.header, |line| {
            let parsed = std::str::from_utf8(line).ok().and_then(proxies.parse_line);
            hops = hops.take().zip(parsed).map(|(mut hops, parsed)| {
                hops.extend(parsed);
                hops
            });
        });
        let mut nearest = peer;
        for hop in hops?.into_iter().rev() {
            nearest = hop?;
            if !proxies.networks.allows(Some(nearest)) {
                break;
            }
        }
        Some(nearest)
    }
}

fn parse_x_forwarded_for(line: &str) -> Option<Vec<Hop>> {
    Some(line.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(parse_address).collect())
}

/// Returns the `for` parameter of each element, or `None` if a quote is left open: the open quote
/// could hide an element that a proxy appended.
fn parse_forwarded(line: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    for element in split_unquoted(line, ',')? {
        if element.trim().is_empty() {
            continue;
        }
        let mut hop = None;
        for pair in split_unquoted(element, ';')? {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.trim().eq_ignore_ascii_case("for") {
                hop = parse_address(value.trim().trim_matches('"'));
            }
        }
        hops.push(hop);
    }
    Some(hops)
}

/// Splits at separators outside quotes; `None` if a quote is left open.
fn split_unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

/// Parses an address, with or without brackets and port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
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
    use http::HeaderValue;

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

    fn find(client: &ClientIp, peer: &str, lines: &[(&'static str, &[u8])]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let head = RequestHead::new(&map, "/", None, peer.parse().ok());
        client.find(&head).map(|ip| ip.to_string())
    }

    #[test]
    fn only_addresses_appended_by_trusted_proxies_are_used() {
        let xff = ClientIp::x_forwarded_for(["10.0.0.0/8", "fd00::/8"]).unwrap();
        let at = |peer, line: &'static [u8]| find(&xff, peer, &[("x-forwarded-for", line)]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(at("192.0.2.9", b"198.51.100.1"), some("192.0.2.9"), "the peer is not a proxy");
        assert_eq!(at("10.0.0.1", b"198.51.100.1"), some("198.51.100.1"));
        assert_eq!(at("10.0.0.1", b"1.1.1.1, 198.51.100.1"), some("198.51.100.1"));
        assert_eq!(at("10.0.0.1", b"1.1.1.1, 198.51.100.1 ,10.0.0.2"), some("198.51.100.1"));
        assert_eq!(at("::ffff:10.0.0.1", b"[2001:db8::1]:443"), some("2001:db8::1"));
        assert_eq!(at("10.0.0.1", b"198.51.100.1:8080"), some("198.51.100.1"));
        assert_eq!(
            at("10.0.0.1", b"10.0.0.9"),
            some("10.0.0.9"),
            "the client is inside the proxy network"
        );
        assert_eq!(at("10.0.0.1", b"198.51.100.1, unknown"), None);
        assert_eq!(at("10.0.0.1", b"198.51.100.1, \xff"), None);
        assert_eq!(at("", b"198.51.100.1"), None, "the peer is unknown");
        assert_eq!(find(&xff, "10.0.0.1", &[]), some("10.0.0.1"));
        let two: [(_, &[u8]); 2] =
            [("x-forwarded-for", b"1.1.1.1"), ("x-forwarded-for", b"198.51.100.1")];
        assert_eq!(find(&xff, "10.0.0.1", &two), some("198.51.100.1"));
        assert_eq!(find(&ClientIp::peer(), "10.0.0.1", &two), some("10.0.0.1"));
    }

    #[test]
    fn quoted_values_in_forwarded_are_parsed() {
        let forwarded = ClientIp::forwarded(["10.0.0.0/8"]).unwrap();
        let at = |line: &'static [u8]| find(&forwarded, "10.0.0.1", &[("forwarded", line)]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(at(b"for=192.0.2.60;proto=http;by=203.0.113.43"), some("192.0.2.60"));
        assert_eq!(at(b"for=1.1.1.1, FOR=\"[2001:db8:cafe::17]:4711\""), some("2001:db8:cafe::17"));
        assert_eq!(at(b"for=198.51.100.1;x=\"a,for=1.1.1.1\", for=10.1.1.1"), some("198.51.100.1"));
        assert_eq!(at(b"for=_hidden, for=10.1.1.1"), None);
        assert_eq!(at(b"proto=https"), None);
        assert_eq!(at(b"for=1.1.1.1;x=\", for=198.51.100.1"), None, "a quote is left open");
        assert_eq!(
            at(b"for=1.1.1.1;x=\"\\\", for=198.51.100.1"),
            None,
            "the closing quote is escaped"
        );
    }
}
