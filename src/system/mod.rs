//! What comes from the operating system: time, randomness, locks.

#[cfg(feature = "server")]
mod clock;
#[cfg(feature = "server")]
mod coarse;
#[cfg(feature = "server")]
mod id_generator;
#[cfg(feature = "server")]
mod lock;
#[cfg(feature = "server")]
mod prehashed;
pub(crate) mod random;

pub use random::EntropyError;

#[cfg(feature = "server")]
pub use clock::{Clock, Moment, SystemClock};
#[cfg(feature = "server")]
pub(crate) use {clock::Ratchet, id_generator::IdGenerator, lock::lock, prehashed::BuildPrehashed};
