use sha2::Digest as _;

use super::{Digest, Hasher, Tag};

/// Plain SHA-256, the default: one block for secrets of up to 55 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256;

impl Hasher for Sha256 {
    #[inline]
    fn digest(&self, presented: &[u8]) -> Digest {
        Digest::from_parts(Tag::SHA256, sha2::Sha256::digest(presented).into())
    }

    fn tag(&self) -> Tag {
        Tag::SHA256
    }
}

/// SHA-512, for keys imported from a system that stored it; new keys gain nothing by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha512;

impl Hasher for Sha512 {
    fn digest(&self, presented: &[u8]) -> Digest {
        Digest::fold_sha512(&sha2::Sha512::digest(presented))
    }

    fn tag(&self) -> Tag {
        Tag::SHA512
    }
}
