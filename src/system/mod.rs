//! What comes from the operating system: time, randomness, locks.

#[cfg(feature = "server")]
mod clock;
#[cfg(feature = "server")]
mod node_clock;

use rand::{TryRng as _, rngs::SysRng};

#[cfg(feature = "server")]
pub use self::clock::{Clock, ClockReading, SystemClock};
#[cfg(feature = "server")]
pub(crate) use self::{
    clock::IdGenerator,
    node_clock::{ClockOffset, NodeClock, Now, SETTLING_TIME},
};

/// The operating system's random generator failed, so nothing was generated.
#[derive(Debug, thiserror::Error)]
#[error(
    "the operating system's random generator failed: check that the process may call `getrandom` or read `/dev/urandom`"
)]
pub struct EntropyError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Fills a buffer from the operating system's random generator. There is no weaker fallback.
pub(crate) fn fill_random(buffer: &mut [u8]) -> Result<(), EntropyError> {
    SysRng.try_fill_bytes(buffer).map_err(|error| EntropyError(Box::new(error)))
}

/// A generator that always fails.
#[cfg(test)]
pub(crate) fn fail_random(_: &mut [u8]) -> Result<(), EntropyError> {
    Err(EntropyError(Box::new(std::io::Error::from(std::io::ErrorKind::Unsupported))))
}

/// Locks a mutex, even a poisoned one: no code of this crate panics between two writes that belong together.
#[cfg(feature = "server")]
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
