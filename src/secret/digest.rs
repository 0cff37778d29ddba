use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha2::Digest as _;
use subtle::{Choice, ConstantTimeEq};

/// What is stored of a secret: 32 bytes of a hash and the tag of the hasher that made them.
///
/// # Examples
/// ```
/// use keyward::{SecretDigest, Hasher, Sha256Hasher};
///
/// let digest = Sha256Hasher.digest(b"lc_old_key_of_another_system");
/// let imported = SecretDigest::from_sha256(&digest.to_bytes()[3..])?;
/// assert!(bool::from(digest.ct_eq(&imported)));
/// # Ok::<(), keyward::secret::ImportHashError>(())
/// ```
#[derive(Clone, Copy)]
pub struct SecretDigest {
    /// The words that SHA-256 ends with, as it leaves them: nothing is turned around or put
    /// together again between hashing and comparing.
    words: [u32; 8],
    tag: HasherTag,
}

/// Which hasher made a digest. Part of what is stored, so that hashers never share a name space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HasherTag {
    algorithm: u8,
    id: u16,
}

/// A foreign hash that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {expected} hash in hex or base64: it has to decode to {len} bytes")]
pub struct ImportHashError {
    expected: &'static str,
    len: usize,
}

impl SecretDigest {
    /// Puts a digest together; for implementations of [`Hasher`](crate::secret::hasher::Hasher).
    #[inline]
    pub fn from_parts(tag: HasherTag, bytes: [u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self { words: std::array::from_fn(|n| u32::from_be_bytes(words[n])), tag }
    }

    #[inline]
    pub(crate) fn from_words(tag: HasherTag, words: [u32; 8]) -> Self {
        Self { words, tag }
    }

    /// Takes over a raw SHA-256 that another system stored: 32 bytes.
    ///
    /// # Errors
    /// If it is not 32 bytes long.
    pub fn from_sha256(raw: &[u8]) -> Result<Self, ImportHashError> {
        let bytes = raw.try_into().map_err(|_| NOT_SHA256)?;
        Ok(Self::from_parts(HasherTag::SHA256, bytes))
    }

    /// Takes over a SHA-256 that another system stored as text, in hex or in either base64.
    ///
    /// # Errors
    /// If the text is neither, or does not decode to 32 bytes.
    pub fn from_sha256_text(text: &str) -> Result<Self, ImportHashError> {
        Self::from_sha256(&decode(text, 32).ok_or(NOT_SHA256)?)
    }

    /// Takes over a SHA-512 that another system stored as text, in hex or in either base64. The
    /// host accepts such keys by also accepting [`Sha512Hasher`](crate::secret::sha::Sha512).
    ///
    /// # Errors
    /// If the text is neither, or does not decode to 64 bytes.
    pub fn from_sha512_text(text: &str) -> Result<Self, ImportHashError> {
        let raw = decode(text, 64).ok_or(NOT_SHA512)?;
        Ok(Self::fold_sha512(&raw))
    }

    /// One more SHA-256 makes a SHA-512 fit: nothing is cut off, every digest has 32 bytes.
    pub(crate) fn fold_sha512(raw: &[u8]) -> Self {
        Self::from_parts(HasherTag::SHA512, sha2::Sha256::digest(raw).into())
    }

    /// Reads back what [`to_bytes`](SecretDigest::to_bytes) wrote; `None` if it did not.
    pub fn from_bytes(stored: &[u8]) -> Option<Self> {
        let (&[algorithm, high, low], bytes) = stored.split_first_chunk()?;
        let tag = HasherTag { algorithm, id: u16::from_be_bytes([high, low]) };
        Some(Self::from_parts(tag, bytes.try_into().ok()?))
    }

    /// What no hasher makes.
    pub(crate) const fn nothing() -> Self {
        Self { words: [0; 8], tag: HasherTag { algorithm: 0, id: 0 } }
    }

    /// The form in which it is stored: three bytes of tag and the hash. Binary, unique, never text.
    pub fn to_bytes(&self) -> [u8; 35] {
        let mut stored = [0; 35];
        stored[0] = self.tag.algorithm;
        stored[1..3].copy_from_slice(&self.tag.id.to_be_bytes());
        for (bytes, word) in stored[3..].as_chunks_mut().0.iter_mut().zip(self.words) {
            *bytes = word.to_be_bytes();
        }
        stored
    }

    /// The hasher that made it.
    pub fn tag(&self) -> HasherTag {
        self.tag
    }

    /// Returns the first 64 bits of the hash.
    #[inline]
    pub(crate) fn first_lane(&self) -> u64 {
        self.lanes()[0]
    }

    #[inline]
    fn lanes(&self) -> [u64; 4] {
        let (pairs, _) = self.words.as_chunks::<2>();
        [0, 1, 2, 3].map(|n| u64::from(pairs[n][0]) | u64::from(pairs[n][1]) << 32)
    }

    /// Compares in a time that does not depend on where two digests differ.
    ///
    /// Over 64-bit lanes, of which the differences are gathered and looked at once: byte by byte the same comparison costs several times as much
    /// (`cargo bench --bench verify -- compare` shows the ratio).
    #[inline]
    pub fn ct_eq(&self, other: &Self) -> Choice {
        let tags = u64::from(u32::from(self.tag) ^ u32::from(other.tag));
        let (a, b) = (self.lanes(), other.lanes());
        let bytes = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]);
        (tags | bytes).ct_eq(&0)
    }
}

impl HasherTag {
    /// Of [`Sha256Hasher`](crate::secret::sha::Sha256), and of imported raw SHA-256.
    pub const SHA256: Self = Self { algorithm: 1, id: 0 };
    /// Of [`Sha512Hasher`](crate::secret::sha::Sha512): imported keys only.
    pub const SHA512: Self = Self { algorithm: 3, id: 0 };

    /// Of a hasher that the host brings itself; `id` keeps several apart.
    pub const fn custom(id: u16) -> Self {
        Self { algorithm: 255, id }
    }

    pub(crate) const fn hmac_sha256(pepper: u16) -> Self {
        Self { algorithm: 2, id: pepper }
    }
}

impl From<HasherTag> for u32 {
    fn from(tag: HasherTag) -> Self {
        Self::from(tag.algorithm) << 16 | Self::from(tag.id)
    }
}

/// Map lookups in memory compare hashes, not secrets; which digest is stored is found by hash table
/// or index everywhere, and the constant-time comparison follows it.
impl PartialEq for SecretDigest {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for SecretDigest {}

impl std::hash::Hash for SecretDigest {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.lanes()[0]);
    }
}

impl std::fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest").field("tag", &self.tag).finish_non_exhaustive()
    }
}

fn decode(text: &str, len: usize) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text.trim();
    let decoded = if text.len() == 2 * len {
        hex::decode(text).ok()?
    } else {
        GeneralPurpose::new(&STANDARD, config)
            .decode(text)
            .or_else(|_| GeneralPurpose::new(&URL_SAFE, config).decode(text))
            .ok()?
    };
    (decoded.len() == len).then_some(decoded)
}

const NOT_SHA256: ImportHashError = ImportHashError { expected: "a SHA-256", len: 32 };
const NOT_SHA512: ImportHashError = ImportHashError { expected: "a SHA-512", len: 64 };
