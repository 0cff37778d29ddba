use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header::Entry};

/// What a [`Guard`](super::Guard) looks at in a request, whatever framework it came through.
pub struct RequestHead<'a> {
    fields: &'a dyn Fields,
    path: &'a str,
    query: Option<&'a str>,
    peer: Option<IpAddr>,
}

/// The header fields of some framework's request.
pub(crate) trait Fields {
    /// Shows every value of a field, in the order in which they came.
    fn each<'a>(&'a self, name: &HeaderName, show: &mut dyn FnMut(&'a [u8]));
}

impl<'a> RequestHead<'a> {
    pub(crate) fn new(
        fields: &'a dyn Fields,
        path: &'a str,
        query: Option<&'a str>,
        peer: Option<IpAddr>,
    ) -> Self {
        Self { fields, path, query, peer }
    }

    /// What the head of a request tells, and the address of its peer.
    pub fn from_parts(head: &'a http::request::Parts, peer: Option<IpAddr>) -> Self {
        Self::new(&head.headers, head.uri.path(), head.uri.query(), peer)
    }

    /// The path of its URL.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The value of a header field, if it came once and is visible ASCII.
    pub fn header(&self, name: &HeaderName) -> Option<&'a str> {
        let (value, count) = self.value(name);
        let text = std::str::from_utf8(value?).ok()?;
        (count == 1 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))).then_some(text)
    }

    pub(crate) fn query(&self) -> Option<&'a str> {
        self.query
    }

    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    pub(crate) fn each(&self, name: &HeaderName, mut show: impl FnMut(&'a [u8])) {
        self.fields.each(name, &mut show);
    }

    /// The last value of a field, and how many it has.
    pub(crate) fn value(&self, name: &HeaderName) -> (Option<&'a [u8]>, usize) {
        let (mut last, mut count) = (None, 0);
        self.each(name, |value| {
            last = Some(value);
            count += 1;
        });
        (last, count)
    }
}

impl Fields for HeaderMap {
    fn each<'a>(&'a self, name: &HeaderName, show: &mut dyn FnMut(&'a [u8])) {
        self.get_all(name).iter().for_each(|value| show(value.as_bytes()));
    }
}

/// Keeps logs from printing the values of a field.
pub(crate) fn hide(fields: &mut HeaderMap, name: &HeaderName) {
    if fields.contains_key(name)
        && let Entry::Occupied(mut entry) = fields.entry(name)
    {
        entry.iter_mut().for_each(|value| value.set_sensitive(true));
    }
}

/// A field may carry a secret, so only names and paths are shown.
impl std::fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHead")
            .field("path", &self.path)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
