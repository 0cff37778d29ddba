use sha2::{Digest as _, block_api::compress256};

use super::{Digest, Hasher, Tag};

/// Plain SHA-256, the default: one block for secrets of up to 55 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256;

impl Hasher for Sha256 {
    #[inline]
    fn digest(&self, presented: &[u8]) -> Digest {
        match one_block(presented) {
            Some(words) => Digest::from_words(Tag::SHA256, words),
            None => Digest::from_parts(Tag::SHA256, sha2::Sha256::digest(presented).into()),
        }
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

/// The digest of what fits one block together with its padding. Nearly all secrets do, and then the
/// buffer of a streaming hasher would cost a third of the block itself.
#[inline]
fn one_block(text: &[u8]) -> Option<[u32; 8]> {
    let mut block = [0; 64];
    let room = &mut block[..56];
    room.get_mut(..text.len())?.copy_from_slice(text);
    *room.get_mut(text.len())? = 0x80;
    block[56..].copy_from_slice(&(8 * text.len() as u64).to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    // It held the secret.
    *std::hint::black_box(&mut block) = [0; 64];
    Some(state)
}

/// The state in which SHA-256 begins: FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_block_is_hashed_as_every_other_text_is() {
        let text: Vec<u8> = (0..=200).collect();
        for len in 0..text.len() {
            let expected: [u8; 32] = sha2::Sha256::digest(&text[..len]).into();
            assert_eq!(one_block(&text[..len]).is_some(), len <= 55);
            assert_eq!(Sha256.digest(&text[..len]), Digest::from_parts(Tag::SHA256, expected));
        }
    }
}
