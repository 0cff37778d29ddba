use http::{HeaderValue, header::AUTHORIZATION};

use crate::secret::Secret;

/// The value of an `Authorization` header that presents a key. It is marked as sensitive: `Debug` does not
/// show it, and HTTP/2 does not index it.
///
/// # Errors
/// If the key has a character that no header can have; none that was parsed has.
///
/// # Examples
/// ```
/// use http::{Request, header::AUTHORIZATION};
///
/// let key = keyward::secret::KeyFormat::builder("lk").build()?.generate()?;
/// let mut request = Request::new(());
/// request.headers_mut().insert(AUTHORIZATION, keyward::client::bearer(&key)?);
/// assert!(!format!("{request:?}").contains(key.expose()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn bearer(key: &Secret) -> Result<HeaderValue, http::Error> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
    let mut value = HeaderValue::from_str(&text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends a key with a request that is being built, in place of any other credential.
///
/// It goes into `Authorization`, because clients drop that one when they are redirected to another host;
/// an `X-API-Key` they would carry along.
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
    /// Sends the key. One that no header can carry makes the request fail when it is built.
    #[must_use]
    fn api_key(self, key: &Secret) -> Self;
}

impl SendKey for http::request::Builder {
    fn api_key(mut self, key: &Secret) -> Self {
        match (bearer(key), self.headers_mut()) {
            (Ok(value), Some(headers)) => {
                headers.insert(AUTHORIZATION, value);
                self
            }
            // The builder keeps its first error; an impossible header makes one.
            (Err(_), _) => self.header(AUTHORIZATION, "\n"),
            (_, None) => self,
        }
    }
}

#[cfg(feature = "client-reqwest")]
impl SendKey for reqwest::RequestBuilder {
    fn api_key(self, key: &Secret) -> Self {
        match bearer(key) {
            // `headers` replaces where `header` would add a second one.
            Ok(value) => self.headers(http::HeaderMap::from_iter([(AUTHORIZATION, value)])),
            Err(_) => self.header(AUTHORIZATION, "\n"),
        }
    }
}
