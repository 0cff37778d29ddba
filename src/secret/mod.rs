//! The format of secrets, and what a store keeps of them.
//!
//! - [`KeyFormat`] describes a product's secrets: prefix, random body, checksum. It is validated once, when it is
//!   built. [`Formats`] is the current format together with older ones that are still accepted.
//! - [`Secret`] is the text that a client presents. [`Parsed`] is a presented text with a valid form.
//! - A store keeps only a `SecretDigest`, tagged with the `Hasher` that made it (feature `server`).

mod checksum;
mod format;
mod parse;
#[allow(clippy::module_inception, reason = "the file of the type `Secret`")]
mod secret;

#[cfg(feature = "server")]
mod digest;
#[cfg(feature = "server")]
mod hashers;

pub use checksum::{Alphabet, Checksum};
pub use format::{FormatError, GithubPattern, KeyFormat, KeyFormatBuilder, ScannerRules};
pub use parse::{Formats, Malformed, Parsed};
pub use secret::Secret;

#[cfg(feature = "server")]
pub use {
    digest::{HasherTag, ImportHashError, SecretDigest},
    hashers::{
        Candidates, Hasher, Hashers, HmacSha256Hasher, Pepper, PepperError, Sha256Hasher,
        Sha512Hasher,
    },
};
