#![doc = include_str!("../README.md")]
#![warn(missing_docs, unreachable_pub)]

pub mod format;
pub mod hash;
pub mod key;

pub use format::{Alphabet, Checksum, Formats, KeyFormat};
pub use hash::{Digest, Hasher, HmacSha256, Pepper, Sha256};
pub use key::Secret;
