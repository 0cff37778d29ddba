use std::hash::{BuildHasherDefault, Hasher};

/// For maps whose keys are as random as a hash: digests, and the identifiers of keys. What they
/// hash, one `u64` of themselves, serves as it is.
pub(crate) type BuildPrehashed = BuildHasherDefault<Prehashed>;

#[derive(Default)]
pub(crate) struct Prehashed(u64);

impl Hasher for Prehashed {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("digests and identifiers hash themselves as one u64");
    }

    #[inline]
    fn write_u64(&mut self, random: u64) {
        self.0 = random;
    }
}
