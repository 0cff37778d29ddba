use std::sync::Arc;

use crate::secret::{
    digest::{HasherTag, SecretDigest},
    hasher::Hasher,
};

/// The hasher of new digests, and those whose digests are still accepted.
#[derive(Clone)]
pub struct Hashers {
    current: Arc<dyn Hasher>,
    retired: Vec<Arc<dyn Hasher>>,
}

/// Every digest that a presented text may be stored under, the current one first.
#[derive(Clone, Debug)]
pub struct Candidates {
    current: SecretDigest,
    /// Empty, and then without an allocation, unless there are retired hashers.
    all: Vec<SecretDigest>,
}

impl Hashers {
    /// New digests are made by `current`, and no others are accepted.
    pub fn new(current: impl Hasher) -> Self {
        Self { current: Arc::new(current), retired: Vec::new() }
    }

    /// Makes new digests by another hasher; what was accepted beside the first one still is.
    pub(crate) fn with_current(self, current: impl Hasher) -> Self {
        Self { current: Arc::new(current), ..self }
    }

    /// Accepts digests that `retired` made, too.
    #[must_use]
    pub fn also_accept(mut self, retired: impl Hasher) -> Self {
        self.retired.push(Arc::new(retired));
        self
    }

    /// The digest under which a new secret is stored.
    #[inline]
    pub fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.current.digest(presented)
    }

    /// All digests to look for, for one round trip to the store.
    #[inline]
    pub fn candidates(&self, presented: &[u8]) -> Candidates {
        self.candidates_with(self.current.digest(presented), presented)
    }

    /// The same, where the digest of the current hasher is known already.
    pub(crate) fn candidates_with(&self, current: SecretDigest, presented: &[u8]) -> Candidates {
        let mut all = Vec::new();
        if !self.retired.is_empty() {
            all.push(current);
            all.extend(self.retired.iter().map(|hasher| hasher.digest(presented)));
        }
        Candidates { current, all }
    }

    /// Whether digests with this tag can be verified at all.
    pub fn accepts(&self, tag: HasherTag) -> bool {
        self.current.tag() == tag || self.retired.iter().any(|hasher| hasher.tag() == tag)
    }
}

impl Candidates {
    /// The digest that the current hasher made.
    pub fn current(&self) -> &SecretDigest {
        &self.current
    }

    /// All of them, the current one first.
    pub fn as_slice(&self) -> &[SecretDigest] {
        if self.all.is_empty() { std::slice::from_ref(&self.current) } else { &self.all }
    }
}

impl std::fmt::Debug for Hashers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let retired: Vec<HasherTag> = self.retired.iter().map(|hasher| hasher.tag()).collect();
        f.debug_struct("Hashers")
            .field("current", &self.current.tag())
            .field("retired", &retired)
            .finish()
    }
}
