use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::failure::ManageError;

/// One call of the management API, whatever framework it came through.
#[derive(Clone, Copy)]
#[must_use]
pub struct ManageRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    content_type: &'a [u8],
    idempotency_key: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> ManageRequest<'a> {
    /// A call without a body; the path is relative to where the API is mounted.
    pub fn new(method: &'a Method, path: &'a str) -> Self {
        Self { method, path, query: "", content_type: b"", idempotency_key: None, body: b"" }
    }

    /// The query string of its URL.
    pub fn query(mut self, query: &'a str) -> Self {
        self.query = query;
        self
    }

    /// A body, and the `Content-Type` that it came with.
    pub fn body(mut self, content_type: &'a [u8], body: &'a [u8]) -> Self {
        (self.content_type, self.body) = (content_type, body);
        self
    }

    /// A body of JSON.
    pub fn json(self, body: &'a [u8]) -> Self {
        self.body(b"application/json", body)
    }

    /// The value of `Idempotency-Key`.
    pub fn idempotency_key(mut self, value: &'a [u8]) -> Self {
        self.idempotency_key = Some(value);
        self
    }

    /// Its body, which must be JSON that says nothing unknown.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ManageError> {
        if !self.is("application/json") {
            return Err(ManageError::media_type("send Content-Type: application/json"));
        }
        let read = serde_json::from_slice(self.body).map_err(|error| ManageError::body(&error))?;
        // Serde takes an array for an object, too, its fields one after the other.
        if !self.body.trim_ascii_start().starts_with(b"{") {
            return Err(ManageError::invalid("send an object of JSON"));
        }
        Ok(read)
    }

    /// Its body, which may be missing.
    pub(super) fn read_any<T: DeserializeOwned + Default>(&self) -> Result<T, ManageError> {
        if self.body.is_empty() { Ok(T::default()) } else { self.read() }
    }

    /// A parameter of its form body.
    pub(super) fn form(&self, name: &str) -> Result<Option<Cow<'a, str>>, ManageError> {
        if !self.is("application/x-www-form-urlencoded") {
            let expected = "send Content-Type: application/x-www-form-urlencoded";
            return Err(ManageError::media_type(expected));
        }
        let body = std::str::from_utf8(self.body).unwrap_or_default();
        let mut values = pairs(body).filter(|(key, _)| *key == name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(ManageError::invalid(format!("`{name}` stands there twice"))),
            (pair, None) => Ok(pair.map(|(_, value)| value)),
        }
    }

    /// The parameters of its query; others than `known` are refused, as are repeated ones.
    pub(super) fn parameters<const N: usize>(
        &self,
        known: [&str; N],
    ) -> Result<[Option<Cow<'a, str>>; N], ManageError> {
        let mut values = [const { None }; N];
        for (name, value) in pairs(self.query) {
            let place = known.iter().position(|known| *known == name);
            let Some(place) = place.map(|place| &mut values[place]) else {
                return Err(ManageError::invalid(format!("use {}", known.join(", "))));
            };
            if place.replace(value).is_some() {
                return Err(ManageError::invalid(format!("`{name}` stands there twice")));
            }
        }
        Ok(values)
    }

    /// The value of `Idempotency-Key`, if there is one.
    pub(super) fn token(&self) -> Result<Option<&'a str>, ManageError> {
        let Some(value) = self.idempotency_key else { return Ok(None) };
        let fits = (1..=200).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(value) {
            Ok(text) if fits => Ok(Some(text)),
            _ => Err(ManageError::invalid("Idempotency-Key takes 1 to 200 visible ASCII characters")),
        }
    }

    fn is(&self, expected: &str) -> bool {
        let bare = self.content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        bare.trim_ascii().eq_ignore_ascii_case(expected.as_bytes())
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name, percent_decode_str(value).decode_utf8_lossy())
    })
}

/// A body may carry a secret.
impl std::fmt::Debug for ManageRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManageRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
