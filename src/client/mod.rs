//! The other side: a program that holds an API key finds it, keeps it, sends it and drops it.
//!
//! Begin with [`App`], which says what the product's keys look like and where they may stand.
//! [`App::find`] looks there, [`CredentialsFile`] keeps one, and `cli` (feature `cli`) has the
//! commands to mount in a program of your own. Nothing here needs a runtime or the server half.
//!
//! # What is promised of the credentials file
//! It is 0600 in a 0700 folder from its first byte. A write goes to a temporary file beside it, which
//! is synced and then renamed: a crash leaves the old file or the new one, never half. Writers lock
//! the folder, so that two at once both leave what they wrote. The folder is opened once and all else
//! happens inside of it, so that nobody who swaps the path meanwhile leads a write through a symbolic
//! link. Refused are links, files and folders of somebody else, and what others can write to.
//! A file that others can read is closed to them, with a [`Warning`].
//!
//! On Windows the file stands in the profile folder, whose access rules it inherits.

mod app;
#[cfg(feature = "cli")]
pub mod cli;
mod credentials;
mod dotenv;
mod error;
#[cfg(feature = "client-http")]
mod header;
mod resolve;
mod source;

pub use app::App;
pub use credentials::{CredentialsFile, InvalidProfile, Profile, Stored};
pub use error::{Error, ErrorKind};
#[cfg(feature = "client-http")]
pub use header::{SendKey, bearer};
pub use resolve::Found;
pub use source::{Source, Warning};
