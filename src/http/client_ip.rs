use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderName, header::FORWARDED};

use super::RequestHead;
use crate::model::{Invalid, Networks};

/// Whose address a request came from.
///
/// By default that of the peer, whatever the request says of itself. Behind proxies it is the
/// rightmost address in the chain that is not one of them: each proxy appends whom it was called
/// by, so what stands further left is what the client made up.
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
pub struct ClientIp(Chain);

#[derive(Clone, Debug, Default)]
enum Chain {
    #[default]
    Peer,
    XForwardedFor(Arc<Networks>),
    Forwarded(Arc<Networks>),
}

impl ClientIp {
    /// The address that the connection came from.
    pub fn peer() -> Self {
        Self::default()
    }

    /// What proxies in these networks say in `X-Forwarded-For`. All proxies on the way MUST be in
    /// the list, and MUST append to the field or replace it.
    ///
    /// # Errors
    /// As [`Networks::only`].
    pub fn x_forwarded_for<T: AsRef<str>>(
        proxies: impl IntoIterator<Item = T>,
    ) -> Result<Self, Invalid> {
        Ok(Self(Chain::XForwardedFor(Arc::new(Networks::only(proxies)?))))
    }

    /// What proxies in these networks say in `Forwarded` (RFC 7239); as
    /// [`x_forwarded_for`](ClientIp::x_forwarded_for).
    ///
    /// # Errors
    /// As [`Networks::only`].
    pub fn forwarded<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Ok(Self(Chain::Forwarded(Arc::new(Networks::only(proxies)?))))
    }

    /// The address, as far as it can be known: a chain that cannot be read tells none, and a key
    /// that is bound to networks is refused then.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Option<IpAddr> {
        let peer = request.peer()?.to_canonical();
        let (proxies, field, hops): (_, _, Read) = match &self.0 {
            Chain::Peer => return Some(peer),
            Chain::XForwardedFor(proxies) => (proxies, &X_FORWARDED_FOR, addresses),
            Chain::Forwarded(proxies) => (proxies, &FORWARDED, elements),
        };
        if !proxies.allows(Some(peer)) {
            return Some(peer);
        }
        let mut chain = Some(Vec::new());
        request.each(field, |line| {
            let read = std::str::from_utf8(line).ok().and_then(hops);
            chain = chain.take().zip(read).map(|(mut chain, read)| {
                chain.extend(read);
                chain
            });
        });
        let mut nearest = peer;
        for hop in chain?.into_iter().rev() {
            nearest = hop?;
            if !proxies.allows(Some(nearest)) {
                break;
            }
        }
        Some(nearest)
    }
}

/// An address in the chain, if it is one.
type Hop = Option<IpAddr>;
type Read = fn(&str) -> Option<Vec<Hop>>;

fn addresses(line: &str) -> Option<Vec<Hop>> {
    Some(line.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(address).collect())
}

/// The `for` of each element. A line whose quotes do not match could hide what a proxy appended
/// to it: it tells nothing.
fn elements(line: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    for element in split(line, ',')? {
        if element.trim().is_empty() {
            continue;
        }
        let mut origin = None;
        for pair in split(element, ';')? {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.trim().eq_ignore_ascii_case("for") {
                origin = address(value.trim().trim_matches('"'));
            }
        }
        hops.push(origin);
    }
    Some(hops)
}

/// Splits where the separator is not within quotes; nothing, if a quote is left open.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    (!quoted).then_some(parts)
}

/// An address, perhaps in brackets, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
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
        let incoming = RequestHead::new(&map, "/", None, peer.parse().ok());
        client.find(&incoming).map(|ip| ip.to_string())
    }

    #[test]
    fn only_what_trusted_proxies_appended_is_believed() {
        let xff = ClientIp::x_forwarded_for(["10.0.0.0/8", "fd00::/8"]).unwrap();
        let at = |peer, line: &'static [u8]| find(&xff, peer, &[("x-forwarded-for", line)]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(at("192.0.2.9", b"198.51.100.1"), some("192.0.2.9"), "the peer is no proxy");
        assert_eq!(at("10.0.0.1", b"198.51.100.1"), some("198.51.100.1"));
        assert_eq!(at("10.0.0.1", b"1.1.1.1, 198.51.100.1"), some("198.51.100.1"));
        assert_eq!(at("10.0.0.1", b"1.1.1.1, 198.51.100.1 ,10.0.0.2"), some("198.51.100.1"));
        assert_eq!(at("::ffff:10.0.0.1", b"[2001:db8::1]:443"), some("2001:db8::1"));
        assert_eq!(at("10.0.0.1", b"198.51.100.1:8080"), some("198.51.100.1"));
        assert_eq!(at("10.0.0.1", b"10.0.0.9"), some("10.0.0.9"), "a client inside");
        assert_eq!(at("10.0.0.1", b"198.51.100.1, unknown"), None);
        assert_eq!(at("10.0.0.1", b"198.51.100.1, \xff"), None);
        assert_eq!(at("", b"198.51.100.1"), None, "nobody knows the peer");
        assert_eq!(find(&xff, "10.0.0.1", &[]), some("10.0.0.1"));
        let two: [(_, &[u8]); 2] =
            [("x-forwarded-for", b"1.1.1.1"), ("x-forwarded-for", b"198.51.100.1")];
        assert_eq!(find(&xff, "10.0.0.1", &two), some("198.51.100.1"));
        assert_eq!(find(&ClientIp::peer(), "10.0.0.1", &two), some("10.0.0.1"));
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        let forwarded = ClientIp::forwarded(["10.0.0.0/8"]).unwrap();
        let at = |line: &'static [u8]| find(&forwarded, "10.0.0.1", &[("forwarded", line)]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(at(b"for=192.0.2.60;proto=http;by=203.0.113.43"), some("192.0.2.60"));
        assert_eq!(at(b"for=1.1.1.1, FOR=\"[2001:db8:cafe::17]:4711\""), some("2001:db8:cafe::17"));
        assert_eq!(at(b"for=198.51.100.1;x=\"a,for=1.1.1.1\", for=10.1.1.1"), some("198.51.100.1"));
        assert_eq!(at(b"for=_hidden, for=10.1.1.1"), None);
        assert_eq!(at(b"proto=https"), None);
        assert_eq!(at(b"for=1.1.1.1;x=\", for=198.51.100.1"), None, "an open quote");
        assert_eq!(at(b"for=1.1.1.1;x=\"\\\", for=198.51.100.1"), None, "an escaped one");
    }
}
