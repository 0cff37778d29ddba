//! The client side: a program that uses an API key finds it, stores it, sends it and deletes it.
//!
//! Start with [`App`], which describes the product: the format of its keys and where a key may be stored.
//! [`App::resolve`] finds the key, [`CredentialsFile`] stores it, and `cli` (feature `cli`) has ready-made
//! commands to mount in a command line. This module needs neither an async runtime nor the server half.
//!
//! # The credentials file
//! - The file is created with mode 0600 in a directory with mode 0700.
//! - Writes are atomic: the new contents go to a temporary file in the same directory, are synced, and then
//!   renamed over the old file. A crash leaves either the old file or the new one.
//! - Writers lock the directory, so concurrent writers do not lose each other's changes.
//! - The directory is opened once, and every operation is relative to that handle. Replacing the path with a
//!   symbolic link during an operation does not redirect a write.
//! - Rejected: symbolic links, files and directories of another user, and those that others can write to.
//! - A file that others can read is restricted to its owner, and a [`Warning`] is returned.
//!
//! On Windows the file is stored in the user's profile directory and inherits its access rules.

use std::{
    io,
    path::{Path, PathBuf},
};

mod app;
#[cfg(feature = "cli")]
pub mod cli;
mod credentials;
mod private_dir;

pub use app::{App, KeySource, ResolvedKey};
pub use credentials::{CredentialsFile, InvalidProfile, Profile, StoredCredential};
#[cfg(feature = "client-http")]
pub use send::{SendKey, bearer};

/// Why a key could not be found, stored or deleted.
///
/// `Display` names the cause and what to do. It shows nothing of a key but the prefix that all keys share. Use
/// [`kind`](ClientError::kind) to match on the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    kind: ClientErrorKind,
    message: String,
    source: Option<io::Error>,
}

/// The kind of a [`ClientError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// No key was found in any source.
    NotFound,
    /// A text was found, but it is not a key of this product.
    Malformed,
    /// Another user can modify the file or its directory, or the path is not a regular file or directory.
    Unsafe,
    /// The file system returned an error.
    Io,
}

impl ClientError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> ClientErrorKind {
        self.kind
    }

    fn new(kind: ClientErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    fn unsafe_path(path: &Path, problem: &str, advice: &str) -> Self {
        Self::new(ClientErrorKind::Unsafe, format!("{} {problem}: {advice}", path.display()))
    }

    /// For `map_err`: returns the error of an action on a path, such as `open`.
    fn io<E: Into<io::Error>>(action: &str, path: &Path) -> impl FnOnce(E) -> Self {
        let message = format!("cannot {action} {}", path.display());
        |source| Self { source: Some(source.into()), ..Self::new(ClientErrorKind::Io, message) }
    }
}

/// A problem that did not stop the operation, but that the user should know of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Other users could read the credentials file until now.
    #[error(
        "{path} was readable by other users (mode {mode:04o}). Its mode is now 0600. \
         If other people use this machine, replace the key"
    )]
    #[non_exhaustive]
    WasReadable {
        /// The path of the file.
        path: PathBuf,
        /// The permissions that the file had.
        mode: u32,
    },
    /// A source with lower precedence could not be read. Another source had the key, so it was not needed.
    #[error("skipped a source that was not needed: {message}")]
    #[non_exhaustive]
    SourceSkipped {
        /// The error.
        message: String,
    },
}

#[cfg(feature = "client-http")]
mod send {
    use http::{HeaderValue, header::AUTHORIZATION};

    use crate::secret::Secret;

    /// Returns the value of an `Authorization` header that presents a key. The value is marked as sensitive: `Debug`
    /// does not show it, and HTTP/2 does not index it.
    ///
    /// # Errors
    /// If the key contains a character that is not allowed in a header. A parsed key never does.
    pub fn bearer(key: &Secret) -> Result<HeaderValue, http::Error> {
        let text = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
        let mut value = HeaderValue::from_str(&text)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Adds an API key to a request builder, as `Authorization: Bearer`, replacing any credential in that header. HTTP
    /// clients drop `Authorization` when redirected to another host; they would forward `X-API-Key`.
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
}
