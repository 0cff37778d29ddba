use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderName, header::FORWARDED};

use super::request::RequestHead;
use crate::model::{Invalid, Networks};

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
pub struct ClientIp(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Peer,
    XForwardedFor(Arc<Networks>),
    Forwarded(Arc<Networks>),
}

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
        Ok(Self(Source::XForwardedFor(Arc::new(Networks::only(proxies)?))))
    }

    /// Uses `Forwarded` (RFC 7239), under the same conditions as
    /// [`x_forwarded_for`](ClientIp::x_forwarded_for).
    ///
    /// # Errors
    /// Those of [`Networks::only`].
    pub fn forwarded<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Ok(Self(Source::Forwarded(Arc::new(Networks::only(proxies)?))))
    }

    /// Returns the client's address, or `None` if the header cannot be parsed. A key that is bound
    /// to networks is then rejected.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Option<IpAddr> {
        let peer = request.peer()?.to_canonical();
        let (proxies, header, parse_line): (_, _, ParseLine) = match &self.0 {
            Source::Peer => return Some(peer),
            Source::XForwardedFor(proxies) => (proxies, &X_FORWARDED_FOR, parse_x_forwarded_for),
            Source::Forwarded(proxies) => (proxies, &FORWARDED, parse_forwarded),
        };
        if !proxies.allows(Some(peer)) {
            return Some(peer);
        }
        let mut hops = Some(Vec::new());
        request.each_value(header, |line| {
            let parsed = std::str::from_utf8(line).ok().and_then(parse_line);
            hops = hops.take().zip(parsed).map(|(mut hops, parsed)| {
                hops.extend(parsed);
                hops
            });
        });
        let mut nearest = peer;
        for hop in hops?.into_iter().rev() {
            nearest = hop?;
            if !proxies.allows(Some(nearest)) {
                break;
            }
        }
        Some(nearest)
    }
}

/// An entry of a forwarding header; `None` if it is not an IP address.
type Hop = Option<IpAddr>;
type ParseLine = fn(&str) -> Option<Vec<Hop>>;

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

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

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
