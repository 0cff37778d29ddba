use std::{slice, sync::Arc};

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, block_api::compress256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::model::debug_only;

/// The stored form of a secret: a 32-byte hash and the tag of the hasher that made it.
#[derive(Clone, Copy)]
pub struct SecretDigest {
    /// The state words of SHA-256, without conversion to bytes between hashing and comparing.
    words: [u32; 8],
    tag: HasherTag,
}

/// The hasher of a digest. It is stored with the digest, so digests of different hashers never collide.
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
    /// Returns a digest of these parts, for implementations of [`Hasher`].
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
    /// To verify such keys, the host must [accept](Hashers::also_accept) digests of [`Sha512Hasher`].
    ///
    /// # Errors
    /// If the text has none of these encodings, or does not decode to 64 bytes.
    pub fn from_sha512_text(text: &str) -> Result<Self, ImportHashError> {
        decode::<64>(text).map(|raw| Self::fold_sha512(&raw))
    }

    /// Reduces a SHA-512 hash to 32 bytes by hashing it with SHA-256, instead of truncating it.
    fn fold_sha512(raw: &[u8]) -> Self {
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
        let lane = |n: usize| u64::from(self.words[n]) | u64::from(self.words[n + 1]) << 32;
        [lane(0), lane(2), lane(4), lane(6)]
    }

    /// Compares in constant time: the duration does not depend on where two digests differ.
    ///
    /// The differences of 64-bit lanes are combined and tested once, which is several times faster than
    /// comparing byte by byte (`cargo bench -p keyward-tests --bench verify -- compare` prints the ratio).
    #[inline]
    pub fn ct_eq(&self, other: &Self) -> Choice {
        let tags = u64::from(u32::from(self.tag) ^ u32::from(other.tag));
        let (a, b) = (self.lanes(), other.lanes());
        let bytes = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]);
        (tags | bytes).ct_eq(&0)
    }
}

impl HasherTag {
    /// The tag of [`Sha256Hasher`] and of imported SHA-256 hashes.
    pub const SHA256: Self = Self { algorithm: 1, id: 0 };
    /// The tag of [`Sha512Hasher`] and of imported SHA-512 hashes.
    pub const SHA512: Self = Self { algorithm: 3, id: 0 };

    /// The tag of a hasher that the host implements. Each such hasher needs its own `id`.
    pub const fn custom(id: u16) -> Self {
        Self { algorithm: 255, id }
    }
}

impl From<HasherTag> for u32 {
    fn from(tag: HasherTag) -> Self {
        Self::from(tag.algorithm) << 16 | Self::from(tag.id)
    }
}

/// Compares in constant time. A hash table or an index finds the digest, and this comparison confirms it.
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

debug_only!(SecretDigest { tag });

/// Turns a presented text into the digest that a store looks up.
///
/// A fast hash is appropriate: a secret has at least 128 random bits, so unlike a password it cannot be
/// guessed at any speed. [`Sha256Hasher`] is the default.
///
/// An implementation MUST be deterministic and collision resistant, and MUST put its own [`HasherTag`] on every digest,
/// so that digests of two hashers never collide. It SHOULD be fast: it runs once per request, also for invalid keys.
pub trait Hasher: Send + Sync + 'static {
    /// Returns the digest of a presented text.
    fn digest(&self, presented: &[u8]) -> SecretDigest;

    /// Returns the tag of all digests of this hasher.
    fn tag(&self) -> HasherTag;
}

impl std::fmt::Debug for dyn Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.tag(), f)
    }
}

/// The hasher of new digests, and hashers whose digests are still accepted.
#[derive(Clone, Debug)]
pub struct Hashers {
    current: Arc<dyn Hasher>,
    retired: Vec<Arc<dyn Hasher>>,
}

impl Hashers {
    /// Makes new digests with `current` and accepts no others.
    pub fn new(current: impl Hasher) -> Self {
        Self { current: Arc::new(current), retired: Vec::new() }
    }

    /// Replaces the current hasher and keeps the retired ones.
    pub(crate) fn with_current(self, current: impl Hasher) -> Self {
        Self { current: Arc::new(current), ..self }
    }

    /// Also accepts digests of a `retired` hasher.
    #[must_use]
    pub fn also_accept(mut self, retired: impl Hasher) -> Self {
        self.retired.push(Arc::new(retired));
        self
    }

    /// Returns the digest under which a new secret is stored.
    #[inline]
    pub fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.current.digest(presented)
    }

    /// Returns all digests under which a text may be stored, for one query of the store.
    #[inline]
    pub fn candidates(&self, presented: &[u8]) -> Candidates {
        self.candidates_with(self.current.digest(presented), presented)
    }

    /// Like [`candidates`](Hashers::candidates), with the digest of the current hasher already known.
    pub(crate) fn candidates_with(&self, current: SecretDigest, presented: &[u8]) -> Candidates {
        let mut all = Vec::new();
        if !self.retired.is_empty() {
            all.push(current);
            all.extend(self.retired.iter().map(|hasher| hasher.digest(presented)));
        }
        Candidates { current, all }
    }

    /// Whether digests with this tag can be verified.
    pub fn accepts(&self, tag: HasherTag) -> bool {
        self.current.tag() == tag || self.retired.iter().any(|hasher| hasher.tag() == tag)
    }
}

/// All digests under which a presented text may be stored, the current one first.
#[derive(Clone, Debug)]
pub struct Candidates {
    current: SecretDigest,
    /// Empty unless there are retired hashers, so that the common case does not allocate.
    all: Vec<SecretDigest>,
}

impl Candidates {
    /// Returns the digest of the current hasher.
    pub fn current(&self) -> &SecretDigest {
        &self.current
    }

    /// Returns all digests, the current one first.
    pub fn as_slice(&self) -> &[SecretDigest] {
        if self.all.is_empty() { slice::from_ref(&self.current) } else { &self.all }
    }
}

/// SHA-256 without a pepper: the default hasher.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256Hasher;

impl Hasher for Sha256Hasher {
    #[inline]
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        let tag = HasherTag::SHA256;
        match last_block(INITIAL, &FIRST_BLOCK, presented) {
            Some(words) => SecretDigest { words, tag },
            None => SecretDigest::from_parts(tag, sha2::Sha256::digest(presented).into()),
        }
    }

    fn tag(&self) -> HasherTag {
        HasherTag::SHA256
    }
}

/// SHA-512 of the whole text without a salt, for keys imported from a system that stored such hashes. It has no
/// advantage for new keys.
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

/// HMAC-SHA-256 under a [`Pepper`] that is kept outside the database.
///
/// With a copy of the database but without the pepper, an attacker cannot find out whether a text is a key. To replace
/// a pepper, make a hasher with the new pepper current and [`also_accept`](Hashers::also_accept) the old one: the
/// digest of a key is updated when the key is used. See [`ApiKeysBuilder::hasher`](crate::api::ApiKeysBuilder::hasher).
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
        let (inner, outer) = (state_after(0x36), state_after(0x5c));
        Self { tag: HasherTag { algorithm: 2, id: pepper.id }, inner, outer, keyed }
    }

    /// The digest of a text of 16 to 55 bytes, in 0.6 of the time that `keyed` takes.
    fn short(&self, presented: &[u8]) -> Option<SecretDigest> {
        let inner = last_block(*self.inner, &SECOND_BLOCK, presented)?.map(u32::to_be_bytes);
        let words = last_block(*self.outer, &SECOND_BLOCK, inner.as_flattened())?;
        Some(SecretDigest { words, tag: self.tag })
    }
}

impl Hasher for HmacSha256Hasher {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.short(presented).unwrap_or_else(|| {
            let mac = self.keyed.clone().chain_update(presented).finalize();
            SecretDigest::from_parts(self.tag, mac.into_bytes().into())
        })
    }

    fn tag(&self) -> HasherTag {
        self.tag
    }
}

debug_only!(HmacSha256Hasher { tag });

/// A secret of the service, mixed into every digest. Its memory is wiped when it is dropped.
pub struct Pepper {
    id: u16,
    bytes: Zeroizing<Vec<u8>>,
}

/// A pepper is too short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pepper of {len} bytes is too short: use at least 32 from a random generator")]
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
        if bytes.len() < 32 {
            return Err(PepperError { len: bytes.len() });
        }
        Ok(Self { id, bytes })
    }
}

debug_only!(Pepper { id });

/// Compresses a text of 16 to 55 bytes, which fits the last SHA-256 block with its padding; else `None`.
///
/// Measured for a default secret of 39 bytes: 30 ns, against 48 ns if the block is filled by `copy_from_slice` and 62 ns
/// for `sha2::Sha256::digest`; a cached verification takes about 90 ns. The compression loads 16 bytes at a time, which
/// is fast only if a single store wrote them. Therefore the block is also written 16 bytes at a time.
#[inline]
fn last_block(mut state: [u32; 8], padding: &Padding, text: &[u8]) -> Option<[u32; 8]> {
    let padding = padding.get(text.len())?;
    let last = u128::from_le_bytes(*text.last_chunk()?);
    let (chunks, rest) = text.as_chunks();
    let rest = if rest.is_empty() { 0 } else { last >> (8 * (16 - rest.len())) };
    let mut block = *padding;
    for (target, chunk) in block.iter_mut().zip(chunks) {
        *target = *chunk;
    }
    block[chunks.len()] = merge(rest, &padding[chunks.len()]);
    compress256(&mut state, block.as_flattened().as_chunks().0);
    // The block held the secret. `black_box` keeps the compiler from removing this write.
    *std::hint::black_box(&mut block) = [[0; 16]; 4];
    Some(state)
}

/// Bitwise or, by 32-bit words, which the compiler turns into a single 16-byte store.
#[inline]
fn merge(text: u128, padding: &[u8; 16]) -> [u8; 16] {
    let mut merged = [0; 16];
    let words = merged.as_chunks_mut::<4>().0.iter_mut().zip(padding.as_chunks().0);
    for (n, (word, padding)) in words.enumerate() {
        *word = ((text >> (32 * n)) as u32 | u32::from_le_bytes(*padding)).to_le_bytes();
    }
    merged
}

/// The last block without its text, for each length of text: a one bit after the text, and the number
/// of bits of the whole message at the end (FIPS 180-4, section 5.1.1).
type Padding = [[[u8; 16]; 4]; 56];

/// If the last block is also the first.
static FIRST_BLOCK: Padding = padding(0);
/// If one block precedes the last.
static SECOND_BLOCK: Padding = padding(64);

const fn padding(preceding_bytes: usize) -> Padding {
    let mut padding = [[[0; 16]; 4]; 56];
    let mut len = 0;
    while len < padding.len() {
        padding[len][len / 16][len % 16] = 0x80;
        let [high, low] = (8 * (preceding_bytes + len) as u16).to_be_bytes();
        padding[len][3][14] = high;
        padding[len][3][15] = low;
        len += 1;
    }
    padding
}

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

/// The initial state of SHA-256: FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
