use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha2::Digest as _;
use subtle::{Choice, ConstantTimeEq};

/// The stored form of a secret: a 32-byte hash and the tag of the hasher that made it.
#[derive(Clone, Copy)]
pub struct SecretDigest {
    /// The state words of SHA-256, without conversion to bytes between hashing and comparing.
    pub(super) words: [u32; 8],
    pub(super) tag: HasherTag,
}

/// Identifies the hasher of a digest. It is stored with the digest, so digests of different hashers never
/// collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HasherTag {
    algorithm: u8,
    id: u16,
}

/// A hash from another system could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-{} hash: pass hex or base64 that decodes to {len} bytes", 8 * .len)]
pub struct ImportHashError {
    len: usize,
}

impl SecretDigest {
    /// Returns a digest of these parts, for implementations of [`Hasher`](crate::secret::Hasher).
    #[inline]
    pub fn from_parts(tag: HasherTag, bytes: [u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self { words: std::array::from_fn(|n| u32::from_be_bytes(words[n])), tag }
    }

    /// Imports a raw SHA-256 hash (32 bytes) from another system.
    ///
    /// # Errors
    /// If `raw` is not 32 bytes long.
    pub fn from_sha256(raw: &[u8]) -> Result<Self, ImportHashError> {
        let bytes = raw.try_into().map_err(|_| ImportHashError { len: 32 })?;
        Ok(Self::from_parts(HasherTag::SHA256, bytes))
    }

    /// Imports a SHA-256 hash that another system stored as hex, base64 or URL-safe base64.
    ///
    /// # Errors
    /// If the text has none of these encodings, or does not decode to 32 bytes.
    pub fn from_sha256_text(text: &str) -> Result<Self, ImportHashError> {
        decode(text).map(|bytes| Self::from_parts(HasherTag::SHA256, bytes))
    }

    /// Imports a SHA-512 hash that another system stored as hex, base64 or URL-safe base64.
    ///
    /// To verify such keys, the host must accept digests of [`Sha512Hasher`](crate::secret::Sha512Hasher).
    ///
    /// # Errors
    /// If the text has none of these encodings, or does not decode to 64 bytes.
    pub fn from_sha512_text(text: &str) -> Result<Self, ImportHashError> {
        decode::<64>(text).map(|raw| Self::fold_sha512(&raw))
    }

    /// Reduces a SHA-512 hash to 32 bytes by hashing it with SHA-256, instead of truncating it.
    pub(super) fn fold_sha512(raw: &[u8]) -> Self {
        Self::from_parts(HasherTag::SHA512, sha2::Sha256::digest(raw).into())
    }

    /// Decodes a digest written by [`to_bytes`](SecretDigest::to_bytes); `None` if the length is wrong.
    pub fn from_bytes(stored: &[u8]) -> Option<Self> {
        let (&[algorithm, high, low], bytes) = stored.split_first_chunk()?;
        let tag = HasherTag { algorithm, id: u16::from_be_bytes([high, low]) };
        Some(Self::from_parts(tag, bytes.try_into().ok()?))
    }

    /// A digest that no hasher makes.
    pub(crate) const fn nothing() -> Self {
        Self { words: [0; 8], tag: HasherTag { algorithm: 0, id: 0 } }
    }

    /// Encodes the digest for storage: 3 bytes of tag, then 32 bytes of hash.
    pub fn to_bytes(&self) -> [u8; 35] {
        let mut stored = [0; 35];
        stored[0] = self.tag.algorithm;
        stored[1..3].copy_from_slice(&self.tag.id.to_be_bytes());
        for (bytes, word) in stored[3..].as_chunks_mut().0.iter_mut().zip(self.words) {
            *bytes = word.to_be_bytes();
        }
        stored
    }

    /// Returns the tag of the hasher that made the digest.
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

    /// Compares in constant time: the duration does not depend on where two digests differ.
    ///
    /// The differences of 64-bit lanes are combined and tested once, which is several times faster than
    /// comparing byte by byte (`cargo bench --bench verify -- compare` prints the ratio).
    #[inline]
    pub fn ct_eq(&self, other: &Self) -> Choice {
        let tags = u64::from(u32::from(self.tag) ^ u32::from(other.tag));
        let (a, b) = (self.lanes(), other.lanes());
        let bytes = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]);
        (tags | bytes).ct_eq(&0)
    }
}

impl HasherTag {
    /// The tag of [`Sha256Hasher`](crate::secret::Sha256Hasher) and of imported SHA-256 hashes.
    pub const SHA256: Self = Self { algorithm: 1, id: 0 };
    /// The tag of [`Sha512Hasher`](crate::secret::Sha512Hasher) and of imported SHA-512 hashes.
    pub const SHA512: Self = Self { algorithm: 3, id: 0 };

    /// The tag of a hasher that the host implements. Each such hasher needs its own `id`.
    pub const fn custom(id: u16) -> Self {
        Self { algorithm: 255, id }
    }

    pub(super) const fn hmac_sha256(pepper: u16) -> Self {
        Self { algorithm: 2, id: pepper }
    }
}

impl From<HasherTag> for u32 {
    fn from(tag: HasherTag) -> Self {
        Self::from(tag.algorithm) << 16 | Self::from(tag.id)
    }
}

/// Compares in constant time. A hash table or index finds the stored digest first; this comparison
/// then confirms the match.
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
        state.write_u64(self.first_lane());
    }
}

/// Implements `Debug` with these fields only, because the others are secret.
macro_rules! debug_only {
    ($type:ident { $($field:ident),* }) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($type));
                $(shown.field(stringify!($field), &self.$field);)*
                shown.finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use debug_only;

debug_only!(SecretDigest { tag });

/// Hex if the text has exactly the length of it, else either base64, with or without padding.
fn decode<const LEN: usize>(text: &str) -> Result<[u8; LEN], ImportHashError> {
    let text = text.trim();
    let base64 = |alphabet| {
        let padding = DecodePaddingMode::Indifferent;
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
        GeneralPurpose::new(alphabet, config).decode(text).ok()
    };
    let decoded = match text.len() == 2 * LEN {
        true => hex::decode(text).ok(),
        false => base64(&STANDARD).or_else(|| base64(&URL_SAFE)),
    };
    decoded.and_then(|bytes| bytes.try_into().ok()).ok_or(ImportHashError { len: LEN })
}
