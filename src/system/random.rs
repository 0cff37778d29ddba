use rand::{TryRng as _, rngs::SysRng};

/// The operating system's random generator failed, so nothing was generated.
#[derive(Debug, thiserror::Error)]
#[error(
    "the operating system's random generator failed: check that the process may call `getrandom` or read `/dev/urandom`"
)]
pub struct EntropyError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl EntropyError {
    pub(crate) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

/// Fills a buffer from the operating system's random generator. There is no weaker fallback.
pub(crate) fn fill(buffer: &mut [u8]) -> Result<(), EntropyError> {
    SysRng.try_fill_bytes(buffer).map_err(EntropyError::new)
}

/// A generator that always fails.
#[cfg(test)]
pub(crate) fn fail(_: &mut [u8]) -> Result<(), EntropyError> {
    Err(EntropyError::new(std::io::Error::from(std::io::ErrorKind::Unsupported)))
}
