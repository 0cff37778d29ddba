//! What is stored of a secret: a [`SecretDigest`], tagged with the [`Hasher`] that made it.
//!
//! Fast hashes are right here. A password needs a slow hash because people choose it; a secret of
//! this crate has at least 128 bits from the operating system's generator, so guessing it is
//! hopeless at any speed, and a slow hash would only cost every honest request its time.
//!
//! [`Sha256Hasher`] is the default. [`HmacSha256Hasher`] adds a pepper that lives outside the database.

use crate::secret::{HasherTag, SecretDigest};

/// Turns a presented text into the digest that a store looks up.
///
/// An implementation MUST be deterministic, MUST be collision resistant, and MUST put its own
/// [`HasherTag`] on every digest, so that two hashers never share a name space. It SHOULD be fast: it
/// runs once per request, also for garbage.
pub trait Hasher: Send + Sync + 'static {
    /// The digest of a presented text.
    fn digest(&self, presented: &[u8]) -> SecretDigest;

    /// The tag on every digest that this hasher makes.
    fn tag(&self) -> HasherTag;
}
