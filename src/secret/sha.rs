use sha2::{Digest as _, block_api::compress256};

use crate::secret::{
    digest::{HasherTag, SecretDigest},
    hasher::Hasher,
};

/// Plain SHA-256, the default: one block for secrets of up to 55 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256Hasher;

impl Hasher for Sha256Hasher {
    #[inline]
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        match finish(INITIAL, &ALONE, presented) {
            Some(words) => SecretDigest::from_words(HasherTag::SHA256, words),
            None => {
                SecretDigest::from_parts(HasherTag::SHA256, sha2::Sha256::digest(presented).into())
            }
        }
    }

    fn tag(&self) -> HasherTag {
        HasherTag::SHA256
    }
}

/// SHA-512, for keys imported from a system that stored it; new keys gain nothing by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha512Hasher;

impl Hasher for Sha512Hasher {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        SecretDigest::fold_sha512(&sha2::Sha512::digest(presented))
    }

    fn tag(&self) -> HasherTag {
        HasherTag::SHA512
    }
}

/// The digest of a text that fits the last block together with its padding, as nearly all secrets
/// do, and has sixteen bytes at least, as all of them have.
///
/// The compression loads sixteen bytes at a time, and a processor hands on what was stored just
/// before only if one store wrote all of it. So the block is put together in sixteens, too: in
/// smaller pieces, as a streaming hasher does it, it is waited for as long as for all the rest.
#[inline]
pub(crate) fn finish(mut state: [u32; 8], padding: &Padding, text: &[u8]) -> Option<[u32; 8]> {
    let padding = padding.get(text.len())?;
    let last = u128::from_le_bytes(*text.last_chunk()?);
    let (whole, rest) = text.as_chunks();
    let rest = if rest.is_empty() { 0 } else { last >> (8 * (16 - rest.len())) };
    let mut block = *padding;
    for (room, chunk) in block.iter_mut().zip(whole) {
        *room = *chunk;
    }
    block[whole.len()] = joined(rest, &padding[whole.len()]);
    compress256(&mut state, block.as_flattened().as_chunks().0);
    // It held the secret.
    *std::hint::black_box(&mut block) = [[0; 16]; 4];
    Some(state)
}

/// Word by word, of which the compiler makes one vector.
#[inline]
fn joined(text: u128, padding: &[u8; 16]) -> [u8; 16] {
    let mut both = [0; 16];
    let words = both.as_chunks_mut::<4>().0.iter_mut().zip(padding.as_chunks().0);
    for (n, (both, padding)) in words.enumerate() {
        *both = ((text >> (32 * n)) as u32 | u32::from_le_bytes(*padding)).to_le_bytes();
    }
    both
}

/// What the last block holds beside a text of each length: a bit behind it, and at the end how many
/// bits there are in all (FIPS 180-4, section 5.1.1).
pub(crate) type Padding = [[[u8; 16]; 4]; 56];

/// Where the last block is the only one.
static ALONE: Padding = padding(0);
/// Where there is another one before it.
pub(crate) static SECOND: Padding = padding(64);

const fn padding(before: usize) -> Padding {
    let mut padding = [[[0; 16]; 4]; 56];
    let mut len = 0;
    while len < padding.len() {
        padding[len][len / 16][len % 16] = 0x80;
        let [high, low] = (8 * (before + len) as u16).to_be_bytes();
        padding[len][3][14] = high;
        padding[len][3][15] = low;
        len += 1;
    }
    padding
}

/// The state in which SHA-256 begins: FIPS 180-4, section 5.3.3.
pub(crate) const INITIAL: [u32; 8] = [
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
            let digest = finish(INITIAL, &ALONE, &text[..len]);
            assert_eq!(digest.is_some(), (16..=55).contains(&len));
            assert_eq!(
                Sha256Hasher.digest(&text[..len]),
                SecretDigest::from_parts(HasherTag::SHA256, expected)
            );
        }
    }
}
