use std::time::Duration;

use crate::secret::Secret;

/// What the commands ask of the product's server; the program that mounts them makes the calls.
///
/// The calls may block; a program with a runtime uses its `block_on`. What an implementation returns is
/// shown to the person: it MUST NOT contain the key or the code.
pub trait Server {
    /// Has a one-time code sent to an address.
    ///
    /// It should succeed for every address, so that nobody learns who has an account.
    ///
    /// # Errors
    /// [`ServerError::Unsupported`] if the product has no such codes.
    fn request_code(&self, email: &str) -> Result<(), ServerError>;

    /// Turns a one-time code into a new API key.
    ///
    /// # Errors
    /// [`ServerError::InvalidCode`] or [`ServerError::ExpiredCode`].
    fn verify_code(&self, email: &str, code: &Secret) -> Result<Secret, ServerError>;

    /// Whether the server accepts a key now.
    ///
    /// # Errors
    /// [`ServerError::Rejected`] only if the server has said so. A server that cannot tell now is
    /// [`ServerError::Unavailable`]: people throw keys away that are called invalid.
    fn check_key(&self, key: &Secret) -> Result<(), ServerError>;

    /// Revokes a key for good, by its own authority.
    ///
    /// # Errors
    /// [`ServerError::Rejected`] if the key is not accepted any more.
    fn revoke_key(&self, key: &Secret) -> Result<(), ServerError>;
}

/// Why a call of a [`Server`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The one-time code is not the one that was sent.
    #[error("invalid code")]
    InvalidCode,
    /// The one-time code was right once, and is no longer.
    #[error("expired code")]
    ExpiredCode,
    /// The server does not accept the key.
    #[error("the key is not accepted")]
    Rejected,
    /// The server wants fewer calls.
    #[error("too many attempts")]
    TooOften {
        /// How long to wait, if the server said so.
        retry_after: Option<Duration>,
    },
    /// The server does not do it, for a reason that the person can do something about: so many keys are
    /// all that the plan has, or the address cannot be one.
    #[error("the server refuses")]
    Refused {
        /// Its reason, a sentence. Of control characters, nothing reaches the terminal.
        message: String,
    },
    /// The server cannot be asked, or cannot tell now.
    #[error("the server cannot be asked now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The product has no such thing.
    #[error("not offered")]
    Unsupported,
}

/// For programs whose server offers none of the calls.
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
