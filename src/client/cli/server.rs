use std::time::Duration;

use crate::secret::Secret;

/// The calls that the commands make to the product's server. The program implements them.
///
/// The calls may block: a program with an async runtime uses its `block_on`. Errors are shown to the user. They
/// MUST NOT contain the key or the code.
pub trait Server {
    /// Requests that a one-time code is sent to an email address.
    ///
    /// It should succeed for every address, so that callers cannot find out which addresses have accounts.
    ///
    /// # Errors
    /// [`ServerError::Unsupported`] if the product has no one-time codes.
    fn request_code(&self, email: &str) -> Result<(), ServerError>;

    /// Exchanges a one-time code for a new API key.
    ///
    /// # Errors
    /// [`ServerError::InvalidCode`] or [`ServerError::ExpiredCode`].
    fn verify_code(&self, email: &str, code: &Secret) -> Result<Secret, ServerError>;

    /// Checks that the server accepts a key.
    ///
    /// # Errors
    /// [`ServerError::KeyRejected`] only if the server rejected the key. If the server could not check it,
    /// return [`ServerError::Unavailable`]: users delete keys that are reported as invalid.
    fn check_key(&self, key: &Secret) -> Result<(), ServerError>;

    /// Permanently revokes a key. The key itself authorizes the call.
    ///
    /// # Errors
    /// [`ServerError::KeyRejected`] if the key is already invalid.
    fn revoke_key(&self, key: &Secret) -> Result<(), ServerError>;
}

/// Why a call of a [`Server`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The one-time code is wrong.
    #[error("invalid code")]
    InvalidCode,
    /// The one-time code has expired.
    #[error("expired code")]
    ExpiredCode,
    /// The server does not accept the key.
    #[error("the key is not accepted")]
    KeyRejected,
    /// Too many calls.
    #[error("too many attempts")]
    RateLimited {
        /// The time to wait, if the server sent it.
        retry_after: Option<Duration>,
    },
    /// The server refused the request for a reason that the user can fix: the plan's maximum number of keys
    /// is reached, or the address is invalid.
    #[error("the server refused the request")]
    Refused {
        /// The reason, as a sentence. Control characters are removed before it is printed.
        message: String,
    },
    /// The server could not be reached, or could not answer.
    #[error("the server is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The product does not have this function.
    #[error("not supported")]
    Unsupported,
}

/// A [`Server`] that supports none of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServer;

impl Server for NoServer {
    fn request_code(&self, _: &str) -> Result<(), ServerError> {
        Err(ServerError::Unsupported)
    }

    fn verify_code(&self, _: &str, _: &Secret) -> Result<Secret, ServerError> {
        Err(ServerError::Unsupported)
    }

    fn check_key(&self, _: &Secret) -> Result<(), ServerError> {
        Err(ServerError::Unsupported)
    }

    fn revoke_key(&self, _: &Secret) -> Result<(), ServerError> {
        Err(ServerError::Unsupported)
    }
}
