//! What comes from the operating system: time, randomness, locks.

#[cfg(feature = "server")]
mod clock;
#[cfg(feature = "server")]
mod id_generator;
#[cfg(feature = "server")]
mod lock;
pub(crate) mod random;

pub use random::EntropyError;

#[cfg(feature = "server")]
pub use clock::{Clock, ClockReading, SystemClock};
#[cfg(feature = "server")]
pub(crate) use {
    clock::{NodeClock, Now},
    id_generator::IdGenerator,
    lock::lock,
};
