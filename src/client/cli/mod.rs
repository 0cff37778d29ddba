//! Sign-in and sign-out commands to mount in a `clap` command line.
//!
//! ```
//! use clap::Parser;
//! use keyward::{KeyFormat, client::{App, cli::{AuthCommand, NoServer}}};
//!
//! /// The Lua command line.
//! #[derive(Parser)]
//! enum Lua {
//!     /// Sign in and out.
//!     #[command(subcommand)]
//!     Auth(AuthCommand),
//! }
//!
//! # fn main() -> Result<(), keyward::secret::FormatError> {
//! let app = App::new("lua", KeyFormat::builder("lk").build()?).credentials_dir(".lua-cli");
//! # if false {
//! let Lua::Auth(command) = Lua::parse();
//! command.run(&app, &NoServer).exit();
//! # }
//! # Ok(()) }
//! ```
//!
//! The commands make no network calls themselves: the program implements [`Server`], or passes [`NoServer`].
//!
//! # Behaviour of all commands
//! - Only the result goes to standard output: `key --force | pbcopy` copies the key and nothing else.
//! - With `--json`, standard output is one JSON object, also for an error:
//!   `{"error": {"kind": …, "message": …}}`. Usage errors that `clap` detects stay plain text.
//! - Prompts appear only if standard input is a terminal. Otherwise the error names the option or variable to
//!   use instead. Ctrl-C at a prompt cancels the command without changes.
//! - The terminal edits a prompted line, by the keys that it is configured for.
//! - A hidden prompt disables the terminal's echo until it is answered. If a signal kills the process meanwhile
//!   (`kill`, not Ctrl-C), restore the echo with `stty sane`: signal handlers belong to the program, not the commands.
//! - Colours are used only on a terminal, and not if `NO_COLOR` is set.
//! - The exit status names the outcome: see [`Exit`].

mod commands;
mod console;

use std::time::Duration;

pub use commands::{AuthCommand, Configure, Logout, ShowKey, ShowStatus};
pub use console::Exit;

use crate::secret::Secret;

/// The calls that the commands make to the product's server. The program implements them.
///
/// The calls are synchronous and may block: run the command outside of an async runtime, and use `block_on` in the
/// implementation. Errors are shown to the user. They MUST NOT contain the key or the code.
///
/// Every call may also fail with [`ServerError::Unavailable`], [`RateLimited`](ServerError::RateLimited),
/// [`Refused`](ServerError::Refused) or [`Unsupported`](ServerError::Unsupported).
pub trait Server {
    /// Whether the product has a function. The commands do not offer others; calls of them SHOULD return
    /// [`ServerError::Unsupported`]. By default, it has all.
    fn supports(&self, _: ServerCall) -> bool {
        true
    }

    /// Asks the server to send a one-time code to an e-mail address. If the product has one-time codes, it SHOULD
    /// succeed for every address, so that it does not reveal accounts.
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

/// A function of the product's server that not every product has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerCall {
    /// Sending a one-time code by e-mail, and exchanging it for a key.
    RequestCode,
    /// Checking whether a key is accepted.
    CheckKey,
    /// Revoking a key.
    RevokeKey,
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
    /// The server refused for a reason that the user can fix: a plan limit is reached, or the address is invalid.
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
    fn supports(&self, _: ServerCall) -> bool {
        false
    }

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
