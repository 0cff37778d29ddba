use std::slice;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, block_api::compress256};
use zeroize::Zeroizing;

use crate::secret::{
    digest::{HasherTag, SecretDigest},
    hashers::{Hasher, INITIAL, SECOND_BLOCK, last_block},
};

/// HMAC-SHA-256 under a [`Pepper`] that is kept outside the database.
///
/// With a copy of the database but without the pepper, an attacker cannot find out whether a text is a
/// key. To replace a pepper, make a hasher with the new pepper current and
/// [`also_accept`](crate::secret::Hashers::also_accept) the old one: the digest of a key is updated when
/// the key is used.
///
/// # Examples
/// ```
/// use keyward::{Hasher, HmacSha256Hasher, Pepper};
///
/// let now = HmacSha256Hasher::new(Pepper::new(2, b"thirty-two bytes or more, from a vault".as_slice())?);
/// let before = HmacSha256Hasher::new(Pepper::new(1, b"the thirty-two bytes of the year before".as_slice())?);
/// assert_ne!(now.digest(b"a key"), before.digest(b"a key"));
/// # Ok::<(), keyward::secret::PepperError>(())
/// ```
pub struct HmacSha256Hasher {
    tag: HasherTag,
    /// The states after the blocks of the pepper, so that a digest takes only two compressions.
    inner: Zeroizing<[u32; 8]>,
    outer: Zeroizing<[u32; 8]>,
    /// For texts whose length the short path does not support.
    keyed: Hmac<sha2::Sha256>,
}

impl HmacSha256Hasher {
    /// Returns a hasher that uses a pepper.
    pub fn new(pepper: Pepper) -> Self {
        let keyed = Hmac::new_from_slice(&pepper.bytes).expect("HMAC takes keys of any length");
        let mut key = Zeroizing::new([0; 64]);
        match key.get_mut(..pepper.bytes.len()) {
            Some(start) => start.copy_from_slice(&pepper.bytes),
            None => key[..32].copy_from_slice(&sha2::Sha256::digest(&pepper.bytes)),
        }
        let state_after = |pad: u8| {
            let mut state = Zeroizing::new(INITIAL);
            let block = Zeroizing::new(key.map(|byte| byte ^ pad));
            compress256(&mut state, slice::from_ref(&*block));
            state
        };
        // The two pads of RFC 2104.
        Self {
            tag: HasherTag::hmac_sha256(pepper.id),
            inner: state_after(0x36),
            outer: state_after(0x5c),
            keyed,
        }
    }

    /// The digest of a text of 16 to 55 bytes, in 0.6 of the time that `keyed` takes.
    fn short(&self, presented: &[u8]) -> Option<SecretDigest> {
        let inner = last_block(*self.inner, &SECOND_BLOCK, presented)?.map(u32::to_be_bytes);
        let words = last_block(*self.outer, &SECOND_BLOCK, inner.as_flattened())?;
        Some(SecretDigest::from_words(self.tag, words))
    }
}

impl Hasher for HmacSha256Hasher {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.short(presented).unwrap_or_else(|| {
            let mut mac = self.keyed.clone();
            mac.update(presented);
            SecretDigest::from_parts(self.tag, mac.finalize().into_bytes().into())
        })
    }

    fn tag(&self) -> HasherTag {
        self.tag
    }
}

impl std::fmt::Debug for HmacSha256Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HmacSha256Hasher").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// A secret of the service, mixed into every digest. Its memory is wiped when it is dropped.
pub struct Pepper {
    id: u16,
    bytes: Zeroizing<Vec<u8>>,
}

/// A pepper is too short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pepper of {len} bytes is too short: use at least {MIN_PEPPER_LEN} from a random generator"
)]
pub struct PepperError {
    len: usize,
}

impl Pepper {
    /// Returns a pepper with the id that is stored in its digests. Never use an id for two peppers.
    ///
    /// # Errors
    /// If `bytes` is shorter than 32 bytes.
    pub fn new(id: u16, bytes: impl Into<Vec<u8>>) -> Result<Self, PepperError> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() < MIN_PEPPER_LEN {
            return Err(PepperError { len: bytes.len() });
        }
        Ok(Self { id, bytes })
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pepper").field("id", &self.id).finish_non_exhaustive()
    }
}

const MIN_PEPPER_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_every_length_equal_those_of_the_hmac_crate() {
        let text: Vec<u8> = (0..=200).collect();
        for pepper in 32..=130 {
            let hasher = HmacSha256Hasher::new(Pepper::new(7, &text[..pepper]).unwrap());
            for len in 0..text.len() {
                let mac = hasher.keyed.clone().chain_update(&text[..len]).finalize();
                let expected = SecretDigest::from_parts(hasher.tag, mac.into_bytes().into());
                assert_eq!(hasher.digest(&text[..len]), expected, "{len} under {pepper}");
                let short = hasher.short(&text[..len]);
                assert_eq!(short.is_some(), (16..=55).contains(&len));
            }
        }
    }
}
