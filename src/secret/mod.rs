//! What a secret looks like and what is stored of it.

mod alphabet;
mod builder;
mod checksum;
mod format;
mod formats;
mod generate;
mod parse;
mod prefix;
mod scanner;
#[allow(clippy::module_inception, reason = "the word is the word")]
mod secret;

#[cfg(feature = "server")]
mod digest;
#[cfg(feature = "server")]
mod hasher;
#[cfg(feature = "server")]
mod hashers;
#[cfg(feature = "server")]
mod hmac;
#[cfg(feature = "server")]
mod sha;

pub use alphabet::Alphabet;
pub use builder::{FormatError, KeyFormatBuilder};
pub use checksum::Checksum;
pub use format::KeyFormat;
pub use formats::Formats;
pub use parse::{Malformed, Parsed};
pub use scanner::{GithubPattern, ScannerRules};
pub use secret::Secret;

#[cfg(feature = "server")]
pub use {
    digest::{HasherTag, ImportHashError, SecretDigest},
    hasher::Hasher,
    hashers::{Candidates, Hashers},
    hmac::{HmacSha256Hasher, Pepper, PepperError},
    sha::{Sha256Hasher, Sha512Hasher},
};
