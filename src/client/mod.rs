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

mod app;
#[cfg(feature = "cli")]
pub mod cli;
mod credentials;
mod error;
#[cfg(feature = "client-http")]
mod header;
mod resolve;

pub use app::App;
pub use credentials::{CredentialsFile, InvalidProfile, Profile, StoredCredential};
pub use error::{ClientError, ClientErrorKind, Warning};
#[cfg(feature = "client-http")]
pub use header::{SendKey, bearer};
pub use resolve::{KeySource, ResolvedKey};
