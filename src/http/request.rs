//! What a guard reads from a request: headers, the address of the client, the tenant in the path.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, header::FORWARDED, request::Parts};
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

    /// Returns the value of a header, if the header occurs exactly once and its value is visible ASCII.
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

/// Determines the address of the client.
///
/// By default the address of the peer; headers are ignored. Behind proxies it is the rightmost address in the
/// forwarding header that is not a trusted proxy. Each proxy appends the address it was called from, so addresses
/// further left can be forged by the client.
///
/// The header is read from the right, and over several lines from the last one. Reading stops at the first address that
/// is not a trusted proxy; what is left of it is ignored, readable or not. If the entry directly left of the trusted
/// proxies is not an address, such as `unknown`, the client's address is not known. A key that is bound to networks is
/// then rejected, and all requests without a known address share one limit of failed attempts and of e-mail codes.
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

/// Returns the entries of a line, the rightmost first.
type ParseLine = fn(&[u8]) -> Vec<Hop>;

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

    /// Uses `Forwarded` (RFC 7239), under the same conditions as [`x_forwarded_for`](ClientIp::x_forwarded_for).
    ///
    /// # Errors
    /// Those of [`Networks::only`].
    pub fn forwarded<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Ok(Self::behind(Networks::only(proxies)?, FORWARDED, parse_forwarded))
    }

    fn behind(networks: Networks, header: HeaderName, parse_line: ParseLine) -> Self {
        Self(Some(Arc::new(TrustedProxies { networks, header, parse_line })))
    }

    /// Returns the client's address, or `None` if it is not known.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Option<IpAddr> {
        let peer = request.peer?.to_canonical();
        let Some(proxies) = self.0.as_ref().filter(|proxies| proxies.networks.allows(Some(peer)))
        else {
            return Some(peer);
        };
        let mut lines = Vec::new();
        request.each_value(&proxies.header, |line| lines.push(line));
        let mut nearest = peer;
        for hop in lines.into_iter().rev().flat_map(proxies.parse_line) {
            nearest = hop?;
            if !proxies.networks.allows(Some(nearest)) {
                break;
            }
        }
        Some(nearest)
    }
}

fn parse_x_forwarded_for(line: &[u8]) -> Vec<Hop> {
    let hops = line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    hops.filter(|hop| !hop.is_empty()).map(parse_address).collect()
}

/// Returns the `for` parameter of each element.
///
/// The line is split from the right, because a client could hide the element of a proxy in a quote that it leaves open.
/// The last element is the shortest text after a comma that is an element by itself. It cannot begin inside a quoted
/// value of a proxy's element: all quotes there follow a `\`, and an element opens quotes only after a `=`.
fn parse_forwarded(mut line: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    loop {
        let commas = (0..line.len()).rev().filter(|at| line[*at] == b',');
        let mut last = commas.map(|at| (at, &line[at + 1..])).chain([(0, line)]);
        let Some((rest, hop)) = last.find_map(|(at, text)| Some((at, parse_element(text)?))) else {
            hops.push(None);
            return hops;
        };
        hops.extend(hop);
        if rest == 0 {
            return hops;
        }
        line = &line[..rest];
    }
}

/// Parses an element of `Forwarded`. Returns `None` if the text is not exactly one element, and an inner `None` if it
/// is empty, which the syntax of lists allows.
fn parse_element(text: &[u8]) -> Option<Option<Hop>> {
    let (mut rest, mut hop) = (text.trim_ascii(), None);
    if rest.is_empty() {
        return Some(None);
    }
    loop {
        let end = rest.iter().position(|byte| b"=;,\"".contains(byte)).unwrap_or(rest.len());
        let name = rest[..end].trim_ascii();
        let (value, after) = match rest[end..].strip_prefix(b"=") {
            Some(value) => parse_value(value)?,
            None => (&[][..], &rest[end..]),
        };
        if name.eq_ignore_ascii_case(b"for") {
            hop = parse_address(value);
        }
        rest = match after.split_first() {
            None => return Some(Some(hop)),
            Some((b';', rest)) => rest,
            Some(_) => return None,
        };
    }
}

/// Splits off a value, quoted or not. Returns `None` if a quote is left open.
fn parse_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = text.trim_ascii_start().strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| b";,\"".contains(byte)).unwrap_or(text.len());
        return Some((text[..end].trim_ascii(), &text[end..]));
    };
    let mut escaped = false;
    let end = quoted.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some((&quoted[..end], quoted[end + 1..].trim_ascii_start()))
}

/// Parses an address, with or without brackets and port. A proxy may obfuscate the port (RFC 7239): `192.0.2.7:_a`.
fn parse_address(text: &[u8]) -> Hop {
    let text = std::str::from_utf8(text).ok()?;
    let is_obfuscated = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let obfuscated = text.split_once(":_").filter(|(_, port)| is_obfuscated(port));
    let text = obfuscated.map_or(text, |(address, _)| address);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

/// The position of the tenant in the path of a URL: `/t/{tenant}`.
pub(super) struct TenantPath {
    /// The segments before the tenant: `/t`.
    prefix: String,
}

impl TenantPath {
    pub(super) fn new(template: &str) -> Result<Self, Invalid> {
        let is_plain = |segment: &str| !segment.is_empty() && !segment.contains(['{', '}', '*']);
        let prefix = template.rsplit_once('/').and_then(|(prefix, last)| {
            let name = last.strip_prefix('{')?.strip_suffix('}')?;
            let mut segments = prefix.split('/');
            let is_valid = segments.next() == Some("") && segments.all(is_plain) && is_plain(name);
            is_valid.then(|| prefix.to_owned())
        });
        let why = "write it as /t/{tenant}: whole segments, the last one in braces";
        prefix.map(|prefix| Self { prefix }).ok_or_else(|| Invalid::new("tenant path", why))
    }

    /// Returns the tenant that a path names, percent-decoded once, as a router passes it to a
    /// handler. The empty text is none: it is the tenant of hosts without tenants.
    pub(super) fn tenant(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&*self.prefix)?.strip_prefix('/')?;
        let segment = rest.split('/').next().filter(|segment| has_valid_escapes(segment))?;
        let name = percent_decode_str(segment).decode_utf8().ok()?;
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
