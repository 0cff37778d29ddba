use http::{HeaderValue, header::AUTHORIZATION};

use crate::secret::Secret;

/// Returns the value of an `Authorization` header that presents a key.
///
/// The value is marked as sensitive: `Debug` does not show it, and HTTP/2 does not index it.
///
/// # Errors
/// If the key contains a character that is not allowed in a header. A parsed key never does.
///
/// # Examples
/// ```
/// let key = keyward::secret::KeyFormat::builder("lk").build()?.generate()?;
/// let mut request = http::Request::new(());
/// request.headers_mut().insert("authorization", keyward::client::bearer(&key)?);
/// assert!(!format!("{request:?}").contains(key.expose()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn bearer(key: &Secret) -> Result<HeaderValue, http::Error> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
    let mut value = HeaderValue::from_str(&text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds an API key to a request builder.
///
/// The key is sent as `Authorization: Bearer`, and replaces any credential already in that header. HTTP
/// clients drop `Authorization` when they are redirected to another host; they would forward `X-API-Key`.
///
/// # Examples
/// ```
/// use keyward::client::SendKey;
///
/// let key = keyward::secret::KeyFormat::builder("lk").build()?.generate()?;
/// let request = http::Request::get("https://api.example/skills").api_key(&key).body(())?;
/// assert!(request.headers()["authorization"].is_sensitive());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait SendKey: Sized {
    /// Sends the key with the request. A key that is not a valid header value makes building the request fail.
    #[must_use]
    fn api_key(self, key: &Secret) -> Self;
}

impl SendKey for http::request::Builder {
    fn api_key(mut self, key: &Secret) -> Self {
        // The builder keeps its first error. An invalid header value causes one.
        let Ok(value) = bearer(key) else { return self.header(AUTHORIZATION, "\n") };
        if let Some(headers) = self.headers_mut() {
            headers.insert(AUTHORIZATION, value);
        }
        self
    }
}

#[cfg(feature = "client-reqwest")]
impl SendKey for reqwest::RequestBuilder {
    fn api_key(self, key: &Secret) -> Self {
        match bearer(key) {
            // `headers` replaces an existing value; `header` would add a second one.
            Ok(value) => self.headers(http::HeaderMap::from_iter([(AUTHORIZATION, value)])),
            Err(_) => self.header(AUTHORIZATION, "\n"),
        }
    }
}
